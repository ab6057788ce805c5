"""An `ArrowSource` of any driver that keeps to the DB-API: rows are fetched in bites and made into batches.

A vendor's module connects, describes the columns and says its `Dialect`; everything else is here. A driver that gives
Arrow by itself overrides `fetch`.
"""

# ruff: noqa: S608 - identifiers are quoted by the dialect, values bound

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypedDict

from quayside.dataloader.errors import UnsupportedTypeError
from quayside.dataloader.sources.arrow import BATCH_BYTES
from quayside.dataloader.sources.dialect import Dialect
from quayside.dataloader.sources.ranges import Range
from quayside.dataloader.sources.source import Predicate

if TYPE_CHECKING:
    import pyarrow as pa

    from quayside.foundation.errors import QuaysideError

_FIRST_ROWS: Final = 100
_MOST_ROWS: Final = 50_000


class Columns(TypedDict):
    """What a source is made with of the columns that a vendor's database describes."""

    schema: pa.Schema
    source_types: list[str]
    expressions: dict[str, str]


def columns_of(
    source: str, name: str, described: Iterable[tuple[str, str, bool, tuple[pa.DataType, str | None] | None]]
) -> Columns:
    """Of each column its name, declared type and whether it may be null; then the type it arrives as and what selects it.

    Raises:
        UnsupportedTypeError: the last is None: the column cannot arrive.
    """
    import pyarrow as pa

    fields: list[pa.Field] = []
    shown: list[str] = []
    expressions: dict[str, str] = {}
    for column, declared, nullable, arrival in described:
        if arrival is None:
            raise UnsupportedTypeError(
                f"Column {column!r} ({declared}) of {name} in source {source} is of a type that cannot arrive: cast it "
                "in a query, or leave it out."
            )
        type_, expression = arrival
        fields.append(pa.field(column, type_, nullable))
        shown.append(declared)
        if expression is not None:
            expressions[column] = expression
    return {"schema": pa.schema(fields), "source_types": shown, "expressions": expressions}


