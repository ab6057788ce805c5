"""Stopping a load and saying how far it is, from a thread beside the one that loads.

DuckDB runs a statement for as long as it takes; the thread interrupts it. It never does so during a commit: `hold` ends
its right to interrupt before the destination's commit begins. What waits inside a driver for a source that does not answer
cannot be interrupted: the source's time-outs end it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Self

from quayside.dataloader.errors import CancelledError

if TYPE_CHECKING:
    import duckdb

    from quayside.dataloader.destinations.destination import Fence

_LOOK_EVERY_SECONDS: Final = 0.2
_PROGRESS_EVERY_LOOKS: Final = 5
#: Between two interrupts: the first may have met no statement, the second must not meet the ROLLBACK.
_AFTER_INTERRUPT_SECONDS: Final = 2.0


class Cancelling:
    """A fence that can also be told to stop. It is the fence a load hands on."""

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        fence: Fence,
        cancelled: Callable[[], bool] | None,
        on_progress: Callable[[int, int | None], None] | None,
    ) -> None:
        self._con = con
        self._fence = fence
        self._cancelled = cancelled
        self._on_progress = on_progress
        self._committing = threading.Lock()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._done, self._total = 0, None

    def __enter__(self) -> Self:
        if self._cancelled is not None or self._on_progress is not None:
            self._thread = threading.Thread(target=self._watch, name="cancelling", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def know(self, done: int, total: int | None) -> None:
        """Rows of this load that are done, and how many there are to be."""
        self._done, self._total = done, total

    def check(self) -> None:
        """Raise FencedError or CancelledError."""
        if self._cancelled is not None and self._cancelled():
            raise CancelledError("The load was told to stop.")
        self._fence.check()

    @contextmanager
    def hold(self) -> Iterator[None]:
        with self._committing:
            if self._cancelled is not None and self._cancelled():
                raise CancelledError("The load was told to stop.")
            with self._fence.hold():
                yield

    def _watch(self) -> None:
        looks, pause = 0, _LOOK_EVERY_SECONDS
        while not self._over.wait(pause):
            looks += 1
            if self._cancelled is not None and self._cancelled():
                with self._committing:
                    if not self._over.is_set():
                        self._con.interrupt()
                pause = _AFTER_INTERRUPT_SECONDS
            if self._on_progress is not None and looks % _PROGRESS_EVERY_LOOKS == 0:
                self._tell(self._on_progress)

    def _tell(self, on_progress: Callable[[int, int | None], None]) -> None:
        on_progress(self._done, self._total)
