"""SQL Server and Azure SQL, by mssql-python, which brings its own ODBC driver and gives Arrow by itself.

Where the database allows snapshot isolation every statement reads one state; several reads are of several states, so no
snapshot is told. Types come from what the server says that a statement returns, so tables, views and queries are alike.
"""

# ruff: noqa: S608 - identifiers are quoted by the dialect, values bound

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from quayside.dataloader.errors import DriverMissingError, SourceRefusedError
from quayside.dataloader.sources.dbapi import DbApiSource, columns_of
from quayside.dataloader.sources.dialect import Dialect
from quayside.dataloader.sources.drivers import as_table, meaning, needs_driver
from quayside.dataloader.sources.fields import PROTECTION, Field, whole
from quayside.foundation.errors import InputError, QuaysideError

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from quayside.dataloader.request import LoadRequest
    from quayside.dataloader.sources.arrow import ArrowTable
    from quayside.dataloader.sources.source import Predicate

FIELDS: Final = (
    Field("host", required=True),
    Field("port", default="1433"),
    Field("service_name", aliases=("database",)),
    Field("user", required=True),
    Field("password", required=True),
    Field("tenant_id"),
    Field("encrypt", plain=True, default="yes"),
    Field("trust_server_certificate", plain=True, default="no"),
    *PROTECTION,
)
_DENIED: Final = re.compile(
    r"login failed|cannot open (server|database)|invalid object name|invalid column name|permission was denied|"
    r"is not able to access the database|certificate verify failed|AADSTS|could not find stored procedure",
    re.IGNORECASE,
)
_LOST: Final = re.compile(
    r"timeout|timed out|TCP Provider|Named Pipes|network-related|communication link|connection is|08001|08S01|deadlock|"
    r"snapshot isolation transaction|not currently available|server is not found|could not open a connection|unable to complete login|"
    r"unable to connect|resource limit|in transition|actively refused|connection refused|unavailable|not accessible",
    re.IGNORECASE,
)
DIALECT: Final = Dialect("[", "]")

_log = logging.getLogger(__name__)


@contextmanager
def open(
    con: duckdb.DuckDBPyConnection, request: LoadRequest, fields: Mapping[str, str]
) -> Iterator[ArrowTable]:
    """Open the request's table or query; see `quayside.dataloader.sources.source.Source.open`."""
    source = request.db_config_key
    driver = needs_driver("mssql_python", "mssql", "mssql", source)
    database = request.source_catalog or fields.get("service_name")
    if not database:
        raise InputError(f"Source {source} names no database: set source_catalog, or the field service_name.")
    connection_string = connecting(source, database, fields)
    errors = (driver.Error, driver.exceptions.ConnectionStringParseError, OSError, RuntimeError)

    def explain(error: Exception) -> QuaysideError | None:
        if "failed to load the driver" in str(error).lower():
            return DriverMissingError(
                f"Source {source} is of db_type mssql, whose driver cannot be loaded: install the system's libraries that it "
                "needs (Debian and Ubuntu: libltdl7, libkrb5-3, libgssapi-krb5-2)."
            )
        return meaning(_plain(error), source, fields, _DENIED, _LOST) if isinstance(error, errors) else None

    def connect() -> Any:
        try:
            connection = driver.connect(
                connection_string, timeout=whole(source, fields, "connect_timeout_seconds")
            )
            connection.timeout = whole(source, fields, "statement_timeout_seconds")
            with closing(connection.cursor()) as cursor:
                cursor.execute("SELECT snapshot_isolation_state FROM sys.databases WHERE name = DB_NAME()")
                row = cursor.fetchone()
                connection.commit()
                if row is not None and row[0] == 1:
                    cursor.execute("SET TRANSACTION ISOLATION LEVEL SNAPSHOT")
                else:
                    _log.info("Database %s of source %s allows no snapshot isolation.", database, source)
        except errors as error:
            raise explain(error) or error from None
        return connection

    with closing(connect()) as connection:
        try:
            arrow = _describe(request, connection, connect, explain)
        except errors as error:
            raise explain(error) or error from None
        with as_table(con, request, arrow, whole(source, fields, "max_connections")) as table:
            yield table


class SqlServerSource(DbApiSource):
    """`quayside.dataloader.sources.arrow.ArrowSource`, by the driver's Arrow batches."""

    def bounds(self, column: str, where: Predicate) -> tuple[Any, Any]:
        # A rowversion arrives as a number, and its ends are wanted as numbers.
        condition, values = self.dialect.where(where)
        value = self.expressions.get(column, self.dialect.quote(column))
        least, greatest = self._row(
            f"SELECT MIN({value}), MAX({value}) FROM {self.relation}{condition}", values
        )
        return least, greatest

    def cancel(self, connection: Any) -> None:
        # The driver keeps this to itself, and does so where one of its readers is closed while it reads.
        for cursor in list(connection._cursors):
            if (handle := cursor.hstmt) is not None:
                handle._cancel()

    def bite(self, cursor: Any, size: int, schema: pa.Schema) -> pa.RecordBatch | None:
        batch = cursor.arrow_batch(size)
        return self.exact(batch, schema) if batch.num_rows else None


