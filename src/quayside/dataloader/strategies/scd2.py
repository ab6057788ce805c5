"""``scd2``: every version of a row, with ``valid_from``, ``valid_to`` (null while it holds) and ``is_current``.

A version is closed when the row changes or is gone at the source, and a changed row opens the next at the same moment: the
source's clock when the read began. Without a cursor the whole table is read and compared; with one, the rows at or above
the cursor less the lookback, and rows that are gone are found by the comparison of keys (``is_delete``). Per key at most one
version is current, and a load that is run again finds nothing to do.
"""

# ruff: noqa: S608 - names are quoted by `identifier`, values are bound

from __future__ import annotations

from dataclasses import replace
from datetime import UTC
from typing import TYPE_CHECKING, Final

from quayside.dataloader.destinations.destination import LoadState, Rows, Written
from quayside.dataloader.sources.source import Comparison
from quayside.dataloader.strategies.keys import GONE, compare, is_believable, is_due, read_missing
from quayside.dataloader.strategies.strategy import STAGE, Done, Load
from quayside.foundation.lake.sql import identifier

if TYPE_CHECKING:
    from quayside.dataloader.schema_contract import SchemaPlan

COLUMNS: Final[dict[str, str]] = {
    "valid_from": "TIMESTAMP WITH TIME ZONE",
    "valid_to": "TIMESTAMP WITH TIME ZONE",
    "is_current": "BOOLEAN",
}
_CHANGES: Final = "temp.main.quayside_changes"


def scd2(load: Load) -> Done:
    _ = load.source_key
    if load.destination.columns() is None or not COLUMNS.keys() <= (load.destination.columns() or {}).keys():
        return _first(load)
    # A forced full load compares the whole table: the versions there are must not be lost.
    windowed = load.cursor is not None and load.before is not None and not load.request.load_full
    done = _by_cursor(load) if windowed else _whole(load)
    return _by_keys(load, done) if load.cursor is not None else done


def _first(load: Load) -> Done:
    columns = load.plan(replaced=True)
    cursor: list[str | None] = []

    def state(relation: str) -> LoadState:
        cursor[:] = [load.cursor_of(relation, columns) if load.cursor is not None else None]
        return load.new_state(cursor[0])

    own = {"valid_from": _now(load), "valid_to": f"NULL::{COLUMNS['valid_to']}", "is_current": "true"}
    written = load.overwrite(columns, unique=True, state=state, own=own)
    return Done(written, cursor[0], deletes_checked_at=load.source.clock())


def _whole(load: Load) -> Done:
    columns = load.plan(replaced=False)
    read = load.stage(columns)
    load.unique_stage(columns)
    current = load.scalar(f"SELECT count(*) FROM {load.destination.relation()} WHERE is_current")
    believed = not load.capped and is_believable(load, read, current)
    key = ", ".join(map(identifier, load.key(columns)))
    load.con.execute(
        f"CREATE OR REPLACE TEMP TABLE {GONE.split('.')[-1]} AS SELECT {key} FROM "
        f"{_current(load)} ANTI JOIN {STAGE} USING ({key}) WHERE {str(believed).lower()}"
    )
    cursor = load.cursor_of(STAGE, columns) if load.cursor is not None else None
    written = _commit(load, columns, load.new_state(cursor))
    return Done(written, cursor, deletes_checked_at=load.source.clock() if believed else None)


def _by_cursor(load: Load) -> Done:
    assert load.cursor is not None
    before = load.before
    assert before is not None
    columns = load.plan(replaced=False)
    lower = load.cursor.back(before, load.lookback_hours)
    load.stage(columns, [Comparison(load.cursor.column, ">=", lower)])
    load.unique_stage(columns)
    _nothing_gone(load, columns)
    cursor = load.cursor_of(STAGE, columns)
    return Done(_commit(load, columns, load.new_state(cursor)), cursor)


def _by_keys(load: Load, done: Done) -> Done:
    if done.deletes_checked_at is not None or not is_due(load):
        return done
    columns = load.plan(replaced=False)
    compared = compare(load, columns, _current(load))
    if compared is None:
        return done
    if compared.gone or compared.missing:
        read_missing(load, columns, compared.missing)
        written = _commit(load, columns, load.new_state(done.cursor))
        both = Written(
            done.written.inserted + written.inserted,
            done.written.updated + written.updated,
            done.written.deleted + written.deleted,
            done.written.bytes + written.bytes,
        )
        done = replace(done, written=both)
    return replace(done, deletes_checked_at=load.source.clock())


