"""The runs a fork server has going, and how they are brought to an end: asked first, forced when the time is up.

The server and its warden hold the same table, so that the warden can carry on when the server was killed. Standard
library only; no threads, no waiting.
"""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, field

from quayside.foundation.dagster.launcher.processes import Process, end_session, session_members

#: What a run leaves behind in its session (helpers of libraries that end by themselves, or not) may live this long.
LEFTOVER_SECONDS = 5.0


@dataclass
class Going:
    """One run that is going. Times are of the monotonic clock, in seconds."""

    process: Process
    since: float = field(default_factory=time.monotonic)
    asked_at: float | None = None
    forced: bool = False


class Table:
    """Runs by id, each with its process.

    Args:
        grace_seconds: from being asked to end until being killed.
    """

    def __init__(self, grace_seconds: float) -> None:
        self.grace_seconds = grace_seconds
        self.runs: dict[str, Going] = {}
        self._leftovers: dict[int, tuple[float, list[Process]]] = {}  # by session: kill at, who was there

    def empty(self) -> bool:
        """Whether nothing is going any more, nor left behind."""
        return not self.runs and not self._leftovers

    def add(self, run_id: str, process: Process) -> None:
        """A run has started."""
        self.runs[run_id] = Going(process)

    def ask_to_end(self, run_id: str) -> bool:
        """Interrupt a run as Ctrl-C would, once; False when it is not going any more."""
        going = self.runs.get(run_id)
        if going is None:
            return False
        if going.asked_at is None:
            going.asked_at = time.monotonic()
            return going.process.signal(signal.SIGINT)
        return going.process.alive()

    def force_overdue(self) -> None:
        """Kill, with everything in its session, each run that was asked to end and has not in time, and what ended runs
        left behind."""
        now = time.monotonic()
        for going in self.runs.values():
            if going.asked_at is not None and not going.forced and now >= going.asked_at + self.grace_seconds:
                going.forced = True
                end_session(going.process.pid, signal.SIGKILL)
        for leader, (kill_at, left) in list(self._leftovers.items()):
            alive = any(process.alive() for process in left)
            if alive and now >= kill_at:
                end_session(leader, signal.SIGKILL)
            if not alive or now >= kill_at:
                del self._leftovers[leader]

    def next_deadline(self) -> float | None:
        """Seconds until `force_overdue` has something to do; None when nothing is pending."""
        due = [kill_at for kill_at, _ in self._leftovers.values()]
        due += [
            going.asked_at + self.grace_seconds
            for going in self.runs.values()
            if going.asked_at is not None and not going.forced
        ]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def remove(self, run_id: str) -> None:
        """A run's process has ended; what it left behind in its session is killed when it does not end by itself."""
        going = self.runs.pop(run_id, None)
        if going is not None and (left := session_members(going.process.pid)):
            self._leftovers[going.process.pid] = (time.monotonic() + LEFTOVER_SECONDS, left)
