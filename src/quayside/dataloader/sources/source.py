"""The protocol of sources: one table (or query) of one database, read on one consistent snapshot.

A source makes its rows available to a DuckDB connection as a relation, so that every strategy is written once, in
DuckDB's SQL. Two kinds exist: scanners (DuckDB reads the source itself, on several threads) and Arrow (the vendor's
driver gives record batches). Belongs here: quoting, predicates and clocks of dialects. Does not belong here: what a
strategy does with rows, and anything about destinations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import duckdb

    from quayside.dataloader.request import LoadRequest
    from quayside.dataloader.sources.fields import Field
    from quayside.foundation.errors import QuaysideError
    from quayside.foundation.settings import Settings

Operator = Literal["=", ">", ">=", "<", "<=", "is null", "is not null"]


@dataclass(frozen=True)
class Comparison:
    """``column operator value``; the value is bound or escaped by the dialect, never spliced in by a caller.

    ``value`` is an int, Decimal, str, date, or datetime (aware for columns with a zone, naive otherwise).
    """

    column: str
    operator: Operator
    value: Any = None


#: All of them hold.
Predicate = Sequence[Comparison]


@dataclass(frozen=True)
class Column:
    """A column as the source declares it, and the DuckDB type it arrives as."""

    name: str
    source_type: str
    type: str
    nullable: bool = True


@dataclass(frozen=True)
class Portions:
    """All rows of a table, cut into SELECTs that may be read at once.

    Attributes:
        selects: one for each portion.
        readers: how many of them may be read at once.
        join: has another cursor of the same DuckDB, in a transaction of its own, read what the table's other reads do.
    """

    selects: Sequence[str]
    readers: int
    join: Callable[[duckdb.DuckDBPyConnection], None]


class SourceTable(Protocol):
    """An open table of a source. Everything it answers belongs to one snapshot where the database can give one."""

    #: Whether DuckDB reads a relation of it on one thread, however many there are: the others would wait in a busy loop.
    one_stream: bool

    @property
    def columns(self) -> Sequence[Column]:
        """Columns in the source's order."""
        ...

    @property
    def primary_key(self) -> Sequence[str]:
        """Columns of the declared primary key, in order; empty where there is none or it is not known."""
        ...

    @property
    def snapshot(self) -> bool:
        """Whether several reads of this table see one consistent state."""
        ...

    def clock(self) -> datetime:
        """The source's own time, aware, as of the moment the table was opened (before any row was read)."""
        ...

    def local_clock(self) -> datetime:
        """The same moment as the naive local time that the source writes into columns without a zone."""
        ...

    def estimate(self) -> int | None:
        """About how many rows the table has, by the source's statistics and without counting; None = not known."""
        ...

    def count(self, where: Predicate = ()) -> int:
        """Number of rows, counted by the source."""
        ...

    def bounds(self, column: str, where: Predicate = ()) -> tuple[Any, Any]:
        """Least and greatest value of a column, as Python values; (None, None) without rows."""
        ...

    def relation(self, where: Predicate = (), columns: Sequence[str] | None = None) -> str:
        """SQL that stands behind FROM in the connection the table was opened on, with columns named as at the source.

        Call it inside the DuckDB transaction in which it is read, once for every read: that is where a scanner can
        take over the table's snapshot. Outside of one it is of the state at the moment it is read. It streams: nothing
        is materialized. A narrow `where` uses the source's index.
        """
        ...

    def explain(self, error: Exception) -> QuaysideError | None:
        """What an error means that DuckDB raised while `relation` was read; None when it is not about the source.

        A `SourceUnavailableError` may pass by itself; a `SourceRefusedError`, `UnsupportedTypeError` or `InputError`
        will not.
        """
        ...


@runtime_checkable
class Divisible(Protocol):
    """A `SourceTable` that can be read in portions."""

    def portions(self, rows: int) -> Portions | None:
        """Portions of about `rows` rows each; None where the table is small or cannot be cut."""
        ...


@runtime_checkable
class Counting(Protocol):
    """A `SourceTable` that knows how many rows its reads have given while they run."""

    def passed(self) -> int | None:
        """Rows given so far by the reads that are running now; None = cannot be told at the moment. From any thread."""
        ...

    def settle(self) -> None:
        """The load has counted what was read until now: it is to be left out."""
        ...


@runtime_checkable
class Interruptible(Protocol):
    """A `SourceTable` whose driver can be told to let go of a statement."""

    def interrupt(self) -> None:
        """Have running reads end with an error. From any thread."""
        ...


class Source(Protocol):
    """How tables of one ``db_type`` are opened: a module of this room, found by the registry."""

    #: The connection fields, as ``db_config_value`` has them.
    FIELDS: Sequence[Field]

    def open(
        self, con: duckdb.DuckDBPyConnection, request: LoadRequest, fields: Mapping[str, str]
    ) -> AbstractContextManager[SourceTable]:
        """Connect with the resolved connection `fields` and open the request's table or query, read-only.

        Raises:
            SourceUnavailableError, SourceRefusedError, UnsupportedTypeError, DriverMissingError.
        """
        ...


def open_source(
    settings: Settings, con: duckdb.DuckDBPyConnection, request: LoadRequest
) -> AbstractContextManager[SourceTable]:
    """Open what a request names: the source of its ``db_type``, with its secrets resolved here and nowhere else."""
    from quayside.dataloader.sources import registry

    return registry.open_source(settings, con, request)
