"""What every process of the platform under test says of itself, and where it waits when it is told to.

A process that comes to a point writes it into a file named after its process id, so that the phase of a process that was
killed is a fact read after its death. A point that was armed holds the first process that comes to it until it is
released (or killed): a kill in the middle of a commit is then certain and no matter of luck. Nothing in the product knows
of this: `install` wraps the product's functions when their modules are imported (see ``hook/sitecustomize.py``).

Standard library only: it is imported by processes whose start-up counts.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: In the order of a load. ``idle`` is nobody's: it is what the harness says when no process is in any of them.
PHASES = (
    "claiming",
    "queued",
    "begun",
    "starting",
    "reading",
    "writing",
    "written",
    "committing",
    "committed",
    "mirroring",
)
#: A process that nobody releases goes on by itself.
HOLD_SECONDS = 90.0
#: The moments between two commits are short; this makes each of them long enough to be met at random, too.
LINGER_SECONDS = 0.02


@dataclass(frozen=True)
class Place:
    """Where one process is."""

    pid: int
    parent: int
    role: str
    phase: str
    config_id: int
    attempt: int


class Points:
    """The points of one platform, in one folder."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        for name in ("phase", "armed", "held"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._file: tuple[int, int] | None = None
        self._last = (0, 0)

    # -- in a process under test

    def enter(self, role: str, phase: str, attempt: tuple[int, int] | None = None) -> None:
        """Say it, and wait where that is asked for."""
        pid = os.getpid()
        if self._file is None or self._file[0] != pid:  # the first time, also after a fork
            path = str(self.folder / "phase" / str(pid))
            self._file = (pid, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._last = (0, 0)
        self._last = attempt or self._last
        text = f"{role} {phase} {os.getppid()} {self._last[0]} {self._last[1]}"
        os.pwrite(self._file[1], text.ljust(96).encode(), 0)
        self._wait(pid, phase)
        if phase in ("committing", "committed", "mirroring"):
            time.sleep(LINGER_SECONDS)

    def _wait(self, pid: int, phase: str) -> None:
        held = self.folder / "held" / str(pid)
        for name in (f"{phase}.{self._last[0]}", phase):
            try:
                (self.folder / "armed" / name).rename(held)  # the first to come has it
            except FileNotFoundError:
                continue
            until = time.monotonic() + HOLD_SECONDS
            while held.exists() and time.monotonic() < until:
                time.sleep(0.002)
            return

    # -- in the harness

    def places(self) -> list[Place]:
        """Where the living processes are; what is left of dead ones is removed."""
        found = []
        for path in (self.folder / "phase").iterdir():
            if (place := self.place(int(path.name))) is None or not alive(place.pid):
                path.unlink(missing_ok=True)
            else:
                found.append(place)
        return found

    def place(self, pid: int) -> Place | None:
        """Where a process is, or was when it died."""
        try:
            words = (self.folder / "phase" / str(pid)).read_text().split()
        except FileNotFoundError:
            return None
        if len(words) != 5:
            return None
        return Place(pid, int(words[2]), words[0], words[1], int(words[3]), int(words[4]))

    def arm(self, phase: str, config_id: int | None = None) -> None:
        """Hold the first process that comes to the point, of one row or of any."""
        (self.folder / "armed" / (phase if config_id is None else f"{phase}.{config_id}")).touch()

    def disarm(self) -> None:
        """Hold nobody any more, and let go whom that was too late for."""
        for path in (*(self.folder / "armed").iterdir(), *(self.folder / "held").iterdir()):
            path.unlink(missing_ok=True)

    def held(self) -> Place | None:
        """A living process that is held."""
        for path in (self.folder / "held").iterdir():
            pid = int(path.name)
            if alive(pid):
                return self.place(pid)
            path.unlink(missing_ok=True)
        return None

    def release(self, pid: int) -> None:
        """Let a held process go on."""
        (self.folder / "held" / str(pid)).unlink(missing_ok=True)


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0] not in "ZX"
        )
    except OSError:
        return False


# -- the wrapping --------------------------------------------------------------------------------------------------------

_points: Points | None = None


def install(folder: str) -> None:
    """Wrap the product's functions in this process, those imported already and those to come."""
    global _points
    _points = Points(folder)
    for name, patch in _PATCHES.items():
        if name in sys.modules:
            patch(sys.modules[name])
    sys.meta_path.insert(0, _Finder())


