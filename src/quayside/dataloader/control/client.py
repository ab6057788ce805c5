"""`LakebaseClient`: the one way to the control database, for sensors, workers, monitors and the command line.

A client made by `for_attempt` carries an attempt: whatever it writes names that attempt and is refused when the row has
moved on (FencedError). A client without one reads, claims and frees, and gives attempts up. Results and questions survive
a control database that restarts in between; a claim does not need to, the next tick finds what it left.
"""

# ruff: noqa: S608 - statements are made of constants of this package; values are bound
from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from quayside.dataloader.control import attempts, configuration, states, watch
from quayside.dataloader.control.connection import RESULT_PATIENCE_SECONDS, Connections
from quayside.dataloader.control.rows import Attempt, Row, request_of
from quayside.dataloader.errors import CancelledError, FencedError
from quayside.foundation.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from quayside.dataloader.control.attempts import Heartbeat, Outcome
    from quayside.dataloader.control.configuration import Saved
    from quayside.dataloader.request import LoadRequest
    from quayside.dataloader.result import LoadResult
    from quayside.foundation.settings import Settings

#: A Queued row has no heartbeat: longqueued_monitor acts after 60 minutes, its lease is the bound behind that.
QUEUE_LEASE: Final = timedelta(minutes=90)
_PATIENCE_OF_QUESTIONS_SECONDS: Final = 20.0


