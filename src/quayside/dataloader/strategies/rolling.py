"""``rolling``: the last ``rolling_days`` re-read and merged; what is gone from inside the window is removed.

An empty read removes nothing. A row whose ``rolling_column`` is moved out of the window by an update leaves the table with
it, so the column should not change.
"""

# ruff: noqa: S608 - names are quoted by `identifier`, values are bound

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from quayside.dataloader.cursor import Cursor
from quayside.dataloader.destinations.destination import IS_DELETE, LoadState, Removed
from quayside.dataloader.sources.source import Comparison
from quayside.dataloader.strategies.full import first
from quayside.dataloader.strategies.keys import GONE, reconcile
from quayside.dataloader.strategies.strategy import STAGE, Done, Load
from quayside.foundation.errors import InputError
from quayside.foundation.lake.sql import identifier

if TYPE_CHECKING:
    from quayside.dataloader.schema_contract import SchemaPlan

DEFAULT_DAYS: Final = 90


def rolling(load: Load) -> Done:
    _ = load.source_key
    window = window_of(load)
    if load.is_new:
        return first(load)
    return reconcile(load, _window(load, *window))


def window_of(load: Load) -> tuple[Cursor, Any]:
    """The rolling column, and where its window begins: midnight of the source's own day, `rolling_days` ago.

    Raises:
        InputError: no such column, or none of dates or times.
    """
    if not load.request.rolling_column:
        raise InputError(f"Strategy rolling of {load.request.source_table_name} needs a rolling_column.")
    column = Cursor.of(
        replace(load.request, incremental_column=load.request.rolling_column, incremental_type=None),
        load.source,
    )
    assert column is not None
    days = DEFAULT_DAYS if load.request.rolling_days is None else load.request.rolling_days
    local = load.source.local_clock()
    midnight = datetime.combine(local.date() - timedelta(days=days), datetime.min.time())
    if column.kind == "date":
        return column, midnight.date()
    if column.kind == "naive":
        return column, midnight
    if column.kind == "number":
        raise InputError(
            f"rolling_column {identifier(column.column)} is a number: rolling needs dates or times."
        )
    ahead = local - load.source.clock().astimezone(UTC).replace(tzinfo=None)
    return column, (midnight - ahead).replace(tzinfo=UTC)


def _window(load: Load, column: Cursor, lower: Any) -> Done:
    columns = load.plan(replaced=False)
    name = identifier(columns.name_of(column.column))
    read = load.stage(columns, [Comparison(column.column, ">=", lower)])
    if not read:
        return Done()
    return merge_stage(load, columns, f"{name} >= ?", [lower], load.new_state())


def merge_stage(load: Load, columns: SchemaPlan, within: str, values: list[Any], state: LoadState) -> Done:
    """Merge the stage, and remove rows of the table `within` whose key is not staged."""
    load.unique_stage(columns)
    key = ", ".join(map(identifier, load.key(columns)))
    live = (
        f" AND {IS_DELETE} IS NOT TRUE"
        if load.soft and IS_DELETE in (load.destination.columns() or {})
        else ""
    )
    load.con.execute(
        f"CREATE OR REPLACE TEMP TABLE {GONE.split('.')[-1]} AS SELECT {key} FROM "
        f"(SELECT * FROM {load.destination.relation()} WHERE {within}{live}) ANTI JOIN {STAGE} USING ({key})",
        values,
    )
    gone = 0 if load.capped else load.scalar(f"SELECT count(*) FROM {GONE}")
    written = load.destination.merge(
        load.staged(columns),
        load.key(columns),
        lambda _: state,
        load.fence,
        removed=Removed(GONE, load.source.clock() if load.soft else None) if gone else None,
    )
    return Done(written, state.cursor)
