"""``chunked_backfill``: a large table in chunks into a shadow beside it, resumable, swapped in whole, handed to incremental.

Each chunk is one commit that also says which chunks are done, so a killed backfill goes on where it was. Readers see the
old table until the swap, the whole one after it. The cursor handed over is from before the backfill read anything, so that
what changed meanwhile is loaded afterwards. A shadow that an earlier, different configuration left is thrown away.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, Literal

from quayside.dataloader.cursor import Cursor, CursorValue
from quayside.dataloader.destinations.destination import Destination, LoadState, Written
from quayside.dataloader.errors import CountMismatchError
from quayside.dataloader.sources.source import Comparison, Predicate
from quayside.dataloader.strategies.distinct import duplicates
from quayside.dataloader.strategies.full import first
from quayside.dataloader.strategies.strategy import Done, Load
from quayside.foundation.errors import InputError
from quayside.foundation.lake.sql import identifier

if TYPE_CHECKING:
    from quayside.dataloader.schema_contract import SchemaPlan

SHADOW: Final = "__backfill"

#: The cursor handed over is this far before the backfill's start: changes committed by transactions that were open then.
MARGIN: Final = timedelta(hours=24)
_MOST_CHUNKS: Final = 1000


@dataclass(frozen=True)
class Progress:
    """What the shadow's commits remember.

    Attributes:
        identity: digest of everything that makes rows of two configurations different.
        edges: where one chunk ends and the next begins, as text; n edges make n + 1 chunks.
        done: chunks that are committed.
        rows: rows that the source counted at the start.
        hand_over: the cursor to go on from, None for an empty table.
    """

    identity: str
    edges: list[str]
    rows: int
    hand_over: str | None
    done: int = 0
    mode: Literal["chunks"] = field(default="chunks")


def chunked_backfill(load: Load) -> Done:
    _ = load.source_key
    if load.request.row_cap is not None:
        return first(load)  # a few rows need no chunks; the cap says that it is no backfill
    state = load.state
    if state is not None and state.extra.get("handed_over") and not load.request.load_full:
        # Swapped in already, but the control row was not told.
        return Done(cursor=state.cursor, handed_over=True)
    columns = load.plan(replaced=True)
    column = _chunk_column(load)
    shadow = load.destination.sibling(SHADOW)
    identity = _identity(load, columns, column)
    progress = _resumed(shadow, identity)
    resumed = progress is not None
    if progress is None:
        if shadow.columns() is not None:
            shadow.drop(load.fence)
        progress = _planned(load, column, identity)
    for number, where in _remaining(load, column, progress):
        load.fence.check()
        progress = replace(progress, done=number + 1)
        _load_chunk(load, shadow, columns, where, progress, resumed)
        load.tell(load.rows_read, progress.rows)
    _check(load, shadow, columns, progress, resumed)
    after = load.new_state(progress.hand_over, handed_over=True)
    # Chunks were counted as they were committed; the swap writes nothing.
    written = load.destination.replace_with(shadow, lambda _: after, load.fence)
    return Done(Written(inserted=written.inserted, bytes=written.bytes), progress.hand_over, handed_over=True)


def _resumed(shadow: Destination, identity: str) -> Progress | None:
    state = shadow.state()
    kept = state.extra.get("backfill") if state is not None else None
    return Progress(**kept) if kept and kept["identity"] == identity else None


def _planned(load: Load, column: Cursor, identity: str) -> Progress:
    assert load.cursor is not None
    greatest = load.source.bounds(load.cursor.column)[1]
    hand_over = None
    if greatest is not None:
        value = load.capped_at_clock(greatest)
        clock = load.cursor.clock(load.source)
        if clock is not None:
            before_it = load.cursor.back(clock, int(MARGIN.total_seconds() // 3600))
            value = min(value, before_it)  # pyright: ignore[reportArgumentType, reportCallIssue]  one column, one type
        hand_over = load.cursor.text(value)
    rows = load.source.count()
    least, greatest = load.source.bounds(column.column)
    chunks = min(_MOST_CHUNKS, -(-rows // load.settings.dataloader_rows_per_chunk))
    return Progress(identity, [column.text(e) for e in edges(least, greatest, chunks)], rows, hand_over)


def edges(least: Any, greatest: Any, chunks: int) -> list[CursorValue]:
    """Values that cut a range into equal parts, each above the one before; fewer where the range has no room for them.

    >>> edges(0, 10, 3), edges(5, 5, 4), edges(None, None, 0)
    ([3, 6], [], [])
    """
    if least is None or chunks < 2:
        return []
    found: list[Any] = []
    for i in range(1, chunks):
        if isinstance(least, datetime | date):
            at: Any = least + (greatest - least) * i / chunks
        else:
            at = least + int(Decimal(greatest - least) * i / chunks)
        if at > (found[-1] if found else least):
            found.append(at)
    return found


def _remaining(load: Load, column: Cursor, progress: Progress) -> Iterator[tuple[int, Predicate]]:
    """Chunks that are not done, by number. The first has no lower bound and the last no upper one; nulls are the last."""
    values = [None, *(column.parse(edge) for edge in progress.edges), None]
    chunks: list[Predicate] = []
    for lower, upper in pairwise(values):
        ends: list[Comparison] = []
        ends += [Comparison(column.column, ">=", lower)] if lower is not None else []
        ends += [Comparison(column.column, "<", upper)] if upper is not None else []
        chunks.append(ends)
    if progress.edges and next(c.nullable for c in load.source.columns if c.name == column.column):
        chunks.append([Comparison(column.column, "is null")])
    for number, where in enumerate(chunks):
        if number >= progress.done:
            yield number, where


def _load_chunk(
    load: Load, shadow: Destination, columns: SchemaPlan, where: Predicate, progress: Progress, resumed: bool
) -> None:
    def state(_: str) -> LoadState:
        return load.new_state(None, backfill=asdict(progress))

    if resumed or not load.source.snapshot:
        # A row may have moved here from a chunk that was read earlier, on another snapshot.
        load.stage(columns, where)
        load.unique_stage(columns)
        if shadow.columns() is not None:
            shadow.merge(load.staged(columns), load.key(columns), state, load.fence, compare=False)
        else:
            shadow.append(load.staged(columns), state, load.fence)
        return
    written = shadow.append(load.rows(columns, where), state, load.fence)
    load.count_read(written.inserted)


def _check(load: Load, shadow: Destination, columns: SchemaPlan, progress: Progress, resumed: bool) -> None:
    """See that the shadow is the table before it takes its place."""
    rows = shadow.rows()
    if load.source.snapshot and not resumed and rows != progress.rows:
        raise CountMismatchError(
            f"{load.name}: the source counted {progress.rows} rows and the chunks hold {rows}. The table was not replaced."
        )
    if list(load.source.primary_key) != load.source_key:
        names = ", ".join(map(identifier, load.key(columns)))
        if several := duplicates(load.con, shadow.relation(), names):
            raise InputError(
                f"{several} rows of {load.request.source_table_name} have the key ({names}) of another row, or none: "
                "correct primary_key_cols. The table was not replaced."
            )


def _chunk_column(load: Load) -> Cursor:
    """The column that cuts the table: ``partition_column``, else the cursor."""
    assert load.cursor is not None
    if not load.request.partition_column:
        return load.cursor
    column = Cursor.of(
        replace(load.request, incremental_column=load.request.partition_column, incremental_type=None),
        load.source,
    )
    assert column is not None
    return column


def _identity(load: Load, columns: SchemaPlan, column: Cursor) -> str:
    request = load.request
    parts: Sequence[Any] = (
        request.db_config_key, request.source_catalog, request.source_schema_name, request.source_table_name,
        request.query, column.column, load.cursor and load.cursor.column, load.source_key, columns.columns,
        columns.expressions,
    )  # fmt: skip
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
