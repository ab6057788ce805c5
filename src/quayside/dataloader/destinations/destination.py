"""The protocol of destinations: one table, changed by atomic commits that carry the state of the load.

Rows come as a DuckDB relation (SQL that stands behind FROM in the destination's own connection). Every method that
changes the table is one atomic commit; the load's `LoadState` is part of that commit, so that data and cursor cannot
part. Each takes a `Fence`, held from the last look at the control row until the commit is through.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class LoadState:
    """What a commit says about the load that made it.

    Attributes:
        config_id, attempt: whose commit it is.
        cursor: the new cursor as text, None without one.
        boundary: for append_only: digests of the keys of the rows at exactly the cursor.
        extra: what else a strategy has to remember (the progress of a backfill …), as JSON values.
    """

    config_id: int
    attempt: int
    cursor: str | None = None
    boundary: Sequence[str] = ()
    extra: dict[str, Any] = field(default_factory=dict)


class Fence(Protocol):
    """Whoever may say that an attempt was given up: in production the control row."""

    def hold(self) -> AbstractContextManager[None]:
        """While held, the attempt cannot be given up. Raises FencedError when it has been already."""
        ...

    def check(self) -> None:
        """Raise FencedError when the attempt was given up, CancelledError when it was told to stop. Cheap."""
        ...


@dataclass(frozen=True)
class Written:
    """What one commit changed, counted from the destination's own record of the commit and not from what was sent."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    bytes: int = 0


class Destination(Protocol):
    """One destination table. `con` is the connection in which sources are opened and rows staged."""

    @property
    def con(self) -> duckdb.DuckDBPyConnection: ...

    def columns(self) -> dict[str, str] | None:
        """Column → DuckDB type of the current table; None when it does not exist."""
        ...

    def state(self) -> LoadState | None:
        """The state that the table's last commit of this config carries; None when it never had one."""
        ...

    def rows(self) -> int:
        """Rows of the current table, soft-deleted ones not counted."""
        ...

    # The methods that change the table (overwrite, append, merge, delete …) are defined with the strategies that
    # need them: see ducklake.py and delta.py.
