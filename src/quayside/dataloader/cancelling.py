"""Stopping a load and saying how far it is, from a thread beside the one that loads.

DuckDB runs a statement for as long as it takes; the thread interrupts it, and has the source end what it runs for the load,
since DuckDB reads a source's answer to its end even then. It never does so during a commit: `hold` ends its right to
interrupt before the destination's commit begins. What waits inside a driver that cannot be told is left to whoever
runs the load.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Self

from quayside.dataloader.errors import CancelledError
from quayside.foundation.errors import sentence
from quayside.foundation.secrets import redact

if TYPE_CHECKING:
    import duckdb

    from quayside.dataloader.destinations.destination import Fence
    from quayside.dataloader.sources.source import SourceTable

_LOOK_EVERY_SECONDS: Final = 0.2
_PROGRESS_EVERY_LOOKS: Final = 5
#: Between two interrupts: the first may have met no statement, the second must not meet the ROLLBACK.
_AFTER_INTERRUPT_SECONDS: Final = 2.0

_log = logging.getLogger(__name__)


class Cancelling:
    """A fence that can also be told to stop. It is the fence a load hands on."""

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        fence: Fence,
        cancelled: Callable[[], bool] | None,
        on_progress: Callable[[int, int | None], None] | None,
        cancel_source: Callable[[], None] | None = None,
    ) -> None:
        """`cancel_source`: has the source end what it runs for this load."""
        self._con = con
        self._fence = fence
        self._cancelled = cancelled
        self._on_progress = on_progress
        self._cancel_source = cancel_source or (lambda: None)
        self._committing = threading.Lock()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._done, self._total, self._told = 0, None, 0
        self._passed: Callable[[], int | None] = lambda: None
        self._settle: Callable[[], None] = lambda: None
        self._interrupt_source: Callable[[], None] = lambda: None

    def __enter__(self) -> Self:
        if self._cancelled is not None or self._on_progress is not None:
            self._thread = threading.Thread(target=self._watch, name="cancelling", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def finish(self) -> None:
        """What comes after this is neither interrupted nor told."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def reads(self, source: SourceTable) -> None:
        """The source that the load reads: one that counts is asked how far it is."""
        from quayside.dataloader.sources.source import Counting, Interruptible

        if isinstance(source, Counting):
            self._passed, self._settle = source.passed, source.settle
        if isinstance(source, Interruptible):
            self._interrupt_source = source.interrupt

    def know(self, done: int, total: int | None) -> None:
        """Rows of this load that are done, and how many there are to be."""
        self._settle()
        self._done, self._total = done, total

    @property
    def is_told(self) -> bool:
        """Whether the load was told to stop."""
        return self._cancelled is not None and self._cancelled()

    def check(self) -> None:
        """Raise FencedError or CancelledError."""
        if self.is_told:
            raise CancelledError("The load was told to stop.")
        self._fence.check()

    @contextmanager
    def hold(self) -> Iterator[None]:
        with self._committing:
            if self.is_told:
                raise CancelledError("The load was told to stop.")
            with self._fence.hold():
                yield

    def _watch(self) -> None:
        looks, pause = 0, _LOOK_EVERY_SECONDS
        while not self._over.wait(pause):
            looks += 1
            if self.is_told:
                self._interrupt()
                pause = _AFTER_INTERRUPT_SECONDS
            elif self._on_progress is not None and looks % _PROGRESS_EVERY_LOOKS == 0:
                self._tell(self._on_progress)

    def _interrupt(self) -> None:
        with self._committing:
            if self._over.is_set():
                return
            # First DuckDB: what the source says of being cancelled is then what it waits for, and no error of its own.
            self._con.interrupt()
            for tell in (self._interrupt_source, self._cancel_source):
                try:
                    tell()
                except Exception as error:  # noqa: BLE001 - a driver's surprise must not end the only one who can stop
                    _log.warning("The source could not be told to stop: %s", redact(sentence(error)))

    def _tell(self, on_progress: Callable[[int, int | None], None]) -> None:
        """Never fewer rows than before: readers that have ended are not counted until their portion is."""
        self._told = max(self._told, self._done + (self._passed() or 0))
        on_progress(self._told, self._total)
