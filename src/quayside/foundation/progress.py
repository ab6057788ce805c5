"""Progress: bars in a terminal, lines in a log, by the same two verbs.

    with progress("Ingest", total=1_000_000, unit="rows") as bar:
        bar.advance(50_000)
    with step("Score the batch") as timed:
        ...
    timed.seconds

In a terminal both draw on standard error and leave one line behind. Elsewhere (a pipe, a Dagster run, CI) they write
to the logger ``quayside.progress``, a bar at most every `LOG_EVERY_SECONDS`. Not safe to share one bar between threads.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LOG_EVERY_SECONDS: Final = 5.0

_log = logging.getLogger(__name__)


@dataclass
class Timed:
    """A piece of work being timed. ``note`` is added to the line it leaves behind."""

    label: str
    note: str = ""
    started: float = field(default_factory=time.perf_counter)
    _ended: float | None = None

    @property
    def seconds(self) -> float:
        """Wall seconds so far, or in total once the work is over."""
        return (self._ended or time.perf_counter()) - self.started

    def end(self) -> None:
        self._ended = time.perf_counter()

    def summary(self) -> str:
        """``label: note, 1.2 s``"""
        return f"{self.label}: {self.note + ', ' if self.note else ''}{_duration(self.seconds)}"


@dataclass
class Bar(Timed):
    """Work that is counted: ``done`` of ``total`` units (total None = not known)."""

    total: float | None = None
    unit: str = "rows"
    done: float = 0
    _live: _Live | None = None
    _task: TaskID | None = None
    _logged: float = field(default_factory=time.perf_counter)

    def advance(self, n: float = 1) -> None:
        """Count ``n`` more units."""
        self.done += n
        if self._live is not None and self._task is not None:
            self._live.display.update(self._task, completed=self.done, total=self.total)
        elif time.perf_counter() - self._logged >= LOG_EVERY_SECONDS:
            self._logged = time.perf_counter()
            share = f" ({self.done / self.total:.0%})" if self.total else ""
            _log.info("%s: %s%s", self.label, self._count(), share)

    def _count(self) -> str:
        of = f" of {self.total:,.0f}" if self.total is not None and self.total != self.done else ""
        return f"{self.done:,.0f}{of} {self.unit}"

    def summary(self) -> str:
        rate = self.done / self.seconds if self.seconds > 0 else 0
        self.note = f"{self._count()}{', ' + self.note if self.note else ''}"
        return f"{super().summary()} ({rate:,.0f} {self.unit}/s)"


@contextmanager
def progress(label: str, total: float | None = None, unit: str = "rows") -> Iterator[Bar]:
    """Show work that is counted; see the module's example."""
    bar = Bar(label, total=total, unit=unit)
    with _shown(bar, total):
        yield bar


@contextmanager
def step(label: str) -> Iterator[Timed]:
    """Show and time one step; nothing is counted."""
    timed = Timed(label)
    with _shown(timed, None):
        yield timed


@contextmanager
def _shown(work: Timed, total: float | None) -> Iterator[None]:
    if not sys.stderr.isatty():
        if not isinstance(work, Bar):
            _log.info("%s …", work.label)
        try:
            yield
        except BaseException:
            work.end()
            _log.info("%s: stopped after %s", work.label, _duration(work.seconds))
            raise
        work.end()
        _log.info("%s", work.summary())
        return
    live = _Live.enter()
    task = live.display.add_task(work.label, total=total)
    if isinstance(work, Bar):
        work._live, work._task = live, task
    try:
        yield
    except BaseException:
        work.end()
        live.leave(task, "✗", "red", f"{work.label}: stopped after {_duration(work.seconds)}")
        raise
    work.end()
    live.leave(task, "✓", "green", work.summary())


class _Live:
    """The one live display of this process. Nested bars join it, since a terminal can hold only one."""

    _current: _Live | None = None

    def __init__(self, display: Progress) -> None:
        self.display = display
        self.users = 0

    @classmethod
    def enter(cls) -> _Live:
        live = cls._current
        if live is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

            live = cls._current = cls(
                Progress(
                    SpinnerColumn(),
                    TextColumn("{task.description}", markup=False),
                    BarColumn(),
                    TextColumn("{task.percentage:>3.0f} %"),
                    TimeElapsedColumn(),
                    console=Console(stderr=True, highlight=False),
                    transient=True,
                )
            )
            live.display.start()
        live.users += 1
        return live

    def leave(self, task: TaskID, mark: str, style: str, line: str) -> None:
        from rich.text import Text

        self.display.remove_task(task)
        self.display.console.print(Text.assemble((mark, style), " ", line))
        self.users -= 1
        if self.users == 0:
            self.display.stop()
            _Live._current = None


def _duration(seconds: float) -> str:
    """``0.42 s``, ``12.3 s``, ``3 min 05 s``"""
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"
