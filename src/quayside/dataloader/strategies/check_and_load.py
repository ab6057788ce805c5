"""``check_and_load``: the number of rows first, and the greatest cursor where there is one; unchanged → nothing is read.

What has changed is loaded whole: by an overwrite, or, where deleted rows are to stay as marked ones, by a merge. A change
that moves neither the number nor the cursor is not seen.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from quayside.dataloader.destinations.destination import LoadState
from quayside.dataloader.errors import CountMismatchError
from quayside.dataloader.strategies.keys import is_believable, reconcile
from quayside.dataloader.strategies.rolling import merge_stage
from quayside.dataloader.strategies.strategy import Done, Load


def check_and_load(load: Load) -> Done:
    found = _found(load)
    cursor = found["greatest"]
    state = load.new_state(cursor, **found)
    known = load.state.extra if load.state is not None and not load.is_new else {}
    if found.items() <= known.items():
        return reconcile(load, Done(cursor=cursor))
    if not load.soft or load.is_new:
        return replace(_overwrite(load, state, found["count"]), deletes_checked_at=load.source.clock())
    columns = load.plan(replaced=False)
    read = load.stage(columns)
    if not is_believable(load, read, load.destination.rows()):
        return Done(cursor=cursor)
    return replace(merge_stage(load, columns, "true", [], state), deletes_checked_at=load.source.clock())


def _found(load: Load) -> dict[str, Any]:
    """What is looked at, as it is kept in the state."""
    greatest = load.source.bounds(load.cursor.column)[1] if load.cursor is not None else None
    text = load.cursor.text(greatest) if load.cursor is not None and greatest is not None else None
    return {"count": load.source.count(), "greatest": text, "capped_at": load.request.row_cap}


def _overwrite(load: Load, state: LoadState, count: int) -> Done:
    columns = load.plan(replaced=True)
    counted = load.source.snapshot and load.request.row_cap is None

    def checked(relation: str) -> LoadState:
        if counted and (given := load.scalar(f"SELECT count(*) FROM {relation}")) != count:  # noqa: S608  quoted
            raise CountMismatchError(
                f"{load.name}: the source counts {count} rows and gave {given}. Nothing was committed."
            )
        return state

    return Done(load.overwrite(columns, unique=False, state=checked), state.cursor, "full")
