"""What runs in the process of a load: several tables on one DuckDB, each with its fence, heartbeat and outcome.

The tables come In Progress. Each is loaded on a thread of its own, its outcome is written to the control row as it ends,
and only then told to whoever waits. Belongs here: threads, stopping, and which error is whose. Does not belong here:
how a table is loaded (`load`), how its row is written (`control`), and how one talks to Dagster (`dataloader_pipe`).
"""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from quayside.dataloader.errors import (
    CancelledError,
    DriverMissingError,
    FencedError,
    SourceUnavailableError,
)
from quayside.dataloader.worker_heartbeat import BEATS_IN_A_LEASE, Heartbeat, Progress
from quayside.foundation.errors import QuaysideError, SettingsError, sentence
from quayside.foundation.secrets import redact

if TYPE_CHECKING:
    import duckdb

    from quayside.dataloader.control.client import LakebaseClient
    from quayside.dataloader.request import LoadRequest
    from quayside.dataloader.result import LoadResult
    from quayside.foundation.settings import Settings

#: How a table ended. ``Fenced``: its row had moved on, so nothing was written, neither here nor there.
Ending = Literal["Succeeded", "Failed", "Cancelled", "Fenced"]

#: What is wrong with the database and not with one of its tables: the others of a batch are not even tried.
OF_THE_SOURCE: Final = (SettingsError, SourceUnavailableError, DriverMissingError)


@dataclass(frozen=True)
class Outcome:
    """How one attempt at one table ended. `result` is there when it succeeded."""

    config_id: int
    attempt: int
    ending: Ending
    message: str
    result: LoadResult | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `of_json` reads them back."""
        return {
            "config_id": self.config_id,
            "attempt": self.attempt,
            "ending": self.ending,
            "message": self.message,
            "result": self.result.to_json() if self.result else None,
        }

    @classmethod
    def of_json(cls, values: dict[str, Any]) -> Outcome:
        from quayside.dataloader.result import LoadResult

        result = values["result"]
        return cls(**{**values, "result": LoadResult.of_json(result) if result else None})


class Listener(Protocol):
    """Whoever waits for the tables. Called from several threads."""

    def say(self, text: str) -> None:
        """A line for the people who look at the run."""
        ...

    def ended(self, outcome: Outcome) -> None:
        """A table has ended, and its row says so already."""
        ...


@dataclass
class Stop:
    """Told once, by a signal, that everything is to end."""

    event: threading.Event = field(default_factory=threading.Event)
    reason: str = ""

    def request(self, reason: str) -> None:
        if not self.event.is_set():
            self.reason = reason
            self.event.set()


class Worker:
    """Loads the tables of one run. All are of one database and one process's lifetime."""

    def __init__(
        self,
        settings: Settings,
        requests: Sequence[LoadRequest],
        listener: Listener,
        *,
        stop: Stop | None = None,
        threads: int | None = None,
    ) -> None:
        self._settings = settings
        self._requests = requests
        self._listener = listener
        self._stop = stop or Stop()
        self._threads = min(len(requests), threads or settings.threads or os.cpu_count() or 1)
        self._hopeless: str | None = None
        self._local = threading.local()

    def run(self) -> list[Outcome]:
        """Load every table; one outcome for each, in the order in which they were asked for.

        Nothing that happens to one table ends the others, unless it is of their common source.
        """
        from quayside.dataloader.control.client import LakebaseClient

        client = LakebaseClient(self._settings)
        tables = {
            r.config_id: (".".join(r.destination), client.for_attempt(r.config_id, r.attempt))
            for r in self._requests
        }
        beat_seconds = self._settings.dataloader_lease_seconds / BEATS_IN_A_LEASE
        with (
            Heartbeat(tables, self._stop.event, self._listener.say, beat_seconds) as heartbeat,
            self._database() as database,
            ThreadPoolExecutor(self._threads, "load") as pool,
        ):

            def load(request: LoadRequest) -> Outcome:
                _, attempt = tables[request.config_id]
                progress = heartbeat.of(request.config_id)
                try:
                    outcome = self._load(request, attempt, progress, database)
                finally:
                    heartbeat.done(request.config_id)
                self._listener.ended(outcome)
                return outcome

            return list(pool.map(load, self._requests))

    def _load(
        self,
        request: LoadRequest,
        client: LakebaseClient,
        progress: Progress,
        database: duckdb.DuckDBPyConnection | None,
    ) -> Outcome:
        """Load a table and write the outcome to its row."""
        from quayside.dataloader.load import load_table

        def ended(ending: Ending, message: str, result: LoadResult | None = None) -> Outcome:
            return Outcome(request.config_id, request.attempt, ending, message, result)

        def failed(message: str, ending: Literal["Failed", "Cancelled"] = "Failed") -> Outcome:
            try:
                client.fail(message, outcome=ending)
            except FencedError as error:
                return ended("Fenced", f"{error} (It had ended with: {message})")
            except QuaysideError as error:
                # The row's lease runs out and reconcile_monitor closes it; the run says what happened meanwhile.
                return ended(ending, f"{message} (The control row could not be told: {error})")
            return ended(ending, message)

        try:
            if self._stop.event.is_set():
                raise CancelledError(self._stop.reason)
            if self._hopeless is not None or database is None:
                return failed(self._hopeless or "The lake could not be opened.")
            result = load_table(
                self._settings,
                request,
                con=self._connection(database),
                fence=client,
                on_progress=progress.advance,
                cancelled=progress.cancelled,
            )
            client.succeed(result)
        except FencedError as error:
            return ended("Fenced", str(error))
        except CancelledError as error:
            return failed(
                f"Cancelled - {self._stop.reason or progress.stopped_because or error}", "Cancelled"
            )
        except QuaysideError as error:
            message = redact(str(error))
            if isinstance(error, OF_THE_SOURCE):
                self._hopeless = self._hopeless or message
            return failed(message)
        except Exception as error:  # noqa: BLE001 - one table's surprise must not end its siblings; it is written down
            self._listener.say("".join(traceback.format_exception(error)))
            return failed(redact(f"{type(error).__name__}: {sentence(error)}"))
        return ended("Succeeded", summary(result), result)

    @contextmanager
    def _database(self) -> Iterator[duckdb.DuckDBPyConnection | None]:
        """The one DuckDB of this process, with the lake attached; None, and every table fails, when that cannot be."""
        from quayside.foundation.lake import Lake

        try:
            database = Lake(self._settings).connect()
        except QuaysideError as error:
            self._hopeless = redact(str(error))
            yield None
            return
        with closing(database):
            yield database

    def _connection(self, database: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
        """This thread's own connection to it."""
        con: duckdb.DuckDBPyConnection | None = getattr(self._local, "con", None)
        if con is None:
            con = self._local.con = database.cursor()
            con.execute("USE lake")
            con.execute("SET TimeZone = 'UTC'")
        return con


def summary(result: LoadResult) -> str:
    """``Loaded 1,200 of 1,200 rows read in 0.4 s (incremental)``"""
    if result.outcome == "unchanged":
        return (
            f"Nothing to load, {result.rows_total:,} rows there ({result.strategy}, {result.seconds:.1f} s)."
        )
    removed = f", {result.rows_deleted:,} deleted" if result.rows_deleted else ""
    cut = ", cut by the row cap" if result.capped else ""
    return (
        f"{result.rows_read:,} rows read, {result.rows_inserted:,} inserted, {result.rows_updated:,} updated{removed} "
        f"({result.strategy}{cut}, {result.seconds:.1f} s)."
    )
