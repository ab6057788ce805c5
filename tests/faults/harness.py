"""Processes that get killed, and what they were doing when it happened.

The harness process imports everything once, opens nothing and starts no thread, and forks a child per attempt. A child
writes what it is doing into memory it shares with the harness, so that the phase at the moment of a kill is a fact read
after its death, not a guess.
"""

from __future__ import annotations

import mmap
import os
import signal
import struct
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

_CELL = struct.Struct("<I32s")


class PhaseCell:
    """A phase name and a count of writes begun, in memory shared over fork."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _CELL.size)
        self.reset()

    def reset(self) -> None:
        _CELL.pack_into(self._memory, 0, 0, b"start")

    def enter(self, phase: str, writes: bool = False) -> None:
        count, _ = _CELL.unpack_from(self._memory)
        _CELL.pack_into(self._memory, 0, count + writes, phase.encode())

    def read(self) -> tuple[int, str]:
        """Number of writes begun so far, and the phase."""
        count, phase = _CELL.unpack_from(self._memory)
        return count, phase.rstrip(b"\0").decode()


@dataclass(frozen=True)
class Death:
    """How a child ended: its phase, whether it was killed, and otherwise its exit code."""

    phase: str
    killed: bool
    exit_code: int


def fork(work: Callable[[], None]) -> int:
    """Run `work` in a child in a session of its own; its process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        work()
        code = 0
    except BaseException:  # noqa: BLE001 - whatever it is, this process must not go on as a copy of the harness
        traceback.print_exc()
    finally:
        os._exit(code)


def wait(pid: int) -> int:
    """Exit code of a child, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_when(pid: int, cell: PhaseCell, due: Callable[[], bool], limit_seconds: float = 600) -> Death:
    """SIGKILL the child as soon as `due()`; a child that ends before that simply ended."""
    stop = time.monotonic() + limit_seconds
    while not due():
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return Death(cell.read()[1], False, os.waitstatus_to_exitcode(status))
        if time.monotonic() > stop:
            raise TimeoutError(f"the child was still in phase {cell.read()[1]!r} after {limit_seconds} s")
        time.sleep(0.0005)
    os.kill(pid, signal.SIGKILL)
    code = wait(pid)
    return Death(cell.read()[1], code == -signal.SIGKILL, code)
