"""``append_only``: rows that are new since the last load, each exactly once.

Rows at the cursor are read again, since more of the same moment may have been committed; those that are known are left
out. Known are the digests that the last commit kept, one per row at or above the cursor, of key and cursor or, without a
key, of the whole row. A row committed late with a cursor below cannot be seen; with a key and ``is_delete`` the comparison of keys
finds it.
"""

# ruff: noqa: S608 - names are quoted by `identifier`, values are bound

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from quayside.dataloader.destinations.destination import LoadState
from quayside.dataloader.sources.source import Comparison
from quayside.dataloader.strategies.keys import reconcile
from quayside.dataloader.strategies.strategy import STAGE, Done, Load
from quayside.foundation.lake.sql import identifier

if TYPE_CHECKING:
    from quayside.dataloader.schema_contract import SchemaPlan

#: More rows at one moment are looked up in the table itself instead of being kept in the state.
KEPT_DIGESTS: Final = 10_000


def append_only(load: Load) -> Done:
    return _first(load) if load.is_first else reconcile(load, _window(load))


def _first(load: Load) -> Done:
    columns = load.plan(replaced=True)
    states: list[LoadState] = []

    def state(relation: str) -> LoadState:
        states[:] = [_state(load, columns, relation, load.cursor_of(relation, columns))]
        return states[0]

    written = load.overwrite(columns, unique=False, state=state)
    return Done(written, states[0].cursor, "full", deletes_checked_at=load.source.clock())


def _window(load: Load) -> Done:
    assert load.cursor is not None
    before = load.before
    assert before is not None
    columns = load.plan(replaced=False)
    load.stage(columns, [Comparison(load.cursor.column, ">=", before)])
    cursor = load.cursor_of(STAGE, columns)
    state = _state(load, columns, STAGE, cursor)
    new = _drop_known(load, columns, before)
    if new:
        return Done(load.destination.append(load.staged(columns), lambda _: state, load.fence), cursor)
    if cursor != load.cursor.text(before):  # the clock has passed a row from the future
        load.destination.record(state, load.fence)
    return Done(cursor=cursor)


def _drop_known(load: Load, columns: SchemaPlan, before: Any) -> int:
    """Take what is in the table already out of the stage; rows that stay.

    Without a key two equal rows are two rows: of n at the source and m known, n - m are new.
    """
    state = load.state
    kept = state.extra.get("digest") if state is not None else None
    if (
        state is not None
        and kept
        and not state.extra.get("in_table")
        and set(kept) <= columns.expressions.keys()
    ):
        digest = _digest(kept)
        known, values = "SELECT unnest(?::VARCHAR[]) AS digest", [list(state.boundary)]
    else:
        stored = load.destination.columns() or {}
        names = [c for c in _identity(load, columns) if c in stored]
        digest = _digest(names)
        cursor = identifier(load.cursor_column(columns))
        known = f"SELECT {digest} AS digest FROM {load.destination.relation()} WHERE {cursor} >= ?"
        values = [before]
    load.con.execute(
        f"""
        DELETE FROM {STAGE} WHERE rowid IN (
            SELECT s.row FROM (
                SELECT rowid AS row, {digest} AS digest, row_number() OVER (PARTITION BY {digest}) AS number FROM {STAGE}
            ) s JOIN (SELECT digest, count(*) AS number FROM ({known}) GROUP BY 1) k
            ON s.digest = k.digest AND s.number <= k.number
        )
        """,
        values,
    )
    return load.scalar(f"SELECT count(*) FROM {STAGE}")


def _state(load: Load, columns: SchemaPlan, relation: str, cursor: str | None) -> LoadState:
    assert load.cursor is not None
    identity = _identity(load, columns)
    if cursor is None:
        return load.new_state(None, (), digest=identity)
    column = identifier(load.cursor_column(columns))
    found = load.con.execute(
        f"SELECT {_digest(identity)} FROM {relation} WHERE {column} >= ? LIMIT {KEPT_DIGESTS + 1}",
        [load.cursor.parse(cursor)],
    ).fetchall()
    if len(found) > KEPT_DIGESTS:
        return load.new_state(cursor, (), digest=identity, in_table=True)
    return load.new_state(cursor, sorted(row[0] for row in found), digest=identity)


def _identity(load: Load, columns: SchemaPlan) -> list[str]:
    """The columns that tell rows apart: a key comes again with a later cursor, as another version of its row."""
    if not load.has_key:
        return list(columns.expressions)
    return list(dict.fromkeys([*load.key(columns), load.cursor_column(columns)]))


def _digest(columns: Sequence[str]) -> str:
    texts = ", ".join(f"{identifier(c)}::VARCHAR" for c in columns)
    return f"md5(to_json([{texts}])::VARCHAR)"
