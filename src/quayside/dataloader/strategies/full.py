"""``full``: the whole table, one atomic overwrite. Other strategies begin with it."""

from __future__ import annotations

from quayside.dataloader.destinations.destination import LoadState
from quayside.dataloader.strategies.strategy import Done, Load


def full(load: Load) -> Done:
    columns = load.plan(replaced=True)
    return Done(load.overwrite(columns, unique=False, state=lambda _: load.new_state()), strategy="full")


def first(load: Load) -> Done:
    """Everything, with the cursor that the next load goes on from."""
    columns = load.plan(replaced=True)
    cursor: list[str | None] = []

    def state(relation: str) -> LoadState:
        cursor[:] = [load.cursor_of(relation, columns) if load.cursor is not None else None]
        return load.new_state(cursor[0])

    written = load.overwrite(columns, unique=True, state=state)
    return Done(written, cursor[0], "full", deletes_checked_at=load.source.clock())
