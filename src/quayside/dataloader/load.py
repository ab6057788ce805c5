"""One load: open the source and the destination, run the strategy, tell what happened.

It needs no control database: whoever has one passes its `Fence`. Belongs here: the order of things, cancelling, and
what errors of DuckDB mean. Does not belong here: any strategy, and anything about control rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from quayside.dataloader.cancelling import Cancelling
from quayside.dataloader.cursor import Cursor
from quayside.dataloader.destinations.destination import Destination, Fence, open_destination
from quayside.dataloader.destinations.parallel import ONE_TASK_ROWS, threads_for
from quayside.dataloader.errors import CancelledError
from quayside.dataloader.result import LoadResult
from quayside.dataloader.sources.mark import mark
from quayside.dataloader.sources.registry import cancel
from quayside.dataloader.sources.source import open_source
from quayside.dataloader.strategies import strategy_of
from quayside.dataloader.strategies.strategy import Done, Load
from quayside.foundation.errors import InputError, ServiceUnavailableError
from quayside.foundation.lake.sql import identifier, reason

if TYPE_CHECKING:
    import duckdb

    from quayside.dataloader.request import LoadRequest
    from quayside.dataloader.sources.source import SourceTable
    from quayside.foundation.settings import Settings

#: DuckDB's words for a statement that was interrupted.
_INTERRUPTED = "INTERRUPT Error"
_WITH_CURSOR = frozenset({"incremental", "append_only", "chunked_backfill"})


class NoFence:
    """For whoever loads a table without a control database: nobody else gives the attempt up."""

    @contextmanager
    def hold(self) -> Iterator[None]:
        yield

    def check(self) -> None:
        pass


def load_table(
    settings: Settings,
    request: LoadRequest,
    *,
    fence: Fence | None = None,
    con: duckdb.DuckDBPyConnection | None = None,
    source: SourceTable | None = None,
    destination: Destination | None = None,
    on_progress: Callable[[int, int | None], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    joined: bool = False,
) -> LoadResult:
    """Load one table as its row says.

    Args:
        fence: held around each commit; None = nobody can give the attempt up.
        con: a connection of the settings' lake, kept open for the next load; None = a new one. Loads at the same time
            need a DuckDB each: cursors of one share DuckLake's catalog, which does not bear tables being made meanwhile
            (https://github.com/duckdb/ducklake/issues/1404).
        source, destination: opened already, on `con`; None = as the request says.
        on_progress: called about once a second with rows done and rows in total (None = not known), from another thread.
        cancelled: asked several times a second; once it says yes, the running statement is interrupted.
        joined: `con` is in a transaction with other loads, `source` and `destination` too; the caller commits it.

    Raises:
        FencedError: the attempt was given up; nothing of it is visible that was not committed before.
        CancelledError: `cancelled` said yes; the same holds.
        QuaysideError: anything else a person can do something about.
    """
    from quayside.foundation.lake import Lake

    started = time.perf_counter()
    with ExitStack() as stack:
        if con is None:
            con = stack.enter_context(closing(Lake(settings).connect(in_use=False)))
        if source is None and destination is None:
            con = stack.enter_context(closing(con.cursor()))  # what is staged and set goes with it
        con.execute("SET TimeZone = 'UTC'")
        # Where the lake is the default, DuckDB asks its catalog about every function and name: 10 ms a statement.
        con.execute("USE memory")
        ends = partial(cancel, settings, con, request, mark()) if source is None else None
        watched = stack.enter_context(Cancelling(con, fence or NoFence(), cancelled, on_progress, ends))
        watched.check()
        with _stopped(watched):
            if source is None:
                source = stack.enter_context(open_source(settings, con, request))
            watched.reads(source)
            rows = source.estimate()
            # Of a small table's threads all but one find nothing to do and spin meanwhile, which takes a core from others.
            stack.enter_context(threads_for(con, one_stream=rows is not None and rows <= ONE_TASK_ROWS))
            destination = destination or open_destination(settings, con, request)
            load = Load(
                settings,
                request,
                source,
                destination,
                watched,
                Cursor.of(request, source),
                watched.know,
                joined,
            )
            with _explained(source):
                _check(load)
                before = None if load.before is None or load.cursor is None else load.cursor.text(load.before)
                done = strategy_of(request.load_strategy)(load)
                watched.finish()  # it is committed: nothing may say that it was stopped
                return _result(load, done, before, time.perf_counter() - started)


def _check(load: Load) -> None:
    request = load.request
    if request.load_strategy in _WITH_CURSOR and load.cursor is None:
        raise InputError(
            f"Strategy {request.load_strategy} of {request.source_table_name} needs an incremental_column."
        )
    if load.cursor is not None and load.cursor.kind == "date" and request.load_strategy != "full":
        load.warnings.append(
            f"Cursor {identifier(load.cursor.column)} is a date: rows changed later without a later date are not seen. "
            "Choose a column that every change moves, or strategy rolling."
        )


def _result(load: Load, done: Done, before: str | None, seconds: float) -> LoadResult:
    written = done.written
    if load.capped:
        load.warnings.append(
            f"The row cap of {load.request.row_cap} rows cut the load: the table is not complete."
        )
    return LoadResult(
        outcome="loaded" if written.inserted + written.updated + written.deleted else "unchanged",
        strategy=done.strategy or load.request.load_strategy,
        rows_read=load.rows_read,
        rows_inserted=written.inserted,
        rows_updated=written.updated,
        rows_deleted=written.deleted,
        rows_total=load.destination.rows(),
        bytes_written=written.bytes,
        seconds=seconds,
        cursor_before=before,
        cursor_after=done.cursor,
        backfill_cursor=done.backfill_cursor,
        handed_over=done.handed_over,
        deletes_checked_at=done.deletes_checked_at,
        capped=load.capped,
        columns=load.destination.columns() or {},
        schema_changes=load.changes,
        warnings=load.warnings,
    )


@contextmanager
def _stopped(watched: Cancelling) -> Iterator[None]:
    """Whatever a load that was told to stop met in DuckDB, the source or the lake, it met because of that."""
    import duckdb

    try:
        yield
    except (duckdb.Error, ServiceUnavailableError, InputError) as error:
        # DuckDB turns Ctrl-C into an interrupt, and a source may have put one into words of its own.
        interrupted = isinstance(error, duckdb.InterruptException) or _INTERRUPTED in str(error)
        if interrupted or (watched.is_told and not isinstance(error, InputError)):
            watched.check()  # says why
            raise CancelledError("The load was interrupted.") from None
        raise


@contextmanager
def _explained(source: SourceTable) -> Iterator[None]:
    """Turn errors of DuckDB into what they mean here."""
    import duckdb

    from quayside.foundation.lake.conflicts import is_connection_lost

    try:
        yield
    except duckdb.InterruptException:
        raise
    except duckdb.Error as error:
        if (meant := source.explain(error)) is not None:
            raise meant from None
        if is_connection_lost(error):
            raise ServiceUnavailableError(
                f"The lake's catalog does not answer: {reason(error)}. Nothing of this load is left half done; try again."
            ) from error
        raise