def enter(role: str, phase: str, attempt: tuple[int, int] | None = None) -> None:
    if _points is not None:
        _points.enter(role, phase, attempt)


def _is_worker() -> bool:
    return bool(sys.argv) and sys.argv[0].endswith("dataloader_pipe.py")


def _client(module: Any) -> None:
    client = module.LakebaseClient
    claim, begin, succeed = client.claim, client.begin, client.succeed
    hold, hold_all = client.hold, client.hold_all

    def claiming(self: Any, *arguments: Any, **named: Any) -> Any:
        enter("scheduler", "claiming")
        try:
            return claim(self, *arguments, **named)
        finally:
            enter("scheduler", "idle")

    def beginning(self: Any, *arguments: Any, **named: Any) -> Any:
        enter("run", "queued", self.attempt)
        result = begin(self, *arguments, **named)
        enter("run", "begun", self.attempt)
        return result

    @contextlib.contextmanager
    def holding(self: Any) -> Iterator[None]:
        enter("worker", "written", self.attempt)
        with hold(self):
            enter("worker", "committing", self.attempt)
            yield
        enter("worker", "committed", self.attempt)

    @contextlib.contextmanager
    def holding_all(self: Any, keys: Any) -> Iterator[Callable[..., None]]:
        for key in keys:
            enter("worker", "written", key)
        with hold_all(self, keys) as write:

            def writing(config_id: int, attempt: int, result: Any) -> None:
                enter("worker", "committed", (config_id, attempt))
                enter("worker", "mirroring", (config_id, attempt))
                write(config_id, attempt, result)

            for key in keys:
                enter("worker", "committing", key)
            yield writing
        enter("worker", "idle")

    def succeeding(self: Any, *arguments: Any, **named: Any) -> Any:
        enter("worker", "mirroring", self.attempt)
        try:
            return succeed(self, *arguments, **named)
        finally:
            enter("worker", "idle", self.attempt)

    client.claim, client.begin, client.succeed = claiming, beginning, succeeding
    client.hold, client.hold_all = holding, holding_all


def _load(module: Any) -> None:
    load_table = module.load_table

    def loading(settings: Any, request: Any, *arguments: Any, **named: Any) -> Any:
        enter("worker", "reading", (request.config_id, request.attempt))
        return load_table(settings, request, *arguments, **named)

    module.load_table = loading


def _lake(module: Any) -> None:
    transaction = module.Lake.transaction

    def observed(self: Any, work: Callable[[Any], Any], *arguments: Any, **named: Any) -> Any:
        def writing(con: Any) -> Any:
            enter("worker", "writing")
            return work(con)

        return transaction(self, writing, *arguments, **named)

    module.Lake.transaction = observed


def _worker(module: Any) -> None:
    if _is_worker():
        enter("worker", "starting")


def _pipe(module: Any) -> None:
    main = module.main

    def starting() -> int:
        enter("worker", "starting")  # forked from its run, with everything imported
        return main()

    module.main = starting


def _daemon(module: Any) -> None:
    module.MIN_INTERVAL_LOOP_TIME = 1  # sensors are looked at every five seconds otherwise


_PATCHES: dict[str, Callable[[Any], None]] = {
    "quayside.dataloader.control.client": _client,
    "quayside.dataloader.load": _load,
    "quayside.foundation.lake.lake": _lake,
    "quayside.dataloader.worker": _worker,
    "quayside.dataloader.dataloader_pipe": _pipe,
    "dagster._daemon.sensor": _daemon,
}


class _Finder(importlib.abc.MetaPathFinder):
    """Finds nothing itself; what the others find of `_PATCHES` is patched after it was executed."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        patch = _PATCHES.get(fullname)
        if patch is None:
            return None
        for finder in sys.meta_path:
            spec = None if isinstance(finder, _Finder) else finder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader.exec_module = _then(spec.loader.exec_module, patch)  # type: ignore[method-assign]
                return spec
        return None


def _then(execute: Callable[[Any], None], patch: Callable[[Any], None]) -> Callable[[Any], None]:
    def exec_module(module: Any) -> None:
        execute(module)
        patch(module)

    return exec_module