class DbApiSource:
    """A table or query of a DB-API database; `quayside.dataloader.sources.arrow.ArrowSource`.

    `connect` opens one more connection, read-only, for each part of a partitioned read; the first is `connection`, on
    which everything else is asked. `relation` stands behind FROM, quoted. `explain` classifies the driver's errors.
    """

    snapshot = False

    def __init__(
        self,
        *,
        name: str,
        relation: str,
        schema: pa.Schema,
        source_types: Sequence[str],
        primary_key: Sequence[str],
        dialect: Dialect,
        connection: Any,
        connect: Callable[[], Any],
        clocks: tuple[datetime, datetime],
        explain: Callable[[Exception], QuaysideError | None],
        expressions: dict[str, str] | None = None,
    ) -> None:
        """`clocks`: the source's time, aware, and its local time, naive. `expressions`: column → what selects it."""
        self.name = name
        self.schema = schema
        self.source_types = source_types
        self.primary_key = primary_key
        self.relation = dialect.text(relation)
        self.dialect = dialect
        self._connection = connection
        self.connect = connect
        self._clocks = clocks
        self._explain = explain
        self.expressions = expressions or {}
        self._reading: list[Any] = []

    def clock(self) -> datetime:
        return self._clocks[0]

    def local_clock(self) -> datetime:
        return self._clocks[1]

    def count(self, where: Predicate) -> int:
        condition, values = self.dialect.where(where)
        [number] = self._row(f"SELECT COUNT(*) FROM {self.relation}{condition}", values)
        return int(number)

    def bounds(self, column: str, where: Predicate) -> tuple[Any, Any]:
        condition, values = self.dialect.where(where)
        name = self.dialect.quote(column)
        least, greatest = self._row(
            f"SELECT MIN({name}), MAX({name}) FROM {self.relation}{condition}", values
        )
        return least, greatest

    def batches(
        self, columns: Sequence[str], where: Predicate, part: tuple[str, Range] | None
    ) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        schema = pa.schema([self.schema.field(name) for name in columns])
        selected = ", ".join(self.expressions.get(name, self.dialect.quote(name)) for name in columns)
        condition, values = self.dialect.where(where, part)
        # A connection of its own: a driver that streams can do nothing else on it meanwhile.
        with self.reading() as connection, closing(self.cursor(connection)) as cursor:
            cursor.execute(f"SELECT {selected} FROM {self.relation}{condition}", values)
            yield from self.fetch(cursor, schema)

    def explain(self, error: Exception) -> QuaysideError | None:
        return self._explain(error)

    @contextmanager
    def reading(self) -> Iterator[Any]:
        """One more connection, which `interrupt` knows of."""
        with closing(self.connect()) as connection:
            self._reading.append(connection)
            try:
                yield connection
            finally:
                self._reading.remove(connection)

    def interrupt(self) -> None:
        """Tell what is being read to end, where the driver has a way; otherwise it ends with its next bite."""
        for connection in [self._connection, *self._reading]:
            self.cancel(connection)

    def cancel(self, connection: Any) -> None:
        """Tell a connection to end its statement, from another thread; a driver that can overrides this."""

    def cursor(self, connection: Any) -> Any:
        """A cursor that does not hold the whole result; a driver that needs to be told so overrides this."""
        return connection.cursor()

    def fetch(self, cursor: Any, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """The cursor's rows as batches of some `BATCH_BYTES`."""
        size = _FIRST_ROWS
        while batch := self.bite(cursor, size, schema):
            yield batch
            per_row = max(1, batch.nbytes // batch.num_rows)
            size = max(1, min(_MOST_ROWS, BATCH_BYTES // per_row, size * 10))

    def bite(self, cursor: Any, size: int, schema: pa.Schema) -> pa.RecordBatch | None:
        """At most `size` rows; None at the end. A driver that gives Arrow by the bite overrides this."""
        rows = cursor.fetchmany(size)
        return self.batch(rows, schema) if rows else None

    def batch(self, rows: Sequence[Sequence[Any]], schema: pa.Schema) -> pa.RecordBatch:
        """Rows as one batch.

        Raises:
            UnsupportedTypeError: a value does not fit its column exactly; the column is named.
        """
        import pyarrow as pa

        return self._made(schema, zip(*rows, strict=True), lambda values, type_: pa.array(values, type_))

    def exact(self, batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
        """A driver's own batch with the schema's types; digits of a time beyond the sixth are cut off, and nothing else.

        Raises:
            UnsupportedTypeError: as `batch` does.
        """
        import pyarrow as pa

        def cast(array: Any, type_: pa.DataType) -> pa.Array:
            temporal = pa.types.is_temporal(type_) and pa.types.is_temporal(array.type)
            return array.cast(type_, safe=not temporal)

        return self._made(schema, batch.columns, cast)

    def _made(
        self, schema: pa.Schema, columns: Iterable[Any], make: Callable[[Any, pa.DataType], pa.Array]
    ) -> pa.RecordBatch:
        import pyarrow as pa

        arrays = []
        for field, values in zip(schema, columns, strict=True):
            try:
                arrays.append(make(values, field.type))
            except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError) as error:
                shown = self.source_types[self.schema.names.index(field.name)]
                raise UnsupportedTypeError(
                    f"Column {field.name!r} ({shown}) of {self.name} holds a value that is no {field.type}: "
                    f"{str(error).splitlines()[0]}. Cast it to text in a query."
                ) from None
        return pa.record_batch(arrays, schema=schema)

    def _row(self, statement: str, values: Sequence[Any]) -> Sequence[Any]:
        with closing(self._connection.cursor()) as cursor:
            try:
                cursor.execute(statement, values)
                return cursor.fetchone()
            except Exception as error:
                meaning = self._explain(error)
                if meaning is None:
                    raise
                raise meaning from None
