"""ClickHouse over HTTP, by clickhouse-connect: its own Arrow stream, predicates as parameters that the server parses.

ClickHouse has no snapshot that several reads could share, and its primary key does not make rows unique, so none is told.
What Arrow has no type for travels as text, nested types as JSON; instants as UTC.
"""

# ruff: noqa: S608 - identifiers are quoted by the dialect, values bound

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from quayside.dataloader.errors import UnsupportedTypeError
from quayside.dataloader.sources.dialect import Dialect
from quayside.dataloader.sources.drivers import as_table, meaning, needs_driver
from quayside.dataloader.sources.fields import PROTECTION, Field, whole
from quayside.dataloader.sources.mark import mark, marked
from quayside.foundation.errors import QuaysideError

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from quayside.dataloader.request import LoadRequest
    from quayside.dataloader.sources.arrow import ArrowTable
    from quayside.dataloader.sources.ranges import Range
    from quayside.dataloader.sources.source import Predicate

FIELDS: Final = (
    Field("host", required=True),
    Field("port", default="8123"),
    Field("service_name", aliases=("database",), default="default"),
    Field("user", required=True),
    Field("password"),
    Field("secure", plain=True, default="false"),
    Field("ca_cert", plain=True),
    *PROTECTION,
)
_DENIED: Final = re.compile(
    r"AUTHENTICATION_FAILED|ACCESS_DENIED|NOT_ENOUGH_PRIVILEGES|UNKNOWN_(TABLE|DATABASE|IDENTIFIER|USER)|READONLY|Code: (47|60|81|164|192|497|516)\b"
)
_LOST: Final = re.compile(
    r"HTTPConnectionPool|HTTPSConnectionPool|Max retries|timed? ?out|TIMEOUT|Connection|NETWORK|TOO_MANY_|MEMORY_LIMIT|"
    r"QUERY_WAS_CANCELLED|IncompleteRead|HTTPDriver|Code: (159|202|209|210|241|394|425)\b",
    re.IGNORECASE,
)
_WRAPPED: Final = re.compile(r"(Nullable|LowCardinality)\((.*)\)", re.DOTALL)
_SIMPLE_AGGREGATE: Final = re.compile(r"SimpleAggregateFunction\([^,]+, (.*)\)", re.DOTALL)
_NUMBERS: Final = {
    **{f"{sign}Int{bits}": f"{sign.lower()}int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)},
    "Float32": "float32",
    "Float64": "float64",
    "Bool": "bool_",
}
_AS_TEXT: Final = ("Int128", "Int256", "UInt128", "UInt256", "Enum8", "Enum16", "UUID", "IPv4", "IPv6", "Interval", "Time", "Time64")  # fmt: skip
_AS_JSON: Final = ("Array", "Tuple", "Map", "Nested", "JSON", "Object", "Variant", "Dynamic", "Point", "Ring", "LineString",
                   "MultiLineString", "Polygon", "MultiPolygon", "Geometry")  # fmt: skip


class _Quotes(Dialect):
    def quote(self, name: str) -> str:
        # A backslash escapes inside of every quote of ClickHouse.
        return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


@contextmanager
def open(
    con: duckdb.DuckDBPyConnection, request: LoadRequest, fields: Mapping[str, str]
) -> Iterator[ArrowTable]:
    """Open the request's table or query; see `quayside.dataloader.sources.source.Source.open`."""
    source = request.db_config_key
    needs_driver("clickhouse_connect", "clickhouse", "clickhouse", source)
    connections = whole(source, fields, "max_connections")
    with (
        closing(ClickHouseSource(request, fields)) as arrow,
        as_table(con, request, arrow, connections) as table,
    ):
        yield table


def cancel(
    con: duckdb.DuckDBPyConnection, request: LoadRequest, fields: Mapping[str, str], load: str
) -> None:
    """End the statements of the clients marked `load`; see `quayside.dataloader.sources.registry.cancel`."""
    del con
    source = request.db_config_key
    brief = {**fields, "connect_timeout_seconds": "2", "statement_timeout_seconds": "5"}
    try:
        with closing(_client(source, brief, fields["application_name"])) as client:
            # A user may end statements of its own, also one that may only read.
            client.command(f"KILL QUERY WHERE http_user_agent LIKE '%{load}%' ASYNC")
    except Exception as error:  # noqa: BLE001  what `_meaning` does not know is raised as it is
        raise _meaning(error, source, fields) or error from None


class ClickHouseSource:
    """A table or query; `quayside.dataloader.sources.arrow.ArrowSource`."""

    snapshot = False
    primary_key: Sequence[str] = ()

    def __init__(self, request: LoadRequest, fields: Mapping[str, str]) -> None:
        import pyarrow as pa

        self._source = request.db_config_key
        self._fields = fields
        # DuckDB pulls on threads of its own, which have marks of theirs.
        self._name = marked(fields["application_name"], mark())
        self._client = self._connect()
        if request.query:
            self.name, self._from = "the query", f"(\n{request.query.strip().rstrip(';')}\n)"
        else:
            schema = request.source_schema_name or fields["service_name"]
            self.name = f"{schema}.{request.source_table_name}"
            self._from = f"{DIALECT.quote(schema)}.{DIALECT.quote(request.source_table_name)}"
        try:
            [(now, local)] = self._ask("SELECT toString(now64(6, 'UTC')), toString(now64(6))")
            self._clocks = datetime.fromisoformat(now).replace(tzinfo=UTC), datetime.fromisoformat(local)
            described = [row[:2] for row in self._ask(f"DESCRIBE TABLE {self._from}")]
            arrivals = [arrival(DIALECT.quote(name), type_) for name, type_ in described]
            for (name, type_), how in zip(described, arrivals, strict=True):
                if how is None:
                    raise UnsupportedTypeError(
                        f"Column {name!r} ({type_}) of {self.name} in source {self._source} is of a type that cannot "
                        "arrive: finalize or cast it in a query, or leave it out."
                    )
        except BaseException:
            self.close()
            raise
        self.source_types = [type_ for _, type_ in described]
        self._arrivals = {
            name: how for (name, _), how in zip(described, arrivals, strict=True) if how is not None
        }
        self.schema: pa.Schema = pa.schema(
            [pa.field(name, how.type, how.nullable) for name, how in self._arrivals.items()]
        )

    def close(self) -> None:
        self._client.close()

    def clock(self) -> datetime:
        return self._clocks[0]

    def local_clock(self) -> datetime:
        return self._clocks[1]

    def count(self, where: Predicate) -> int:
        condition, values = DIALECT.where(where)
        [(number,)] = self._ask(f"SELECT count() FROM {self._from}{condition}", values)
        return int(number)

    def bounds(self, column: str, where: Predicate) -> tuple[Any, Any]:
        condition, values = DIALECT.where(where)
        value = self._arrivals[column].expression
        # min() of no rows is nought.
        [ends] = self._ask(
            f"SELECT minOrNull({value}), maxOrNull({value}) FROM {self._from}{condition}", values
        )
        return ends[0], ends[1]

    def batches(
        self, columns: Sequence[str], where: Predicate, part: tuple[str, Range] | None
    ) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        schema = pa.schema([self.schema.field(name) for name in columns])
        # Numbered, since an alias of a column's own name would be meant by the condition.
        selected = ", ".join(f"{self._arrivals[name].expression} AS c{n}" for n, name in enumerate(columns))
        condition, values = DIALECT.where(where, part)
        with closing(self._connect()) as client:
            statement = f"SELECT {selected} FROM {self._from}{condition}"
            with client.query_arrow_stream(statement, _named(values), use_strings=True) as stream:
                for batch in stream:
                    yield self._exact(batch.rename_columns(list(columns)), schema)

    def explain(self, error: Exception) -> QuaysideError | None:
        return _meaning(error, self._source, self._fields)

    def _connect(self) -> Any:
        seconds = whole(self._source, self._fields, "statement_timeout_seconds")
        try:
            client = _client(self._source, self._fields, self._name)
            try:
                [(readonly,)] = client.query("SELECT getSetting('readonly')").result_rows
                if int(readonly) != 1:  # who may only read may not even say so
                    client.set_client_setting("max_execution_time", seconds)
                    client.set_client_setting("readonly", 2)
            except BaseException:
                client.close()
                raise
        except Exception as error:  # noqa: BLE001  what `explain` does not know is raised as it is
            raise self.explain(error) or error from None
        return client

    def _ask(self, statement: str, values: Sequence[Any] = ()) -> Sequence[Sequence[Any]]:
        try:
            return self._client.query(statement, _named(values)).result_rows
        except Exception as error:  # noqa: BLE001  what `explain` does not know is raised as it is
            raise self.explain(error) or error from None

    def _exact(self, batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
        import pyarrow as pa

        try:
            batch = batch.cast(schema)
            batch.validate(full=True)  # strings of ClickHouse are bytes
        except pa.ArrowInvalid as error:
            raise UnsupportedTypeError(
                f"{self.name} in source {self._source} holds a value that cannot arrive: {str(error).splitlines()[0]}. Text "
                "that is not UTF-8 can be read as hex(column) in a query."
            ) from None
        return batch


def _client(source: str, fields: Mapping[str, str], name: str) -> Any:
    """A client that the server's list of statements shows by this name."""
    import clickhouse_connect

    return clickhouse_connect.get_client(
        host=fields["host"],
        port=whole(source, fields, "port"),
        database=fields["service_name"],
        username=fields["user"],
        password=fields.get("password", ""),
        secure=fields["secure"] == "true",
        ca_cert=fields.get("ca_cert"),
        connect_timeout=whole(source, fields, "connect_timeout_seconds"),
        send_receive_timeout=whole(source, fields, "statement_timeout_seconds"),
        client_name=name,
        autogenerate_session_id=False,
        tz_mode="aware",
    )


def _meaning(error: Exception, source: str, fields: Mapping[str, str]) -> QuaysideError | None:
    from clickhouse_connect.driver.exceptions import ClickHouseError

    if isinstance(error, ClickHouseError):
        # The sentence that ends in the name of the error; what follows is the address and the version.
        return meaning(str(error).partition(" (for url")[0], source, fields, _DENIED, _LOST)
    if isinstance(error, OSError):  # the stream broke off
        return meaning(f"Connection: {error}", source, fields, _DENIED, _LOST)
    return None


@dataclass(frozen=True)
class Arrival:
    """Arrow type of a column, and what selects it."""

    type: pa.DataType
    expression: str
    nullable: bool


def arrival(column: str, declared: str) -> Arrival | None:
    """How a column of a declared type arrives; None when it cannot. `column` is quoted."""
    import pyarrow as pa

    plain, nullable = declared, False
    while match := _WRAPPED.fullmatch(plain) or _SIMPLE_AGGREGATE.fullmatch(plain):
        nullable, plain = nullable or match[1] == "Nullable", match[match.lastindex or 1]
    kind = re.split(r"[( ]", plain, maxsplit=1)[0]

    def as_(type_: pa.DataType, expression: str = column) -> Arrival:
        return Arrival(type_, expression, nullable)

    if kind in _NUMBERS:
        return as_(getattr(pa, _NUMBERS[kind])())
    if kind == "Decimal":
        precision, scale = (int(number) for number in re.findall(r"\d+", plain))
        if precision <= 38:
            return as_(pa.decimal128(precision, scale))
        return as_(pa.string(), f"toString({column})")
    if kind == "String":
        return as_(pa.string())
    if kind == "FixedString":
        return as_(pa.binary())
    if kind in ("Date", "Date32"):
        return as_(pa.date32(), f"toDate32({column})")
    if kind in ("DateTime", "DateTime64"):
        # An instant, whatever zone it is shown in. Digits beyond the sixth are cut off.
        return as_(pa.timestamp("us", "UTC"), f"toDateTime64({column}, 6, 'UTC')")
    if kind in _AS_TEXT or kind.startswith("Interval"):
        return as_(pa.string(), f"toString({column})")
    if kind in _AS_JSON:
        return Arrival(pa.string(), f"toJSONString({column})", nullable=True)
    return None


def _typed(placeholder: str, _column: str, value: Any) -> str:
    """A parameter with the type as which the server parses its text."""
    if isinstance(value, datetime):
        type_ = "DateTime64(6, 'UTC')"
    elif isinstance(value, date):
        type_ = "Date32"
    elif isinstance(value, Decimal):
        exponent = value.as_tuple().exponent
        type_ = f"Decimal(76, {max(0, -exponent) if isinstance(exponent, int) else 0})"
    elif isinstance(value, int):
        type_ = "Int64" if abs(value) < 2**63 else "Int256"
    else:
        type_ = "Float64" if isinstance(value, float) else "String"
    return f"{{{placeholder}:{type_}}}"


def _text(value: Any) -> Any:
    if isinstance(value, datetime):
        plain = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
        return plain.isoformat(sep=" ", timespec="microseconds")
    return format(value, "f") if isinstance(value, Decimal) else value


def _named(values: Sequence[Any]) -> dict[str, Any] | None:
    return {f"p{number}": value for number, value in enumerate(values, 1)} or None


DIALECT: Final = _Quotes("`", "`", placeholder=lambda number: f"p{number}", value=_text, parameter=_typed)
