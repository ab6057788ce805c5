"""What runs in the process of a load: several tables on one DuckDB, each with its fence, heartbeat and outcome.

The tables come In Progress. A few threads load them, each table's outcome is written to its control row as it ends, and
only then told to whoever waits. Belongs here: threads, stopping, and which error is whose. Does not belong here:
how a table is loaded (`load`), how its row is written (`control`), and how one talks to Dagster (`dataloader_pipe`).
"""

from __future__ import annotations

import os
import threading
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from quayside.dataloader.errors import (
    CancelledError,
    DriverMissingError,
    FencedError,
)
from quayside.dataloader.worker_heartbeat import BEATS_IN_A_LEASE, Heartbeat, Progress
from quayside.foundation.errors import QuaysideError, ServiceUnavailableError, SettingsError, sentence
from quayside.foundation.secrets import redact

if TYPE_CHECKING:
    import duckdb

    from quayside.dataloader.control.client import LakebaseClient
    from quayside.dataloader.request import LoadRequest
    from quayside.dataloader.result import LoadResult
    from quayside.foundation.settings import Settings

#: How a table ended. ``Fenced``: its row had moved on, so nothing was written, neither here nor there.
Ending = Literal["Succeeded", "Failed", "Cancelled", "Fenced"]

#: What is wrong for every table of a batch at once: the others are not even tried.
_FOR_ALL: Final = (SettingsError, DriverMissingError)
#: So many tables that failed with the same sentence, and none that was loaded, mean the same: the database does not answer, or
#: refuses the password, and would lock the account if asked fifty times.
_STRIKES: Final = 3
#: From being told to stop until a table is left behind, whatever its thread is in.
GRACE_SECONDS: Final = 8.0
#: How long the row of such a table is tried to be closed.
_PATIENCE_SECONDS: Final = 2.0
_LOOK_EVERY_SECONDS: Final = 0.5


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
    """Loads the tables of one run. All are of one source database."""

    def __init__(
        self,
        settings: Settings,
        requests: Sequence[LoadRequest],
        listener: Listener,
        *,
        stop: Stop | None = None,
        grace_seconds: float = GRACE_SECONDS,
        threads: int | None = None,
    ) -> None:
        self._settings = settings
        self._requests = requests
        self._listener = listener
        self._stop = stop or Stop()
        self._grace_seconds = grace_seconds
        self._threads = min(len(requests), threads or settings.threads or os.cpu_count() or 1)
        self._waiting: SimpleQueue[LoadRequest] = SimpleQueue()
        #: What each thread has taken and not ended yet.
        self._taken: list[list[LoadRequest]] = []
        self._outcomes: dict[int, Outcome] = {}
        self._changed = threading.Condition()
        #: What keeps every table from loading, once it is known.
        self._hopeless: str | None = None
        self._strikes: Counter[str] = Counter()
        self._loaded = False

    def run(self) -> list[Outcome]:
        """Load every table; one outcome for each, in the order in which they were asked for.

        Nothing that happens to one table ends the others, unless it is of their common source. A table that was told to
        stop and does not (a socket that hangs cannot be interrupted) gets its outcome all the same and its thread is left
        behind: whoever calls this ends the process afterwards.
        """
        from quayside.dataloader.control.client import LakebaseClient

        client = LakebaseClient(self._settings)
        heartbeat = Heartbeat(
            {r.config_id: client.for_attempt(r.config_id, r.attempt) for r in self._requests},
            {r.config_id: ".".join(r.destination) for r in self._requests},
            self._stop.event,
            self._listener.say,
            self._settings.dataloader_lease_seconds / BEATS_IN_A_LEASE,
        )
        for request in self._requests:
            self._waiting.put(request)
        with client, heartbeat:
            threads = [self._thread(client, heartbeat) for _ in range(self._threads)]
            for thread in threads:
                thread.start()
            with self._changed:
                stall = self._settings.dataloader_stall_seconds
                while len(self._outcomes) < len(self._requests):
                    if not any(thread.is_alive() for thread in threads):
                        raise QuaysideError(
                            "The threads of the worker died; its standard error says of what."
                        )
                    self._changed.wait(_LOOK_EVERY_SECONDS)
                    for config_id in heartbeat.stalled(stall):
                        heartbeat.of(config_id).stop(
                            f"it hangs: no row came and nothing was done for {stall:,} s"
                        )
                    for config_id in heartbeat.stuck(self._grace_seconds):
                        self._leave_behind(config_id, heartbeat)
                        heartbeat.done(config_id)
                        # What waits is for another thread then; a table that waits itself keeps none.
                        if heartbeat.of(config_id).began and not self._waiting.empty():
                            threads.append(self._thread(client, heartbeat))
                            threads[-1].start()
            for thread in threads:
                thread.join(_LOOK_EVERY_SECONDS)
        return [self._outcomes[request.config_id] for request in self._requests]

    def _thread(self, client: LakebaseClient, heartbeat: Heartbeat) -> threading.Thread:
        return threading.Thread(target=self._work, args=(client, heartbeat), daemon=True)

    def _work(self, client: LakebaseClient, heartbeat: Heartbeat) -> None:
        """One thread: tables, until there are no more, on a DuckDB of its own.

        Cursors of one DuckDB would start faster. But DuckLake's catalog, shared by transactions on several threads, was
        seen to name schemas by ids that were addresses in memory, while tables were being made.
        """
        with self._database() as con:
            while requests := self._take():
                if len(requests) > 1 and con is not None and self._hopeless is None:
                    self._load_together(requests, client, heartbeat, con)
                while requests and requests in self._taken:
                    request = requests[0]
                    attempt = client.for_attempt(request.config_id, request.attempt)
                    heartbeat.of(request.config_id).begin()
                    outcome = self._load(request, attempt, heartbeat.of(request.config_id), con)
                    del requests[:1]
                    heartbeat.done(request.config_id)
                    self._ended(outcome)

    def _take(self) -> list[LoadRequest]:
        """What a thread does next: one table, or several that may go together; nothing when there are no more.

        The list is the thread's for as long as it is in `_taken`: it holds what the thread has not ended yet.
        """
        from quayside.dataloader.together import MOST, may_go_together

        share = min(MOST, -(-len(self._requests) // self._threads))
        requests: list[LoadRequest] = []
        with suppress(Empty):
            while len(requests) < share:
                requests.append(self._waiting.get_nowait())
                if not may_go_together(requests[-1]):
                    break
        self._taken.append(requests)
        return requests

    def _load_together(
        self,
        requests: list[LoadRequest],
        client: LakebaseClient,
        heartbeat: Heartbeat,
        con: duckdb.DuckDBPyConnection,
    ) -> None:
        """Load what may go together and take it out of `requests`; what is left in there is to go alone."""
        from quayside.dataloader.together import load_together, may_go_together

        group = [request for request in requests if may_go_together(request)]
        ended: list[Outcome] = []
        try:
            for request, result in load_together(self._settings, con, client, group, heartbeat.of):
                ended.append(_outcome(request, "Succeeded", summary(result), result))
        except ServiceUnavailableError as error:
            message = redact(str(error))
            ended = [
                self._failed(r, client.for_attempt(r.config_id, r.attempt), message, "Failed") for r in group
            ]
        else:
            self._loaded = self._loaded or bool(ended)
        for outcome in ended:
            requests[:] = [r for r in requests if r.config_id != outcome.config_id]
            heartbeat.done(outcome.config_id)
            self._ended(outcome)

    def _ended(self, outcome: Outcome) -> None:
        with self._changed:
            if outcome.config_id not in self._outcomes:  # else it was left behind, and its row is closed
                self._outcomes[outcome.config_id] = outcome
                self._listener.ended(outcome)
                self._changed.notify()

    def _free_others(self, request: LoadRequest) -> None:
        """What the thread of a table has beside it is for another one."""
        for requests in self._taken:
            if request in requests:
                self._taken.remove(requests)
                for other in requests:
                    if other is not request and other.config_id not in self._outcomes:
                        self._waiting.put(other)
                return

    def _leave_behind(self, config_id: int, heartbeat: Heartbeat) -> None:
        from quayside.dataloader.control.client import LakebaseClient

        [request] = [r for r in self._requests if r.config_id == config_id]
        self._free_others(request)
        because = self._stop.reason or heartbeat.of(config_id).stopped_because or "it was told to stop"
        hangs = "; its source did not let go" if heartbeat.of(config_id).began else ""
        message = f"Cancelled - {because}{hangs}"
        client = LakebaseClient(self._settings, patience_seconds=_PATIENCE_SECONDS)
        ending: Ending = "Cancelled"
        with (
            client,
            suppress(ServiceUnavailableError),
        ):  # then its lease runs out, and reconcile_monitor closes the row
            try:
                client.for_attempt(config_id, request.attempt).fail(message, outcome="Cancelled")
            except FencedError as error:
                if client.get_table_details(config_id)["last_status"] == "Succeeded":
                    return  # it was through after all, and says so in a moment
                ending, message = "Fenced", str(error)
        self._ended(Outcome(config_id, request.attempt, ending, message))

    def _load(
        self,
        request: LoadRequest,
        client: LakebaseClient,
        progress: Progress,
        con: duckdb.DuckDBPyConnection | None,
    ) -> Outcome:
        """Load a table and write the outcome to its row."""
        from quayside.dataloader.load import load_table

        def failed(message: str, ending: Literal["Failed", "Cancelled"] = "Failed") -> Outcome:
            return self._failed(request, client, message, ending)

        try:
            if progress.cancelled():
                raise CancelledError("it was told to stop")
            if self._hopeless is not None:
                return failed(self._hopeless)
            result = load_table(
                self._settings,
                request,
                con=con,
                fence=client,
                on_progress=progress.advance,
                cancelled=progress.cancelled,
            )
            client.succeed(result)
        except FencedError as error:
            return _outcome(request, "Fenced", str(error))
        except CancelledError as error:
            return failed(
                f"Cancelled - {self._stop.reason or progress.stopped_because or error}", "Cancelled"
            )
        except QuaysideError as error:
            message = redact(str(error))
            self._strikes[message] += 1
            if isinstance(error, _FOR_ALL) or (self._strikes[message] >= _STRIKES and not self._loaded):
                self._hopeless = self._hopeless or message
            return failed(message)
        except Exception as error:  # noqa: BLE001 - one table's surprise must not end its siblings; it is written down
            self._listener.say("".join(traceback.format_exception(error)))
            return failed(redact(f"{type(error).__name__}: {sentence(error)}"))
        self._loaded = True
        return _outcome(request, "Succeeded", summary(result), result)

    def _failed(
        self,
        request: LoadRequest,
        client: LakebaseClient,
        message: str,
        ending: Literal["Failed", "Cancelled"],
    ) -> Outcome:
        """Write a failure to its row."""
        try:
            client.fail(message, outcome=ending)
        except FencedError as error:
            return _outcome(request, "Fenced", f"{error} (It had ended with: {message})")
        except QuaysideError as error:
            # Its lease runs out and reconcile_monitor closes the row; the run says what happened meanwhile.
            return _outcome(request, ending, f"{message} (The control row could not be told: {error})")
        return _outcome(request, ending, message)

    @contextmanager
    def _database(self) -> Iterator[duckdb.DuckDBPyConnection | None]:
        """A DuckDB with the lake attached; None, and every table fails, when that cannot be."""
        from quayside.foundation.lake import Lake

        share = max(1, (self._settings.threads or os.cpu_count() or 1) // self._threads)
        try:
            database = Lake(self._settings).connect(threads=share, in_use=False)
        except Exception as error:  # noqa: BLE001 - whatever it is, each table is told
            self._hopeless = redact(sentence(error))
            yield None
            return
        with closing(database):
            if self._threads > 1:
                # What one DuckDB would take is for all of them. It says "18.6 GiB" and takes the same.
                [(limit,)] = database.execute("SELECT current_setting('memory_limit')").fetchall()
                size, unit = limit.split()
                database.execute(f"SET memory_limit = '{float(size) / self._threads:.2f} {unit}'")
            yield database


def _outcome(request: LoadRequest, ending: Ending, message: str, result: LoadResult | None = None) -> Outcome:
    return Outcome(request.config_id, request.attempt, ending, message, result)


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
