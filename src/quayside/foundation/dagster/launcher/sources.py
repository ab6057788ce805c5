"""Which files a code location was loaded from, and whether they have changed since. Standard library only.

A run started by Dagster's default launcher imports the code as it is on disk at that moment. A warm server must not run
anything older, so it remembers every file read while the definitions were loaded: modules, and data files such as a dbt
manifest or a YAML configuration.
"""

from __future__ import annotations

import builtins
import io
import os
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

Stamp = tuple[int, int, int]

#: Libraries change when they are installed, not while somebody works: looked at this often, in seconds.
LIBRARY_SECONDS = 10.0
#: A file's time is that of the kernel's last tick, which may lie so far behind the clock.
COARSE_NANOSECONDS = 10_000_000


class Sources:
    """The files a load has read."""

    def __init__(self) -> None:
        self._stamps: dict[str, Stamp | None] = {}
        self._user: list[str] = []
        self._libraries: list[str] = []
        self._libraries_seen = 0.0

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Remember what is opened for reading by Python code, and every module imported, until the block ends."""
        original = builtins.open
        begun = time.time_ns() - COARSE_NANOSECONDS

        def recording_open(file: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
            if isinstance(file, str | os.PathLike) and not set(mode) & set("wax+"):
                self._note(os.fspath(file))
            return original(file, mode, *rest, **named)

        builtins.open = io.open = recording_open
        try:
            yield
        finally:
            builtins.open = io.open = original
            for module in list(sys.modules.values()):
                source = getattr(module, "__file__", None)
                if isinstance(source, str):
                    # Saved while we were loading: whether before or after it was imported is not known.
                    self._note(source, unless_newer_than=begun)
            libraries = tuple({os.path.realpath(p) + os.sep for p in (sys.prefix, sys.base_prefix)})
            for path in self._stamps:
                inside = os.path.realpath(path).startswith(libraries)
                (self._libraries if inside else self._user).append(path)

    def changed(self) -> str | None:
        """A file that is not what it was when it was read; None when all are."""
        now = time.monotonic()
        paths = self._user
        if now - self._libraries_seen > LIBRARY_SECONDS:
            self._libraries_seen = now
            paths = [*self._user, *self._libraries]
        return next((path for path in paths if _stamp(path) != self._stamps[path]), None)

    def _note(self, path: str | bytes, unless_newer_than: int | None = None) -> None:
        if isinstance(path, str) and not path.startswith(("/proc/", "/sys/", "/dev/")):
            path = os.path.abspath(path)  # noqa: PTH100 - once per imported module; Path.absolute keeps `..`, Path.resolve follows links
            if path not in self._stamps and (stamp := _stamp(path)) is not None:
                # A time in the future says nothing: copied from a machine whose clock is ahead.
                doubtful = unless_newer_than is not None and unless_newer_than <= stamp[0] <= time.time_ns()
                self._stamps[path] = None if doubtful else stamp


def _stamp(path: str) -> Stamp | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - each file of the location before every fork; a Path object costs more than the call
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
