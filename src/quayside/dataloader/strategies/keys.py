"""All keys of the source against those of the table: what is gone there, what never arrived, what came back.

A cursor sees neither deleted rows nor those committed late with a cursor below the lookback. Where ``is_delete`` is set, the
keys of both sides are compared every DATALOADER_DELETE_CHECK_HOURS: rows that are gone are marked or removed, rows that are
missing are loaded. A source that gives no keys, or far fewer than the table has, is not believed. Belongs here: that
comparison. Does not belong here: rows that a window's strategy removes inside its window.
"""

# ruff: noqa: S608 - names are quoted by `identifier`, values are bound

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from quayside.dataloader.destinations.destination import IS_DELETE, Removed, Written
from quayside.dataloader.destinations.parallel import threads_for
from quayside.dataloader.destinations.profile import rows_into
from quayside.dataloader.errors import CountMismatchError
from quayside.dataloader.sources.source import Comparison, Predicate
from quayside.dataloader.strategies.strategy import Done, Load
from quayside.foundation.lake.sql import identifier

if TYPE_CHECKING:
    from quayside.dataloader.schema_contract import SchemaPlan

KEYS: Final = "temp.main.quayside_keys"
GONE: Final = "temp.main.quayside_gone"
MISSING: Final = "temp.main.quayside_missing"

#: Missing rows loaded by one comparison. More are a case for a full load; they are reported either way.
REPAIRED_ROWS: Final = 50_000


@dataclass(frozen=True)
class Compared:
    """Numbers of keys: in the table and not at the source, and the other way round."""

    gone: int
    missing: int


def reconcile(load: Load, done: Done) -> Done:
    """Compare keys where it is due, and commit what follows from it; `done` with that added."""
    if not is_due(load):
        return done
    columns = load.plan(replaced=False)
    live = f"(SELECT * FROM {load.destination.relation()}{_live(load)})"
    compared = compare(load, columns, live)
    if compared is None:
        return done
    written = Written()
    if compared.gone or compared.missing:
        read_missing(load, columns, compared.missing)
        stands = load.destination.state()
        state = replace(stands, attempt=load.request.attempt) if stands else load.new_state(done.cursor)
        written = load.destination.merge(
            load.staged(columns),
            load.key(columns),
            lambda _: state,
            load.fence,
            removed=Removed(GONE, load.source.clock() if load.soft else None),
        )
    return replace(done, written=_sum(done.written, written), deletes_checked_at=load.source.clock())


def is_due(load: Load) -> bool:
    """Whether keys are to be compared in this load."""
    if not load.request.is_delete or load.request.row_cap is not None:
        return False
    checked = load.request.deletes_checked_at
    every = timedelta(hours=load.settings.dataloader_delete_check_hours)
    return checked is None or load.source.clock() - checked >= every


def compare(load: Load, columns: SchemaPlan, live: str) -> Compared | None:
    """Fill GONE and MISSING with keys; None, and a warning, when the source's answer cannot be believed.

    `live`: a relation of the rows that count as present.
    """
    key = ", ".join(map(identifier, load.key(columns)))
    with load.transaction():
        source = load.source.relation((), load.source_key)
        select = ", ".join(f"{columns.expressions[k]} AS {identifier(k)}" for k in load.key(columns))
        made = f"CREATE OR REPLACE TEMP TABLE quayside_keys AS SELECT {select} FROM {source}"
        with threads_for(load.con, one_stream=load.source.one_stream):
            read = rows_into(load.con, made).given
    keys = load.scalar(f"SELECT count(*) FROM {KEYS}")
    if keys != read:
        raise CountMismatchError(
            f"{load.name}: {read} keys were read and {keys} staged. Nothing was committed."
        )
    if not is_believable(load, keys, load.scalar(f"SELECT count(*) FROM {live}")):
        return None
    for table, here, there in ((GONE, live, KEYS), (MISSING, KEYS, live)):
        load.con.execute(
            f"CREATE OR REPLACE TEMP TABLE {table.split('.')[-1]} AS "
            f"SELECT DISTINCT {key} FROM {here} ANTI JOIN {there} USING ({key})"
        )
    return Compared(
        load.scalar(f"SELECT count(*) FROM {GONE}"), load.scalar(f"SELECT count(*) FROM {MISSING}")
    )


def is_believable(load: Load, keys: int, live: int) -> bool:
    """Whether `keys` rows at the source may stand for a table of `live` rows; a warning where not."""
    least = load.settings.dataloader_delete_minimum_share
    if live == 0 or (keys > 0 and keys >= live * least):
        return True
    load.warnings.append(
        f"The source gave {keys} keys and the table has {live} rows: nothing was deleted, since less than "
        f"{least:.0%} of them is taken for a fault. Where it is right, load the table in full, or lower "
        "DATALOADER_DELETE_MINIMUM_SHARE."
    )
    return False


def read_missing(load: Load, columns: SchemaPlan, missing: int) -> None:
    """Stage the rows whose keys are in MISSING, at most REPAIRED_ROWS of them."""
    key = load.key(columns)
    names = ", ".join(map(identifier, key))
    late = missing
    if load.soft:
        back = f"SELECT count(*) FROM {MISSING} SEMI JOIN {load.destination.relation()} USING ({names})"
        late -= load.scalar(back)
    if late:
        load.warnings.append(
            f"{late} rows of the source had never arrived, since they were committed later than the lookback reaches: "
            f"{'they are loaded now' if missing <= REPAIRED_ROWS else f'the first {REPAIRED_ROWS} are loaded now'}. "
            "Raise incremental_lookback_hours if this goes on."
        )
    if missing > REPAIRED_ROWS:
        load.con.execute(
            f"DELETE FROM {MISSING} WHERE rowid NOT IN (SELECT rowid FROM {MISSING} ORDER BY {names} LIMIT {REPAIRED_ROWS})"
        )
    load.stage(columns, _range(load, columns) if missing else [], only=MISSING)
    load.unique_stage(columns)


def _range(load: Load, columns: SchemaPlan) -> Predicate:
    """Bounds of the missing keys, where source and DuckDB order them alike."""
    stored, source = load.key(columns)[0], load.source_key[0]
    if columns.columns[stored] not in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT"):
        return []
    name = identifier(stored)
    least, greatest = load.con.execute(f"SELECT min({name}), max({name}) FROM {MISSING}").fetchone()
    return [Comparison(source, ">=", least), Comparison(source, "<=", greatest)]


def _live(load: Load) -> str:
    return (
        f" WHERE {IS_DELETE} IS NOT TRUE"
        if load.soft and IS_DELETE in (load.destination.columns() or {})
        else ""
    )


def _sum(a: Written, b: Written) -> Written:
    return Written(a.inserted + b.inserted, a.updated + b.updated, a.deleted + b.deleted, a.bytes + b.bytes)