def _commit(load: Load, columns: SchemaPlan, state: LoadState) -> Written:
    """Close versions of changed and gone rows, open those of changed and new ones, in one commit.

    Both are rows of one merge by key and ``valid_from``. A version is never closed at the moment it was opened, whatever
    the source's clock does. Counts: opened versions are inserted, closed ones updated or, where the row is gone, deleted.
    """
    key = load.key(columns)
    keys = ", ".join(map(identifier, key))
    stored = load.destination.columns() or {}
    others = [c for c in columns.expressions if c not in key]
    differs = " OR ".join(
        f"c.{identifier(c)} IS DISTINCT FROM s.{identifier(c)}"
        if c in stored
        else f"s.{identifier(c)} IS NOT NULL"
        for c in others
    )
    all_ = ", ".join(map(identifier, columns.columns))
    on = " AND ".join(f"c.{identifier(k)} = s.{identifier(k)}" for k in key)
    of_s = ", ".join(
        f"s.{identifier(c)}" if c in columns.expressions else f"NULL::{t} AS {identifier(c)}"
        for c, t in columns.columns.items()
        if c not in COLUMNS
    )
    # A column that is new at the source has no value in the version that ends.
    of_c = ", ".join(
        f"c.{identifier(c)}" if c in stored else f"NULL::{t} AS {identifier(c)}"
        for c, t in columns.columns.items()
        if c not in COLUMNS
    )
    moment = f"greatest({_now(load)}, c.valid_from + INTERVAL 1 MICROSECOND)"
    # A row that comes back begins where its last version ended, at the earliest.
    opened = f"greatest({_now(load)}, c.valid_from + INTERVAL 1 MICROSECOND, o.ended)"
    closed = (
        f"(SELECT {keys}, max(valid_to) AS ended FROM {load.destination.relation()} SEMI JOIN {STAGE} USING ({keys}) "
        f"WHERE NOT is_current GROUP BY {keys})"
    )
    on_closed = " AND ".join(f"o.{identifier(k)} = s.{identifier(k)}" for k in key)
    current = _current(load)
    load.con.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE {_CHANGES.split(".")[-1]} AS
        SELECT {of_c}, c.valid_from, {moment} AS valid_to, false AS is_current, 'changed' AS what
        FROM {current} c JOIN {STAGE} s ON {on} WHERE {differs or "false"}
        UNION ALL BY NAME
        SELECT {of_c}, c.valid_from, {moment} AS valid_to, false AS is_current, 'gone' AS what
        FROM {current} c SEMI JOIN {GONE} USING ({keys})
        UNION ALL BY NAME
        SELECT {of_s}, {opened} AS valid_from, NULL AS valid_to, true AS is_current, 'opened' AS what
        FROM {STAGE} s LEFT JOIN {current} c ON {on} LEFT JOIN {closed} o ON {on_closed} WHERE c.valid_from IS NULL OR {differs or "false"}
        """
    )
    counts = dict(load.con.execute(f"SELECT what, count(*) FROM {_CHANGES} GROUP BY 1").fetchall())
    if not counts and load.state is not None and load.state.cursor == state.cursor:
        return Written()
    rows = Rows(columns.columns, list(columns.columns), lambda: f"SELECT {all_} FROM {_CHANGES}")
    written = load.destination.merge(rows, [*key, "valid_from"], lambda _: state, load.fence, compare=False)
    return replace(written, updated=counts.get("changed", 0), deleted=counts.get("gone", 0))


def _current(load: Load) -> str:
    return f"(SELECT * FROM {load.destination.relation()} WHERE is_current)"


def _nothing_gone(load: Load, columns: SchemaPlan) -> None:
    key = ", ".join(f"NULL::{columns.columns[k]} AS {identifier(k)}" for k in load.key(columns))
    load.con.execute(f"CREATE OR REPLACE TEMP TABLE {GONE.split('.')[-1]} AS SELECT {key} WHERE false")


def _now(load: Load) -> str:
    return f"TIMESTAMPTZ '{load.source.clock().astimezone(UTC).isoformat()}'"
