"""Oracle, by python-oracledb in its thin mode (no client to install), which gives Arrow by itself.

A table is read as of one system change number where the user may (flashback), on every connection; otherwise, and for a
query, each read is a state of its own. Every connection is in a read-only transaction. Types come from the server's own
description, so that declared precision survives; what has none travels as text.
"""

# ruff: noqa: S608 - identifiers are quoted by the dialect, values bound

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Final

from quayside.dataloader.sources.arrow import BATCH_BYTES
from quayside.dataloader.sources.dbapi import DbApiSource, columns_of
from quayside.dataloader.sources.dialect import Dialect
from quayside.dataloader.sources.drivers import as_table, meaning, needs_driver
from quayside.dataloader.sources.fields import PROTECTION, Field, whole
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
    Field("port", default="1521"),
    Field("service_name", required=True),
    Field("user", required=True),
    Field("password", required=True),
    Field("protocol", plain=True, default="tcp"),
    *PROTECTION,
)
_DENIED: Final = re.compile(
    r"ORA-(00904|00942|01005|01017|01031|01045|01435|04043|28000|28001|41900|01456|16000)\b|DPY-(4001|4027)\b"
)
_LOST: Final = re.compile(
    r"DPY-(1001|4011|4024|4033|6000|6001|6002|6003|6005|6006)\b|TNS|"
    r"ORA-(00018|00020|00028|01013|01033|01034|01089|01090|01092|01555|02396|03113|03114|03135|12[15]\d\d|30006|08181)\b"
)
#: Rows of a batch: the driver reserves the widest value for each of them.
_MOST_ROWS: Final = 20_000
_LOB_BYTES: Final = 16_384
_SESSION: Final = (
    "ALTER SESSION SET TIME_ZONE = '+00:00' NLS_NUMERIC_CHARACTERS = '.,' NLS_COMP = BINARY NLS_SORT = BINARY"
)

_log = logging.getLogger(__name__)


@contextmanager
def open(
    con: duckdb.DuckDBPyConnection, request: LoadRequest, fields: Mapping[str, str]
) -> Iterator[ArrowTable]:
    """Open the request's table or query; see `quayside.dataloader.sources.source.Source.open`."""
    source = request.db_config_key
    oracledb = needs_driver("oracledb", "oracle", "oracle", source)

    def explain(error: Exception) -> QuaysideError | None:
        known = isinstance(error, oracledb.Error | OSError)
        return meaning(str(error), source, fields, _DENIED, _LOST) if known else None

    def connect() -> Any:
        try:
            connection = oracledb.connect(
                user=fields["user"],
                password=fields["password"],
                host=fields["host"],
                port=whole(source, fields, "port"),
                service_name=request.source_catalog or fields["service_name"],
                protocol=fields["protocol"],
                tcp_connect_timeout=whole(source, fields, "connect_timeout_seconds"),
                retry_count=0,
                program=re.sub(
                    r"[^A-Za-z0-9.-]+", "_", fields["application_name"]
                ),  # the driver refuses blanks
            )
            connection.call_timeout = whole(source, fields, "statement_timeout_seconds") * 1000
            with connection.cursor() as cursor:
                cursor.execute(_SESSION)
                cursor.execute("SET TRANSACTION READ ONLY")
        except (oracledb.Error, OSError) as error:
            raise explain(error) or error from None
        return connection

    with closing(connect()) as connection:
        try:
            arrow = _describe(request, connection, connect, explain)
        except (oracledb.Error, OSError) as error:
            raise explain(error) or error from None
        with as_table(con, request, arrow, whole(source, fields, "max_connections")) as table:
            yield table


