"""Who is killed, when and where: a schedule that its seed decides, and the execution of it.

Most kills are aimed: a point of a load is armed, the first process (or the first that loads a certain table) that comes to
it is held, and the kill falls there, or a moment later. The others fall whenever their time has come. What the victim was
doing is read from what it said itself; of a daemon or a server, it is the most advanced of the loads under way.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Final, Literal

from tests.faults.dataloader.platform import Platform, until
from tests.faults.dataloader.points import PHASES, Place, alive

Kind = Literal["worker", "run", "daemon", "postgres", "source"]
#: Share of the kills, and the points they are aimed at; None is any moment.
_PLAN: Final[dict[Kind, tuple[float, tuple[str | None, ...]]]] = {
    "worker": (
        0.30,
        ("starting", "reading", "writing", "written", "committing", "committed", "mirroring", None),
    ),
    "run": (0.24, ("queued", "begun", "reading", "writing", "committing", "mirroring", None)),
    "daemon": (0.17, ("claiming", "queued", "reading", "committing", None)),
    "postgres": (0.19, ("claiming", "reading", "writing", "committing", "committed", "mirroring", None)),
    "source": (0.10, ("reading", "writing", None)),
}
KINDS: Final = tuple(_PLAN)
#: Phases in which nothing would be lost by a kill; every other is active work.
IDLE: Final = "idle"
_AIM_SECONDS: Final = 40.0


@dataclass(frozen=True)
class Kill:
    """One entry of the schedule.

    Attributes:
        table: index of the table whose load is awaited; None: any.
        pause: seconds since the kill before it.
        delay: seconds from the point at which it is aimed.
        choice: decides among several possible victims.
        backend: kill one session of the server and not the server.
    """

    kind: Kind
    phase: str | None
    table: int | None
    pause: float
    delay: float
    choice: float
    backend: bool


def schedule(seed: int, kills: int, tables: int) -> list[Kill]:
    """The kills of a seed, in order: every kind in its share, every point of a kind equally often."""
    rng = random.Random(seed)
    kinds: list[Kind] = []
    for kind, (share, _) in _PLAN.items():
        kinds.extend(kind for _ in range(max(1, round(share * kills))))
    rng.shuffle(kinds)
    aims: dict[Kind, list[str | None]] = {kind: [] for kind in KINDS}
    planned = []
    for kind in kinds[:kills]:
        if not aims[kind]:
            aims[kind] = rng.sample(_PLAN[kind][1], len(_PLAN[kind][1]))
        phase = aims[kind].pop()
        of_table = phase not in (None, "claiming") and kind in ("worker", "run") and rng.random() < 0.5
        planned.append(
            Kill(
                kind=kind,
                phase=phase,
                table=rng.randrange(tables) if of_table else None,
                pause=round(rng.uniform(0.0, 1.0 if phase else 3.0), 3),
                delay=rng.choice((0.0, 0.0, round(rng.uniform(0, 0.05), 4))),
                choice=rng.random(),
                backend=rng.random() < 0.4,
            )
        )
    return planned


def digest(planned: list[Kill]) -> str:
    """Two schedules are the same when this is."""
    return hashlib.sha256(repr([astuple(kill) for kill in planned]).encode()).hexdigest()[:16]


class Killer:
    """Executes a schedule on a platform, and counts."""

    def __init__(self, platform: Platform, config_ids: list[int], names: dict[int, str]) -> None:
        self._platform = platform
        self._config_ids = config_ids
        self._names = names
        self.kinds: Counter[str] = Counter()
        self.phases: Counter[str] = Counter()
        self.strategies: Counter[str] = Counter()
        self.missed = 0

    @property
    def count(self) -> int:
        return sum(self.kinds.values())

    @property
    def active(self) -> int:
        return self.count - self.phases[IDLE]

    def execute(self, planned: list[Kill], problems: list[str]) -> None:
        """Strike as planned, until something is wrong that no further kill would tell more about."""
        for number, kill in enumerate(planned, 1):
            if problems:
                return
            time.sleep(kill.pause)
            phase, place = self.strike(kill)
            where = self._names.get(place.config_id, "") if place else ""
            print(
                f"{number}/{len(planned)} {kill.kind} killed while {phase} {where}",
                file=sys.stderr,
                flush=True,
            )

    def strike(self, kill: Kill) -> tuple[str, Place | None]:
        """One kill; the phase it fell in, and the load that was hit."""
        points = self._platform.points
        place = self._aim(kill)
        try:
            while True:
                victim, place = self._victim(kill, place)
                place = points.place(place.pid) if place else None
                phase = place.phase if place and place.phase in PHASES else IDLE
                with suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
                    break
        finally:
            points.disarm()
        until(lambda: not alive(victim), 60, f"the end of a killed {kill.kind}")
        self.kinds[kill.kind] += 1
        self.phases[phase] += 1
        if place and place.config_id in self._names and phase != IDLE:
            self.strategies[self._names[place.config_id]] += 1
        return phase, place

    def _aim(self, kill: Kill) -> Place | None:
        points = self._platform.points
        if kill.phase is None:
            return None
        points.arm(kill.phase, None if kill.table is None else self._config_ids[kill.table])
        try:
            place = until(points.held, _AIM_SECONDS, f"a process in phase {kill.phase}", every=0.002)
        except TimeoutError:
            self.missed += 1  # such as a backfill that is complete; then it falls wherever it may
            points.disarm()
            return None
        if kill.delay:
            points.release(place.pid)
            time.sleep(kill.delay)
        return place

    def _victim(self, kill: Kill, place: Place | None) -> tuple[int, Place | None]:
        """The process to kill, and the load it is in the way of."""
        points = self._platform.points
        if kill.kind in ("worker", "run"):
            if place is None or place.role not in ("worker", "run") or not alive(place.pid):
                place = until(lambda: self._some_load(kill), 120, "a load to kill", every=0.005)
                assert place is not None
            if kill.kind == "run" and place.role == "worker":
                return place.parent, place
            return place.pid, place
        if place is None or not alive(place.pid):
            under_way = [p for p in points.places() if p.phase in PHASES]
            place = max(under_way, key=lambda p: PHASES.index(p.phase), default=None)
        if kill.kind == "daemon":
            return until(self._daemon, 60, "a daemon to kill"), place
        server = self._platform.server if kill.kind == "postgres" else self._platform.source
        pid = until(lambda: server.status().pid, 60, f"a server to kill ({kill.kind})")
        sessions = _sessions(pid) if kill.backend else []
        return (sessions[int(kill.choice * len(sessions))] if sessions else pid), place

    def _some_load(self, kill: Kill) -> Place | None:
        """One of the loads under way whose process is of the kind."""
        found = [p for p in self._platform.points.places() if p.role == "worker" and p.phase in PHASES]
        if kill.kind == "run":
            parents = {p.parent for p in found}
            found += [
                p
                for p in self._platform.points.places()
                if p.role == "run" and p.phase in PHASES and p.pid not in parents
            ]
        return found[int(kill.choice * len(found))] if found else None

    def _daemon(self) -> int | None:
        daemon = self._platform.daemon
        return daemon.pid if daemon is not None and daemon.poll() is None else None


def _sessions(postmaster: int) -> list[int]:
    """The server's processes that serve a client."""
    found = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            title = line.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            if title.startswith("postgres: quayside ") and _parent(int(line.parent.name)) == postmaster:
                found.append(int(line.parent.name))
    return sorted(found)


def _parent(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[1])
    return 0
