"""``incremental``: rows at or above the cursor less the lookback, merged by key."""

from __future__ import annotations

from quayside.dataloader.sources.source import Comparison
from quayside.dataloader.strategies.full import first
from quayside.dataloader.strategies.keys import reconcile
from quayside.dataloader.strategies.strategy import STAGE, Done, Load
from quayside.foundation.lake.sql import identifier


def incremental(load: Load) -> Done:
    assert load.cursor is not None
    _ = load.source_key
    if load.is_first:
        return first(load)
    return reconcile(load, _window(load))


def _window(load: Load) -> Done:
    assert load.cursor is not None
    before = load.before
    assert before is not None
    columns = load.plan(replaced=False)
    # At the cursor as well as above it: a row of the same moment may have been committed later.
    lower = load.cursor.back(before, load.lookback_hours)
    if not load.stage(columns, [Comparison(load.cursor.column, ">=", lower)]):
        return Done(cursor=load.cursor.text(before))
    load.unique_stage(columns)
    column = identifier(load.cursor_column(columns))
    known = load.scalar(f"SELECT count(*) FROM {STAGE} WHERE {column} <= ?", [before])  # noqa: S608  quoted
    capped = load.state is not None and load.state.extra.get(
        "cursor_capped", False
    )  # it was read with higher ones
    after = load.cursor_of(STAGE, columns)
    # Rows above the cursor are new or changed; those of the lookback mostly neither, and are not written again.
    compare = known > 0 or capped
    if compare and load.drop_unchanged(columns, lower, None if capped else before):
        compare = False
        if after == load.cursor.text(before) and not load.scalar(f"SELECT count(*) FROM {STAGE}"):  # noqa: S608  our own
            return Done(cursor=after)
    written = load.destination.merge(
        load.staged(columns),
        load.key(columns),
        lambda _: load.new_state(after),
        load.fence,
        compare=compare,
    )
    return Done(written, after)