class OracleSource(DbApiSource):
    """`quayside.dataloader.sources.arrow.ArrowSource`, by the driver's data frames."""

    batch_rows: int

    def batches(
        self, columns: Sequence[str], where: Predicate, part: tuple[str, Range] | None
    ) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        schema = pa.schema([self.schema.field(name) for name in columns])
        # Instants come as their time in UTC, without a zone.
        asked = pa.schema(
            [
                pa.field(f"C{n}", pa.timestamp("us") if _zoned(f.type) else f.type)
                for n, f in enumerate(schema)
            ]
        )
        selected = ", ".join(
            f"{self.expressions.get(name, self.dialect.quote(name))} AS C{n}"
            for n, name in enumerate(columns)
        )
        condition, values = self.dialect.where(where, part)
        statement = f"SELECT {selected} FROM {self.relation}{condition}"
        with self.reading() as connection:
            for frame in connection.fetch_df_batches(
                statement, list(values), size=self.batch_rows, requested_schema=asked
            ):
                found: pa.Table = pa.table(frame).rename_columns(list(columns)).cast(schema)
                yield from found.to_batches()

    def cancel(self, connection: Any) -> None:
        connection.cancel()


def _describe(
    request: LoadRequest,
    connection: Any,
    connect: Callable[[], Any],
    explain: Callable[[Exception], QuaysideError | None],
) -> OracleSource:
    import pyarrow as pa

    source = request.db_config_key
    with connection.cursor() as cursor:
        cursor.execute("SELECT SYS_EXTRACT_UTC(SYSTIMESTAMP), CAST(SYSTIMESTAMP AS TIMESTAMP) FROM DUAL")
        now, local = cursor.fetchone()
        snapshot, keys = False, []
        if request.query:
            name, relation = "the query", f"(\n{request.query.strip().rstrip(';')}\n) quayside_query"
        else:
            cursor.execute("SELECT SYS_CONTEXT('USERENV', 'CURRENT_SCHEMA') FROM DUAL")
            schema = request.source_schema_name or cursor.fetchone()[0]
            name = f"{schema}.{request.source_table_name}"
            relation = f"{QUOTES.quote(schema)}.{QUOTES.quote(request.source_table_name)}"
            keys = _primary_key(cursor, schema, request.source_table_name)
            past = _as_of(cursor, relation)
            snapshot = past is not None
            if past is None:
                _log.info("%s of source %s cannot be read as of one moment (no flashback).", name, source)
            else:
                relation = past
        cursor.execute(f"SELECT * FROM {relation} WHERE 1 = 0")
        described = list(cursor.description)
    columns = columns_of(
        source,
        name,
        [
            (
                c.name,
                declaration(c.type_code.name, c.precision, c.scale),
                c.null_ok is not False,
                arrival(QUOTES.quote(c.name), c.type_code.name, c.precision, c.scale),
            )
            for c in described
        ],
    )
    width = sum(
        _LOB_BYTES
        if pa.types.is_large_string(field.type) or pa.types.is_large_binary(field.type)
        else max(32, c.internal_size or 0)
        for field, c in zip(columns["schema"], described, strict=True)
    )
    dates = {column.name for column in described if column.type_code.name == "DB_TYPE_DATE"}
    arrow = OracleSource(
        name=name,
        relation=relation,
        **columns,
        primary_key=keys,
        dialect=dialect(dates),
        connection=connection,
        connect=connect,
        clocks=(now.replace(tzinfo=UTC), local),
        explain=explain,
    )
    arrow.snapshot = snapshot
    arrow.batch_rows = max(100, min(_MOST_ROWS, BATCH_BYTES // max(1, width)))
    return arrow


def _as_of(cursor: Any, relation: str) -> str | None:
    """The table as of now, on every connection; None where this user or this kind of table has no flashback."""
    import oracledb

    for ask in (
        "SELECT DBMS_FLASHBACK.GET_SYSTEM_CHANGE_NUMBER FROM DUAL",
        "SELECT CURRENT_SCN FROM V$DATABASE",
    ):
        try:
            cursor.execute(ask)
            past = f"{relation} AS OF SCN {int(cursor.fetchone()[0])}"
            cursor.execute(f"SELECT 1 FROM {past} WHERE 1 = 0")
        except oracledb.DatabaseError as error:
            if _LOST.search(str(error)):
                raise
            continue
        return past
    return None


def _primary_key(cursor: Any, schema: str, table: str) -> list[str]:
    cursor.execute(
        "SELECT c.column_name FROM all_constraints k JOIN all_cons_columns c ON c.owner = k.owner AND c.constraint_name "
        "= k.constraint_name AND c.table_name = k.table_name WHERE k.owner = :1 AND k.table_name = :2 AND "
        "k.constraint_type = 'P' ORDER BY c.position",
        [schema, table],
    )
    return [row[0] for row in cursor.fetchall()]


def declaration(kind: str, precision: int | None, scale: int | None) -> str:
    """A type in words."""
    plain = kind.removeprefix("DB_TYPE_").lower().replace("_", " ")
    return f"{plain}({precision},{scale})" if kind == "DB_TYPE_NUMBER" and precision else plain


def arrival(
    column: str, kind: str, precision: int | None, scale: int | None
) -> tuple[pa.DataType, str | None] | None:
    """Arrow type and, where it is not the column itself, what selects it; None when it cannot arrive.

    `precision` and `scale` as the driver tells them: a number that declares neither has the scale -127, or None for both.
    """
    import pyarrow as pa

    kind = kind.removeprefix("DB_TYPE_")
    if kind == "NUMBER":
        digits, places = precision or 38, -127 if precision is None and scale is None else scale or 0
        if places < 0 and places != -127:
            digits, places = digits - places, 0
        if places == -127 or max(digits, places) > 38:
            # No decimal holds every value, and a double loses digits.
            return pa.string(), f"TO_CHAR({column}, 'TM9')"
        if places == 0 and digits <= 18:
            return pa.int64(), None
        return pa.decimal128(max(digits, places), places), None
    simple: dict[str, pa.DataType] = {
        "BINARY_DOUBLE": pa.float64(), "BINARY_FLOAT": pa.float32(), "BOOLEAN": pa.bool_(), "VARCHAR": pa.string(),
        "NVARCHAR": pa.string(), "CHAR": pa.string(), "NCHAR": pa.string(), "LONG": pa.large_string(),
        "LONG_NVARCHAR": pa.large_string(), "CLOB": pa.large_string(), "NCLOB": pa.large_string(), "RAW": pa.binary(),
        "LONG_RAW": pa.large_binary(), "BLOB": pa.large_binary(), "DATE": pa.timestamp("us"), "TIMESTAMP": pa.timestamp("us"),
    }  # fmt: skip
    if kind in simple:
        return simple[kind], None
    selected: dict[str, tuple[pa.DataType, str]] = {
        "TIMESTAMP_TZ": (pa.timestamp("us", "UTC"), f"SYS_EXTRACT_UTC({column})"),
        "TIMESTAMP_LTZ": (
            pa.timestamp("us", "UTC"),
            f"SYS_EXTRACT_UTC(CAST({column} AS TIMESTAMP(9) WITH TIME ZONE))",
        ),
        "INTERVAL_DS": (pa.string(), f"TO_CHAR({column})"),
        "INTERVAL_YM": (pa.string(), f"TO_CHAR({column})"),
        "ROWID": (pa.string(), f"ROWIDTOCHAR({column})"),
        "UROWID": (pa.string(), f"ROWIDTOCHAR({column})"),
        "JSON": (pa.large_string(), f"JSON_SERIALIZE({column} RETURNING CLOB)"),
        "XMLTYPE": (pa.large_string(), f"XMLSERIALIZE(CONTENT {column} AS CLOB)"),
        "VECTOR": (pa.large_string(), f"VECTOR_SERIALIZE({column} RETURNING CLOB)"),
    }
    return selected.get(kind)


def dialect(dates: set[str] | frozenset[str] = frozenset()) -> Dialect:
    """The dialect of a table whose columns `dates` are of the type DATE, which has an index only as itself."""

    def parameter(placeholder: str, column: str, value: Any) -> str:
        if isinstance(value, datetime) and value.tzinfo is not None:
            return f"FROM_TZ(CAST({placeholder} AS TIMESTAMP), 'UTC')"
        if column in dates and isinstance(value, datetime) and value.microsecond == 0:
            return f"CAST({placeholder} AS DATE)"
        return placeholder

    return Dialect('"', '"', placeholder=lambda number: f":p{number}", value=_value, parameter=parameter)


def _value(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
    return datetime(value.year, value.month, value.day) if isinstance(value, date) else value  # noqa: DTZ001  a date


def _zoned(type_: pa.DataType) -> bool:
    import pyarrow as pa

    return pa.types.is_timestamp(type_) and type_.tz is not None


QUOTES: Final = dialect()