def connecting(source: str, database: str, fields: Mapping[str, str]) -> str:
    """The connection string, its values in braces.

    With a tenant the user is a service principal of Entra and the password its secret.
    """
    values = {
        "Server": f"tcp:{fields['host']},{whole(source, fields, 'port')}",
        "Database": database,
        "UID": f"{fields['user']}@{fields['tenant_id']}" if "tenant_id" in fields else fields["user"],
        "PWD": fields["password"],
        "Encrypt": fields["encrypt"],
        "TrustServerCertificate": fields["trust_server_certificate"],
        "ApplicationIntent": "ReadOnly",
        "ConnectRetryCount": "0",
    }
    if "tenant_id" in fields:
        values["Authentication"] = "ActiveDirectoryServicePrincipal"
    return ";".join(f"{key}={{{value.replace('}', '}}')}}}" for key, value in values.items())


def _describe(
    request: LoadRequest,
    connection: Any,
    connect: Callable[[], Any],
    explain: Callable[[Exception], QuaysideError | None],
) -> SqlServerSource:
    source = request.db_config_key
    keys: list[str] = []
    with closing(connection.cursor()) as cursor:
        cursor.execute("SELECT SYSUTCDATETIME(), SYSDATETIME()")
        now, local = cursor.fetchone()
        if request.query:
            name, relation = "the query", f"(\n{request.query.strip().rstrip(';')}\n) AS quayside_query"
        else:
            schema = request.source_schema_name or "dbo"
            name = f"{schema}.{request.source_table_name}"
            relation = f"{DIALECT.quote(schema)}.{DIALECT.quote(request.source_table_name)}"
            cursor.execute(
                "SELECT c.name FROM sys.indexes i JOIN sys.index_columns k ON k.object_id = i.object_id AND k.index_id = "
                "i.index_id JOIN sys.columns c ON c.object_id = k.object_id AND c.column_id = k.column_id WHERE "
                "i.is_primary_key = 1 AND i.object_id = OBJECT_ID(?) ORDER BY k.key_ordinal",
                [relation],
            )
            keys = [row[0] for row in cursor.fetchall()]
        cursor.execute(
            "SELECT name, system_type_name, user_type_name, is_nullable, error_message FROM "
            "sys.dm_exec_describe_first_result_set(?, NULL, 0) WHERE is_hidden = 0 OR is_hidden IS NULL ORDER BY column_ordinal",
            [f"SELECT * FROM {relation}"],
        )
        described = [tuple(row) for row in cursor.fetchall()]
    for *_, error in described:
        if error:
            raise explain(RuntimeError(error)) or SourceRefusedError(f"Source {source} refuses: {error}.")
    types = [(column, system or user or "unknown", bool(null)) for column, system, user, null, _ in described]
    columns = columns_of(
        source, name, [(*known, arrival(DIALECT.quote(known[0]), known[1])) for known in types]
    )
    return SqlServerSource(
        name=name,
        relation=relation,
        **columns,
        primary_key=keys,
        dialect=DIALECT,
        connection=connection,
        connect=connect,
        clocks=(_naive(now).replace(tzinfo=UTC), _naive(local)),
        explain=explain,
    )


def arrival(column: str, declared: str) -> tuple[pa.DataType, str | None] | None:
    """Arrow type and, where it is not the column itself, what selects it; None when it cannot arrive."""
    import pyarrow as pa

    kind, _, size = declared.lower().partition("(")
    if kind in ("decimal", "numeric"):
        precision, scale = (int(number) for number in re.findall(r"\d+", size))
        return pa.decimal128(precision, scale), None
    simple: dict[str, pa.DataType] = {
        "bit": pa.bool_(), "tinyint": pa.uint8(), "smallint": pa.int16(), "int": pa.int32(), "bigint": pa.int64(),
        "real": pa.float32(), "float": pa.float64(), "date": pa.date32(), "time": pa.time64("us"),
        "datetime": pa.timestamp("us"), "smalldatetime": pa.timestamp("us"), "datetime2": pa.timestamp("us"),
        "datetimeoffset": pa.timestamp("us", "UTC"), "uniqueidentifier": pa.large_string(),
        **{text: pa.large_string() for text in ("char", "varchar", "nchar", "nvarchar", "text", "ntext", "sysname")},
        **{data: pa.large_binary() for data in ("binary", "varbinary", "image")},
    }  # fmt: skip
    if kind in simple:
        return simple[kind], None
    selected: dict[str, tuple[pa.DataType, str]] = {
        "money": (pa.decimal128(19, 4), f"CAST({column} AS decimal(19,4))"),
        "smallmoney": (pa.decimal128(10, 4), f"CAST({column} AS decimal(10,4))"),
        "timestamp": (pa.int64(), f"CAST({column} AS bigint)"),
        "rowversion": (pa.int64(), f"CAST({column} AS bigint)"),
        "xml": (pa.large_string(), f"CAST({column} AS nvarchar(max))"),
        "json": (pa.large_string(), f"CAST({column} AS nvarchar(max))"),
        "vector": (pa.large_string(), f"CAST({column} AS nvarchar(max))"),
        "hierarchyid": (pa.large_string(), f"{column}.ToString()"),
        "geometry": (pa.large_binary(), f"{column}.STAsBinary()"),
        "geography": (pa.large_binary(), f"{column}.STAsBinary()"),
    }
    return selected.get(kind)


def _plain(error: Exception) -> str:
    """What the server said, without the driver's names before it."""
    text = str(getattr(error, "ddbc_error", "") or error)
    return re.sub(r"^(\s*\[[^\]]*\])+", "", text).strip() or str(error)


def _naive(value: Any) -> datetime:
    assert isinstance(value, datetime)
    return value.replace(tzinfo=None)