class LakebaseClient:
    """The control database as its users see it. Threads may share a client.

    ``attempt`` is (config_id, attempt) of a client that carries one, else None.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        attempt: tuple[int, int] | None = None,
        connections: Connections | None = None,
        patience_seconds: float = RESULT_PATIENCE_SECONDS,
    ) -> None:
        self.settings = settings
        self.attempt = attempt
        self._connections = connections or Connections(settings)
        self._patience_seconds = patience_seconds
        self._holding = False
        self._lease = timedelta(seconds=settings.dataloader_lease_seconds)

    def for_attempt(self, config_id: int, attempt: int) -> LakebaseClient:
        """A client that carries this attempt, on the same connections."""
        return LakebaseClient(
            self.settings,
            attempt=(config_id, attempt),
            connections=self._connections,
            patience_seconds=self._patience_seconds,
        )

    def close(self) -> None:
        """Close the idle connections; the client may be used again."""
        self._connections.close()

    def __enter__(self) -> LakebaseClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- questions --------------------------------------------------------------------------------------------------

    def ask(self, statement: str, values: Mapping[str, Any]) -> list[Row]:
        """The rows of one SELECT with bound values."""
        return self._ask(lambda con: con.execute(statement, values).fetchall())

    def get_control_tables(self, state: str | None = "ready", limit: int | None = None) -> list[Row]:
        """Rows of ``table_readiness`` (identity, state, reason …): by default the ready ones, in the order of claims.

        ``state=None`` gives every row.
        """
        statement = (
            "SELECT * FROM control.table_readiness WHERE state = coalesce(%s, state) "
            "ORDER BY priority DESC, due_since, config_id LIMIT %s"
        )
        return self._ask(lambda con: con.execute(statement, (state, limit)).fetchall())

    def unattended(self) -> list[str]:
        """Sentences about what nobody sees to, because the sensors are off or the daemon is."""
        return self._ask(watch.unattended)

    def get_table_details(self, control_key: str | int) -> Row:
        """The whole row of a control key (or config_id) with its source's ``db_type``, ``db_config_value`` and
        ``db_kv_scope``, and with ``state`` and ``reason``.

        Raises:
            NotFoundError: there is no such row.
        """
        column = "config_id" if isinstance(control_key, int) else "control_key"
        statement = (
            "SELECT c.*, d.db_type, d.db_config_value, d.db_kv_scope, r.state, r.reason FROM control.table_control c "
            "LEFT JOIN control.table_control_dbconfig d USING (db_config_key) "
            f"JOIN control.table_readiness r USING (config_id) WHERE c.{column} = %s"
        )
        row = self._ask(lambda con: con.execute(statement, (control_key,)).fetchone())
        if row is None:
            raise NotFoundError(
                f"The control database has no table with {column} {control_key}: see `quayside tables list`."
            )
        return row

    def request(self) -> LoadRequest:
        """This attempt's request as the row is now: cursor, lookback and ``deletes_checked_at`` included.

        Whether it is a forced full load was fixed when the attempt began, so that its success clears no later wish.

        Raises:
            FencedError: the attempt was given up, or has not begun.
        """
        key = self._carried()
        row = attempts.require(self._ask(lambda con: attempts.read(con, *key)), *key, "In Progress")
        row["load_full"] = row["attempt_load_full"]
        return request_of(row, self.settings.dataloader_row_cap)

    # -- claiming ---------------------------------------------------------------------------------------------------

    def claim(self, limit: int) -> list[LoadRequest]:
        """Turn at most `limit` ready rows into Queued attempts, in order of priority and due time."""
        from quayside.dataloader.control.claim import claim

        with self._connections.transaction() as con:
            rows = claim(con, limit, QUEUE_LEASE)
        return [request_of(row, self.settings.dataloader_row_cap) for row in rows]

    # -- an attempt -------------------------------------------------------------------------------------------------

    def begin(self, run_url: str | None, worker: str | None = None) -> LoadRequest:
        """Queued → In Progress, before anything is started for it; the request as the row is now.

        Asked again by the same run it changes nothing.

        Raises:
            FencedError: the row has moved on, or may not load now (deactivated, source paused, window closed: then the
                attempt is given back and the row waits to be ready again). There is nothing to load.
        """
        key = self._carried()
        reason = self._write(
            lambda con: attempts.begin(con, *key, run_url, worker or this_worker(), self._lease)
        )
        if reason is not None:
            raise FencedError(f"Attempt {key[1]} of config {key[0]} loads nothing: {reason}.")
        return self.request()

    def heartbeat(
        self,
        rows: int | None = None,
        total: int | None = None,
        phase: str | None = None,
        worker: str | None = None,
    ) -> Heartbeat:
        """Extend the lease, note the progress; "stop" when the load was told to stop or its source was paused.

        Raises:
            FencedError: the attempt was given up.
            ServiceUnavailableError: the control database does not answer now; the lease has not run out by that.
        """
        from psycopg.errors import LockNotAvailable

        key = self._carried()
        if self._holding:
            return "continue"  # the commit has the row; the lease is extended at its end
        with self._connections.transaction() as con:
            con.execute("SET LOCAL lock_timeout = '2s'")
            try:
                with con.transaction():
                    return attempts.heartbeat(
                        con, *key, self._lease, rows=rows, total=total, phase=phase, worker=worker
                    )
            except LockNotAvailable:
                return "continue"  # somebody is writing the row; the next beat is in time

    def check(self) -> None:
        """Raise FencedError when the attempt was given up, CancelledError when it was told to stop. One short query."""
        key = self._carried()
        _go_on(attempts.require(self._ask(lambda con: attempts.read(con, *key)), *key, "In Progress"))

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep the attempt from being given up until the block ends: around the destination's commit.

        Raises:
            FencedError: it was given up already.
            CancelledError: it was told to stop.
        """
        import psycopg

        key = self._carried()
        con = self._connections.take()
        try:
            try:
                con.execute("BEGIN")
                _go_on(attempts.require(attempts.read(con, *key, lock=True), *key, "In Progress"))
            except psycopg.OperationalError as error:
                from quayside.foundation.errors import ServiceUnavailableError, sentence

                raise ServiceUnavailableError(
                    f"The control database gave up before the commit: {sentence(error)}"
                ) from error
            self._holding = True
            yield
            try:
                con.execute(
                    "UPDATE control.table_control SET lease_expires_at = clock_timestamp() + %s WHERE config_id = %s",
                    (self._lease, key[0]),
                )
                con.execute("COMMIT")
            except psycopg.Error:  # the commit is through; whether it counts is what `succeed` finds out
                con.close()
        finally:
            self._holding = False
            if not con.closed:
                if con.info.transaction_status != 0:
                    con.close()  # rolls back
                self._connections.give_back(con)

    @contextmanager
    def hold_all(self, keys: Sequence[tuple[int, int]]) -> Iterator[Callable[[int, int, LoadResult], None]]:
        """`hold` for several attempts, around one commit for all of them.

        Yields what writes the success of one attempt: those successes are committed when the block ends. When that goes wrong
        (ServiceUnavailableError) none of them is written, and `succeed` is there for each.

        Raises:
            FencedError: one was given up already.
            CancelledError: one was told to stop.
        """
        with self._connections.transaction() as con:
            for key in sorted(
                keys
            ):  # everybody in the same order, so that two of us do not wait for each other
                _go_on(attempts.require(attempts.read(con, *key, lock=True), *key, "In Progress"))
            yield (
                lambda config_id, attempt, result: attempts.succeed(con, config_id, attempt, result) and None
            )

    def succeed(self, result: LoadResult) -> datetime | None:
        """Everything a success changes, in one transaction; when the table is due next (None: never by itself).

        Raises:
            FencedError: the attempt was given up before.
        """
        key = self._carried()
        return self._write(lambda con: attempts.succeed(con, *key, result))

    def fail(self, message: str, outcome: Outcome = "Failed") -> None:
        """Failed, with the history closed as `outcome`. What was cancelled because its source is paused is given back.

        Raises:
            FencedError: the row has moved on.
        """
        key = self._carried()
        self._write(lambda con: attempts.end(con, *key, message, outcome))

    def release(self, message: str) -> None:
        """Give the attempt back: it counts as cancelled, and the row is ready again.

        Raises:
            FencedError: the row has moved on.
        """
        key = self._carried()
        self._write(lambda con: attempts.end(con, *key, message, "Cancelled", release=True))

    def update_control_status(self, config_id: int, status: str, message: str | None = None) -> None:
        """Write a status of the state machine for the attempt this client carries.

        Raises:
            FencedError: the row has moved on.
            UsageError: the client carries no attempt of this row, or the status is not an attempt's to write.
        """
        from quayside.dataloader.result import LoadResult

        self._carried(config_id)
        if status == "In Progress":
            self.begin(message)
        elif status == "Succeeded":
            self.succeed(LoadResult("loaded", strategy=self.request().load_strategy, rows_read=0))
        elif status == "Failed":
            self.fail(message or "Failed without a message")
        else:
            raise UsageError(
                f"An attempt writes In Progress, Succeeded or Failed, not {status!r}: rows are queued by `claim`."
            )

    def update_run_tracking(
        self, config_id: int, dagster_url: str | None, databricks_url: str | None = None
    ) -> None:
        """Write the links to the attempt's runs, into the row and its history. None leaves a link as it is.

        Raises:
            FencedError: the row has moved on.
        """
        key = self._carried(config_id)
        self._write(lambda con: attempts.track_runs(con, *key, dagster_url, databricks_url))

    def insert_initial_metadata(self, config_id: int) -> int:
        """Id of the attempt's history row, which its claim wrote.

        Raises:
            FencedError: the row has moved on.
        """
        key = self._carried(config_id)
        row = self._ask(lambda con: attempts.read(con, *key))
        row = attempts.require(row, *key, "Queued", "In Progress")
        return row["metadata_id"]

    def update_metadata(self, metadata_id: int, **values: Any) -> None:
        """Write figures into the attempt's history row while it is open.

        Raises:
            FencedError: it was closed, or is another attempt's.
            UsageError: a value has no column.
        """
        key = self._carried()
        self._write(lambda con: attempts.note(con, *key, metadata_id, values))

    # -- freeing rows -----------------------------------------------------------------------------------------------

    def reset_for_retry(
        self, config_id: int, reason: str, *, delay_seconds: float = 0, forget_failures: bool = False
    ) -> None:
        """Failed → null: due now, or after a delay. `forget_failures` is a person's: the retry budget starts anew.

        Raises:
            UsageError: the row is not Failed.
            NotFoundError: there is no such row.
        """
        self._write(lambda con: states.reset(con, config_id, reason, delay_seconds, forget_failures))

    def mark_for_review(self, config_id: int, reason: str) -> None:
        """Failed stays Failed and waits for a person.

        Raises:
            UsageError: the row is not Failed.
            NotFoundError: there is no such row.
        """
        self._write(lambda con: states.review(con, config_id, reason))

    def request_stop(self, config_id: int, reason: str) -> bool:
        """Tell what runs for this row to stop at its next heartbeat; False when nothing runs."""
        return self._write(lambda con: states.request_stop(con, config_id, reason))

    # -- configuration ----------------------------------------------------------------------------------------------

    def save_source(self, values: Mapping[str, Any]) -> Saved:
        """Add a source database, or change the columns given of the one with this ``db_config_key``.

        Raises:
            InputError: one sentence with everything that is wrong.
        """
        with self.changes() as con:
            return configuration.save_source(con, values)

    def save_table(self, values: Mapping[str, Any], config_id: int | None = None) -> tuple[int, Saved]:
        """Add a table, or change the columns given of the row `config_id` or of the row with the same control key.

        Raises:
            InputError: one sentence with everything that is wrong.
            NotFoundError: there is no row `config_id`.
        """
        with self.changes() as con:
            return configuration.save_table(con, values, config_id)

    @contextmanager
    def changes(self, change_source: str = "cli") -> Iterator[Any]:
        """A transaction for changes of configuration; the audit notes who made them and by which way."""
        with self._connections.transaction() as con:
            con.execute("SELECT set_config('control.change_source', %s, true)", (change_source,))
            yield con

    # -- monitors ---------------------------------------------------------------------------------------------------

    def running(self) -> list[Attempt]:
        """Every attempt that is Queued or In Progress, the oldest first."""
        return self._ask(watch.running)

    def stuck_in_queue(self, minutes: float = 60) -> list[Attempt]:
        """Queued for longer than that."""
        return self._ask(lambda con: watch.stuck_in_queue(con, minutes))

    def running_too_long(self, minutes: float = 185, backfill_minutes: float = 24 * 60 + 5) -> list[Attempt]:
        """In Progress for longer than that: 180 minutes, 24 hours for a backfill, and 5 minutes of grace."""
        return self._ask(lambda con: watch.running_too_long(con, minutes, backfill_minutes))

    def expired(self) -> list[Attempt]:
        """In Progress with a lease that ran out."""
        return self._ask(watch.expired)

    def queued(self, limit: int = 1000, older_than_seconds: float = 0) -> list[LoadRequest]:
        """Queued rows as they were claimed, for whoever finds that their run was never created."""
        rows = self._ask(lambda con: watch.queued(con, limit, older_than_seconds))
        return [request_of(row, self.settings.dataloader_row_cap) for row in rows]

    def close_leftovers(self) -> list[Row]:
        """Close open history whose row has moved on or is gone; the rows closed: id, config_id, attempt, destination."""
        return self._write(watch.close_leftovers)

    def give_up(
        self,
        config_id: int,
        attempt: int,
        message: str,
        outcome: Outcome = "Failed",
        *,
        only_expired: bool = False,
    ) -> None:
        """Close somebody's attempt: Failed, its history closed as `outcome`. Whatever it writes later is refused.

        With `only_expired` an attempt whose lease was extended in the meantime is left alone.

        Raises:
            FencedError: the row has moved on, or the lease was extended.
        """
        self._write(
            lambda con: attempts.end(con, config_id, attempt, message, outcome, only_expired=only_expired)
        )

    def requeue(self, config_id: int, attempt: int, reason: str) -> bool:
        """Free a Queued row whose run never came; False: it failed instead, since this happened three times in a row.

        Raises:
            FencedError: the row has moved on, for instance because its run began.
        """
        return self._write(lambda con: watch.requeue(con, config_id, attempt, reason))

    # -- inside -----------------------------------------------------------------------------------------------------

    def _carried(self, config_id: int | None = None) -> tuple[int, int]:
        if self.attempt is None:
            raise UsageError("This client carries no attempt: make one with for_attempt(config_id, attempt).")
        if config_id is not None and config_id != self.attempt[0]:
            raise UsageError(
                f"This client carries an attempt of config {self.attempt[0]} and was asked to write config {config_id}."
            )
        return self.attempt

    def _ask(self, question: Any) -> Any:
        return self._connections.retrying(
            question, min(_PATIENCE_OF_QUESTIONS_SECONDS, self._patience_seconds)
        )

    def _write(self, work: Any) -> Any:
        return self._connections.retrying(work, self._patience_seconds)


def this_worker() -> str:
    """Host and process id, as `worker` shows who loads."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _go_on(row: Row) -> None:
    if row["stop_requested"] is not None:
        raise CancelledError(f"Config {row['config_id']} was told to stop: {row['stop_requested']}.")
    if row["is_paused"]:
        reason = f": {row['paused_reason']}" if row["paused_reason"] else ""
        raise CancelledError(f"Source {row['db_config_key']} was paused{reason}.")
