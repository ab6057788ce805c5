"""The protocol of destinations: one table, changed by atomic commits that carry the state of the load.

Rows come as SQL in the destination's own connection. Every method that changes the table is one atomic commit; the
load's `LoadState` is part of that commit, so that data and cursor cannot part. Each takes a `Fence`, held from the last
look at the control row until the commit is through, and counts what it wrote against what was read before it commits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

if TYPE_CHECKING:
    import duckdb

    from quayside.dataloader.request import LoadRequest
    from quayside.dataloader.sources.source import Portions
    from quayside.foundation.settings import Settings

#: Columns that mark rows which are gone at the source, where ``delete_mode`` is soft.
IS_DELETE: Final = "is_delete"
DELETED_AT: Final = "deleted_at"
SOFT_DELETE_COLUMNS: Final[dict[str, str]] = {
    IS_DELETE: "BOOLEAN",
    DELETED_AT: "TIMESTAMP WITH TIME ZONE",
}


@dataclass(frozen=True)
class LoadState:
    """What a commit says about the load that made it.

    Attributes:
        config_id, attempt: whose commit it is.
        cursor: the new cursor as text, None without one.
        boundary: for append_only: digests of the keys of the rows at or above the cursor.
        extra: what else a strategy has to remember (the progress of a backfill …), as JSON values.
    """

    config_id: int
    attempt: int
    cursor: str | None = None
    boundary: Sequence[str] = ()
    extra: dict[str, Any] = field(default_factory=dict)


#: Called after the rows were written and before the commit, with what stands behind FROM for the table as it will be.
StateOf = Callable[[str], LoadState]


class Fence(Protocol):
    """Whoever may say that an attempt was given up: in production the control row."""

    def hold(self) -> AbstractContextManager[None]:
        """While held, the attempt cannot be given up. Raises FencedError when it has been already."""
        ...

    def check(self) -> None:
        """Raise FencedError when the attempt was given up, CancelledError when it was told to stop. Cheap."""
        ...


@dataclass(frozen=True)
class Rows:
    """Rows to write.

    Attributes:
        columns: column → stored type of the whole table after the commit, in order. A column the table lacks is added;
            one whose type is narrower is widened; one that is not named stays as it is (and goes with an overwrite).
        given: the columns that `select` gives, in its order. Others are null in new rows and stay in updated ones.
        select: a SELECT of exactly `given`, in the types of `columns`. It reads anew at each call, since a commit that
            met a conflict is tried again.
        one_stream: whether DuckDB reads them on one thread, however many there are.
        portions: the same rows as several SELECTs, for whoever can write them apart; None where they are not cut.
        written: told how many rows of the portions are written so far, from any thread.
    """

    columns: Mapping[str, str]
    given: Sequence[str]
    select: Callable[[], str]
    one_stream: bool = False
    portions: Callable[[], Portions | None] = lambda: None
    written: Callable[[int], None] = lambda rows: None


@dataclass(frozen=True)
class Removed:
    """Rows to remove: those whose key is in `keys`, a relation of exactly the key's columns.

    `at` = None removes them; otherwise they are marked with SOFT_DELETE_COLUMNS, `deleted_at` = `at`, where they are not
    marked already.
    """

    keys: str
    at: datetime | None = None


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

    @property
    def name(self) -> str:
        """How messages call the table."""
        ...

    def stored_type(self, type_: str) -> str:
        """The type a column of DuckDB type `type_` is stored as: the same one, where the format has it.

        Raises:
            UnsupportedTypeError: the format can hold it in no way.
        """
        ...

    def columns(self) -> dict[str, str] | None:
        """Column → DuckDB type of the current table; None when it does not exist."""
        ...

    def state(self) -> LoadState | None:
        """The state that the table's last commit of this config carries; None when it never had one, or no table."""
        ...

    def rows(self) -> int:
        """Rows of the current table, soft-deleted ones not counted; 0 when it does not exist."""
        ...

    def relation(self) -> str:
        """What stands behind FROM to read the current table, which has to exist."""
        ...

    def overwrite(self, rows: Rows, state: StateOf, fence: Fence) -> Written:
        """Replace the whole table, columns included. Readers see the old table until they see the new one."""
        ...

    def append(self, rows: Rows, state: StateOf, fence: Fence) -> Written:
        """Add rows; the table is made where it is missing."""
        ...

    def merge(
        self,
        rows: Rows,
        key: Sequence[str],
        state: StateOf,
        fence: Fence,
        *,
        compare: bool = True,
        removed: Removed | None = None,
    ) -> Written:
        """Update rows by `key` and insert the others, and remove `removed`, in one commit. The table exists.

        Keys of `rows` are unique and hold no null; no key is in both. With `compare`, stored rows that equal the new
        ones are left alone (and not counted as updated); without, all of them are written.
        """
        ...

    def record(self, state: LoadState, fence: Fence) -> None:
        """Commit a state alone."""
        ...

    def sibling(self, suffix: str) -> Self:
        """Another table beside this one, named with `suffix`: the shadow of a backfill."""
        ...

    def replace_with(self, shadow: Self, state: StateOf, fence: Fence) -> Written:
        """Put `shadow`, a `sibling`, in the place of this table (which may be missing) in one commit; the shadow is gone.

        `Written.inserted` are the rows of the shadow.
        """
        ...

    def drop(self, fence: Fence) -> None:
        """Remove the table, where it exists."""
        ...


def open_destination(settings: Settings, con: duckdb.DuckDBPyConnection, request: LoadRequest) -> Destination:
    """The table a request names: a Delta table where the catalog is ``delta`` or begins with ``delta_``, else DuckLake.

    `con` is a connection of the settings' lake (`Lake.connect`), or a cursor of one.
    """
    catalog = request.destination_catalog
    if catalog == "delta" or catalog.startswith("delta_"):
        from quayside.dataloader.destinations.delta import DeltaDestination

        return DeltaDestination(settings, con, request)
    from quayside.dataloader.destinations.ducklake import DuckLakeDestination

    return DuckLakeDestination(settings, con, request)
