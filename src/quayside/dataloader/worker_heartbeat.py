"""The heartbeat of the tables a process is loading: it extends their leases, passes on progress, and brings back "stop".

One thread for all tables. A table whose row has moved on, or whose source was paused, is told to stop; the others go on.
The thread beats also while a load hangs somewhere in C, so `Heartbeat.stalled` says which loads show no sign of life.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, Self

from quayside.dataloader.errors import CancelledError, FencedError
from quayside.foundation.errors import QuaysideError

if TYPE_CHECKING:
    from types import TracebackType

    from quayside.dataloader.control.client import LakebaseClient

#: Several, so that a control database may be gone for a while.
BEATS_IN_A_LEASE: Final = 6
#: What a process that only waits takes of one CPU, at most; it is nearer to a thousandth.
_IDLE_SHARE: Final = 0.02
#: A load that takes longer says how far it is, this often.
SAY_EVERY_SECONDS: Final = 10.0


class Progress:
    """How far one table is, and whether it is to stop."""

    def __init__(self, name: str, stop: threading.Event, say: Callable[[str], None]) -> None:
        self.rows: int | None = None
        self.total: int | None = None
        self.stopped_because = ""
        self._name = name
        self._stop = stop
        self._say = say
        self._told: float | None = None
        self._started = self._said = time.monotonic()
        self._life: tuple[int | None, float, float] | None = None

    def begin(self) -> None:
        """Its turn has come: from now on it is to move."""
        self._started = self._said = time.monotonic()
        self._life = (None, self._started, time.process_time())

    def rest(self) -> None:
        """It waits for others, and is not to move until it begins again."""
        self._life = None

    @property
    def began(self) -> bool:
        """Whether its turn has come."""
        return self._life is not None

    def stalled(self, seconds: float) -> bool:
        """Whether for so long no row has come and the process did nothing but wait; asked now and then, by one thread.

        In a batch another table's work hides that this one hangs, until that one has ended.
        """
        if self._life is None:
            return False
        rows, moved, cpu = self._life
        now, spent = time.monotonic(), time.process_time()
        if self.rows != rows or spent - cpu > 1 + (now - moved) * _IDLE_SHARE:
            self._life = (self.rows, now, spent)
            return False
        return now - moved > seconds

    def advance(self, rows: int, total: int | None) -> None:
        """`rows` of `total` (None: not known) are done."""
        self.rows, self.total = rows, total
        now = time.monotonic()
        if now - self._said >= SAY_EVERY_SECONDS:
            self._said = now
            self._say(self.line(rows, total, now - self._started))

    def line(self, rows: int, total: int | None, seconds: float) -> str:
        """``trade.parties: 1,200,000 of 6,000,000 rows (20 %), 400,000 rows/s, 12 s left``"""
        rate = rows / seconds if seconds > 0 else 0.0
        text = f"{self._name}: {rows:,}"
        if total:
            text += f" of {total:,} rows ({rows / total:.0%})"
        else:
            text += " rows"
        text += f", {rate:,.0f} rows/s"
        if total and rate > 0 and rows <= total:
            text += f", {(total - rows) / rate:,.0f} s left"
        return text

    def stop(self, reason: str) -> None:
        """Tell this table alone to stop."""
        self.stopped_because = reason

    def cancelled(self) -> bool:
        """Whether it is to stop: by itself, or because all are."""
        told = bool(self.stopped_because) or self._stop.is_set()
        if told and self._told is None:
            self._told = time.monotonic()
        return told

    def stuck(self, seconds: float) -> bool:
        """Whether it was told to stop so long ago."""
        return self.cancelled() and self._told is not None and time.monotonic() - self._told > seconds


class Heartbeat:
    """A thread that beats for every table that has not ended yet. Used as a context manager."""

    def __init__(
        self,
        clients: Mapping[int, LakebaseClient],
        names: Mapping[int, str],
        stop: threading.Event,
        say: Callable[[str], None],
        beat_seconds: float,
    ) -> None:
        self._say = say
        self._beat_seconds = beat_seconds
        self._clients = dict(clients)
        self._progress = {config_id: Progress(name, stop, say) for config_id, name in names.items()}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def of(self, config_id: int) -> Progress:
        """The progress of one table."""
        return self._progress[config_id]

    def done(self, config_id: int) -> None:
        """A table has ended; no beat for it any more."""
        self._clients.pop(config_id, None)

    def stuck(self, seconds: float) -> list[int]:
        """Tables that were told to stop so long ago and have not ended."""
        return [config_id for config_id in list(self._clients) if self._progress[config_id].stuck(seconds)]

    def stalled(self, seconds: float) -> list[int]:
        """Tables whose load has shown no sign of life for so long, and was not told to stop yet."""
        return [
            config_id
            for config_id in list(self._clients)
            if not (progress := self._progress[config_id]).cancelled() and progress.stalled(seconds)
        ]

    def _run(self) -> None:
        while not self._over.wait(self._beat_seconds):
            for config_id, client in list(self._clients.items()):
                self._beat(config_id, client)

    def _beat(self, config_id: int, client: LakebaseClient) -> None:
        progress = self._progress[config_id]
        try:
            if client.heartbeat(progress.rows, progress.total, "loading") == "stop":
                client.check()  # raises with the reason
        except (CancelledError, FencedError) as error:
            if config_id in self._clients:  # else it has ended by itself between the look and the beat
                progress.stop(str(error))
        except QuaysideError as error:
            # The control database is gone for now. The lease has time for several beats; the commit asks for the row anyway.
            self._say(f"No heartbeat: {error}")
