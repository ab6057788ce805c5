"""Processes as the launcher sees them: who one is, whether it lives, and the end of everything in its session.

A process id alone says little: the kernel gives it to another process later. Here a process is its id and the moment it
started, both from ``/proc`` (proc(5)), so a stale record never names a stranger. Standard library only.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import sys
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Fields of /proc/PID/stat after the command's closing bracket, counted from 0 (proc(5) numbers them from 3).
_STATE, _START = 0, 19


@dataclass(frozen=True)
class Process:
    """One process of this host: its id and its start, in clock ticks since boot."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Process:
        """A process that is there: this one, or a child not reaped yet."""
        fields = _stat(pid)
        assert fields is not None
        return cls(pid, int(fields[_START]))

    def alive(self) -> bool:
        """Whether it runs. One that has ended and only waits to be reaped does not."""
        fields = _stat(self.pid)
        return fields is not None and int(fields[_START]) == self.started and fields[_STATE] not in "ZX"

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal to this process and no other; False when it is gone."""
        try:
            handle = os.pidfd_open(self.pid)
        except OSError:
            return False
        try:
            # The handle keeps the id from being given away, so what `alive` says holds until the signal is sent.
            if not self.alive():
                return False
            signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)
        return True


def session_members(leader: int) -> list[Process]:
    """Every process of the session that ``leader`` opened, whether or not the leader still lives."""
    found = []
    for pid in _pids():
        with suppress(ProcessLookupError):  # it ended meanwhile
            if os.getsid(pid) == leader and (fields := _stat(pid)) is not None:
                found.append(Process(pid, int(fields[_START])))
    return found


def end_session(leader: int, number: signal.Signals) -> None:
    """Signal every process of the session that ``leader`` opened."""
    for process in session_members(leader):
        with suppress(PermissionError):  # it has changed its user
            process.signal(number)


def this_host() -> str:
    """Names the place whose process ids we can see: host, boot and process namespace. A restarted container differs."""
    if sys.platform != "linux":
        return socket.gethostname()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    namespace = Path("/proc/self/ns/pid").readlink()
    return f"{socket.gethostname()}/{boot[:8]}/{str(namespace).strip('pid:[]')}"


def memory_mb(pid: int | str = "self") -> dict[str, float]:
    """Memory of a process in MB: ``proportional`` (shared pages divided among their users) and ``private``; zeros once
    it has ended."""
    sizes = {"Pss": 0, "Private_Clean": 0, "Private_Dirty": 0}
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines():
            name, _, rest = line.partition(":")
            if name in sizes:
                sizes[name] = int(rest.split()[0])
    private = sizes["Private_Clean"] + sizes["Private_Dirty"]
    return {"proportional": round(sizes["Pss"] / 1024, 1), "private": round(private / 1024, 1)}


def oom_kills() -> int | None:
    """How many processes of this process's memory cgroup the kernel has killed for lack of memory; None where the
    cgroup cannot be read."""
    try:
        lines = Path("/proc/self/cgroup").read_text("ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            roots, name = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"), "memory.events"
        elif "memory" in controllers.split(","):
            roots, name = ("/sys/fs/cgroup/memory",), "memory.oom_control"
        else:
            continue
        for root in roots:
            with suppress(OSError):
                for entry in Path(f"{root}{path}/{name}").read_text("ascii").splitlines():
                    if entry.startswith("oom_kill "):
                        return int(entry.split()[1])
    return None


@dataclass(frozen=True)
class Record:
    """The process that works on a run, and the socket of the fork server it came from."""

    process: Process
    server: str


class Records:
    """Which process works on which run: a small file per run, kept while the process lives.

    It outlives the fork server, so that a run is found and judged rightly after the server was killed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def claim(self, run_id: str, server: str) -> bool:
        """Note that this process works on the run; False when another living process already does."""
        text = json.dumps({**asdict(Process.of(os.getpid())), "server": server})
        with self._locked():
            if (other := self.find(run_id)) is not None and other.process.alive():
                return False
            new = self.folder / f".{run_id}.{os.getpid()}"
            new.write_text(text, "utf-8")
            new.replace(self.folder / run_id)  # readers, who take no lock, never see half a file
        return True

    def find(self, run_id: str) -> Record | None:
        """What is noted for the run, whether its process lives or not."""
        try:
            noted = json.loads((self.folder / run_id).read_text("utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Record(Process(noted["pid"], noted["started"]), noted["server"])

    def remove(self, run_id: str, process: Process) -> bool:
        """Forget that this process worked on the run; False when it is another's."""
        with self._locked():
            if (noted := self.find(run_id)) is not None and noted.process != process:
                return False
            (self.folder / run_id).unlink(missing_ok=True)
        return True

    def sweep(self) -> None:
        """Remove records of processes that are gone: what is left when a server and its warden were both killed."""
        for path in self.folder.iterdir():
            noted = None if path.name.startswith(".") else self.find(path.name)
            if noted is not None and not noted.process.alive():
                self.remove(path.name, noted.process)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One at a time looks and then writes; the kernel lets go of the lock of a process that was killed."""
        handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text[text.rindex(")") + 2 :].split()


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - all processes at the end of every run, and only their names are wanted
