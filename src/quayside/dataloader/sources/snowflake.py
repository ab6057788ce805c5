"""Snowflake, by its connector: ``snowflake`` signs in with a password, ``snowflake_pem`` with a key pair.

A table is read as of the moment it was opened, where its time travel allows that, so that all reads are of one state; a
query, or a view without, is read as it is. Types come from the server's description of the statement.
"""

# ruff: noqa: S608 - identifiers are quoted by the dialect, values bound

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from quayside.dataloader.sources.dbapi import DbApiSource, columns_of
from quayside.dataloader.sources.dialect import Dialect
from quayside.dataloader.sources.drivers import as_table, meaning, needs_driver
from quayside.dataloader.sources.fields import PROTECTION, Field, whole
from quayside.dataloader.sources.mark import marked
from quayside.foundation.errors import InputError, QuaysideError

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from quayside.dataloader.request import LoadRequest
    from quayside.dataloader.sources.arrow import ArrowTable

FIELDS: Final = (
    Field("url", required=True, aliases=("account", "host")),
    Field("port", default="443"),
    Field("user", required=True),
    Field("password"),
    Field("pem_private_key"),
    Field("pem_passphrase"),
    Field("service_name", required=True, aliases=("database",)),
    Field("warehouse", required=True),
    Field("role", plain=True),
    *PROTECTION,
)
#: What each ``db_type`` signs in with.
KEYS: Final = {"snowflake": "password", "snowflake_pem": "pem_private_key"}
_DENIED: Final = re.compile(
    r"incorrect username or password|does not exist|not authorized|insufficient privileges|JWT token is invalid|"
    r"invalid identifier|user is (locked|disabled)|390100|390144|002003|000904|003001|private key|no active warehouse",
    re.IGNORECASE,
)
_LOST: Final = re.compile(
    r"timed? ?out|timeout|connect|network|transport|000014|HYT00|08\d{3}|temporar|unavailable|50[0-4]|throttl|429|000604|cancel",
    re.IGNORECASE,
)
_ACCOUNT: Final = re.compile(r"([^.]+(?:\.[^.]+)*?)\.snowflakecomputing\.(?:com|cn)", re.IGNORECASE)
DIALECT: Final = Dialect('"', '"')

#: Statements of a tag that have not ended. Whoever asks has a tag of its own.
_RUNNING: Final = (
    "SELECT query_id FROM TABLE(INFORMATION_SCHEMA.QUERY_HISTORY_BY_USER(RESULT_LIMIT => 1000)) WHERE query_tag = ? "
    "AND UPPER(execution_status) IN ('RUNNING', 'QUEUED', 'BLOCKED', 'RESUMING_WAREHOUSE')"
)

_log = logging.getLogger(__name__)


@contextmanager
def open(
    con: duckdb.DuckDBPyConnection, request: LoadRequest, fields: Mapping[str, str]
) -> Iterator[ArrowTable]:
    """Open the request's table or query; see `quayside.dataloader.sources.source.Source.open`."""
    source = request.db_config_key
    driver = needs_driver("snowflake.connector", "snowflake", request.db_type, source)
    arguments = connecting(request, fields)

    def explain(error: Exception) -> QuaysideError | None:
        known = isinstance(error, driver.Error | OSError | ValueError | TypeError)
        return meaning(str(error), source, fields, _DENIED, _LOST) if known else None

    def connect() -> Any:
        try:
            return driver.connect(**arguments)
        except (driver.Error, OSError, ValueError, TypeError) as error:  # the last two: of a key that is none
            raise explain(error) or error from None

    with closing(connect()) as connection:
        try:
            arrow = _describe(request, fields, connection, connect, explain)
        except (driver.Error, OSError) as error:
            raise explain(error) or error from None
        # Its rows come from storage in parallel by themselves: partitions of ours would only cost statements.
        with as_table(con, request, arrow, 1) as table:
            yield table


def cancel(
    con: duckdb.DuckDBPyConnection, request: LoadRequest, fields: Mapping[str, str], load: str
) -> None:
    """Abort the statements tagged with `load`; see `quayside.dataloader.sources.registry.cancel`."""
    import snowflake.connector as driver

    del con
    brief = {**fields, "connect_timeout_seconds": "5", "statement_timeout_seconds": "10"}
    try:
        with (
            closing(driver.connect(**connecting(request, brief))) as connection,
            closing(connection.cursor()) as cursor,
        ):
            cursor.execute(_RUNNING, [marked(fields["application_name"], load)])
            for (number,) in cursor.fetchall():
                cursor.abort_query(number)
    except (driver.Error, OSError) as error:
        raise meaning(str(error), request.db_config_key, fields, _DENIED, _LOST) from None


class SnowflakeSource(DbApiSource):
    """`quayside.dataloader.sources.arrow.ArrowSource`, by the connector's Arrow chunks."""

    def fetch(self, cursor: Any, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        for chunk in cursor.fetch_arrow_batches(force_microsecond_precision=True):
            for batch in chunk.to_batches():
                yield self.exact(batch, schema)  # its integers are as narrow as their values


def connecting(request: LoadRequest, fields: Mapping[str, str]) -> dict[str, Any]:
    """The connector's arguments.

    Raises:
        InputError: what the ``db_type`` signs in with is missing, or the other's is given.
    """
    source, key = request.db_config_key, KEYS[request.db_type]
    if key not in fields:
        raise InputError(
            f"db_config_value of source {source} is not usable: {key} is missing for {request.db_type}."
        )
    if other := [name for name in KEYS.values() if name != key and name in fields]:
        raise InputError(f"Source {source} is of db_type {request.db_type}, which takes no {other[0]}.")
    host = re.sub(r"^https?://", "", fields["url"].strip()).strip("/")
    match = _ACCOUNT.fullmatch(host)
    named = {"account": host} if "." not in host else {"account": match[1] if match else host, "host": host}
    if key == "password":
        credential: dict[str, Any] = {"password": fields["password"]}
    else:
        credential = {"authenticator": "SNOWFLAKE_JWT", "private_key": fields["pem_private_key"]}
        if "pem_passphrase" in fields:
            credential["private_key_password"] = fields["pem_passphrase"]
    seconds = whole(source, fields, "statement_timeout_seconds")
    return {
        **named,
        **credential,
        **({"role": fields["role"]} if "role" in fields else {}),
        "port": whole(source, fields, "port"),
        "user": fields["user"],
        "database": request.source_catalog or fields["service_name"],
        "warehouse": fields["warehouse"],
        "paramstyle": "qmark",
        "login_timeout": whole(source, fields, "connect_timeout_seconds"),
        "query_timeout": seconds,
        "arrow_number_to_decimal": True,
        # Left open, the connector asks for a decision with a warning: a session ends with its load.
        "enable_server_session_keep_alive_auto_detection": False,
        "session_parameters": {
            "QUERY_TAG": marked(fields["application_name"]),
            "STATEMENT_TIMEOUT_IN_SECONDS": seconds,
            "TIMEZONE": "UTC",
        },
    }


def _describe(
    request: LoadRequest,
    fields: Mapping[str, str],
    connection: Any,
    connect: Callable[[], Any],
    explain: Callable[[Exception], QuaysideError | None],
) -> SnowflakeSource:
    source = request.db_config_key
    keys: list[str] = []
    past = None
    with closing(connection.cursor()) as cursor:
        cursor.execute(
            "SELECT TO_CHAR(SYSDATE(), 'YYYY-MM-DD\"T\"HH24:MI:SS.FF6'), TO_CHAR(SYSDATE(), 'YYYY-MM-DD\"T\"HH24:MI:SS.FF9')"
        )
        now, exact = cursor.fetchone()
        clock = datetime.fromisoformat(now)
        if request.query:
            name, relation = "the query", f"(\n{request.query.strip().rstrip(';')}\n) AS quayside_query"
        else:
            parts = [
                request.source_catalog or fields["service_name"],
                request.source_schema_name or "PUBLIC",
                request.source_table_name,
            ]
            name, relation = ".".join(parts), ".".join(DIALECT.quote(part) for part in parts)
            cursor.execute(f"SELECT * FROM {relation} LIMIT 0")  # what is wrong with it is said first
            past = _as_of(cursor, relation, exact)
            keys = _primary_key(cursor, relation)
            if past is None:
                _log.info("%s of source %s has no time travel: each read is of its own moment.", name, source)
            relation = past or relation
        cursor.execute(f"SELECT * FROM {relation} LIMIT 0")
        # By DESCRIBE RESULT, which gives types in words: the codes of the driver's description are its own.
        cursor.execute("DESCRIBE RESULT LAST_QUERY_ID()")
        described = [(row[0], row[1], row[3]) for row in cursor.fetchall()]
    columns = columns_of(
        source,
        name,
        [
            (column, type_, null != "N", arrival(DIALECT.quote(column), type_))
            for column, type_, null in described
        ],
    )
    arrow = SnowflakeSource(
        name=name,
        relation=relation,
        **columns,
        primary_key=keys,
        dialect=DIALECT,
        connection=connection,
        connect=connect,
        clocks=(clock.replace(tzinfo=UTC), clock),
        explain=explain,
    )
    arrow.snapshot = past is not None
    return arrow


def _as_of(cursor: Any, relation: str, moment: str) -> str | None:
    """The table as of a moment in UTC, to the nanosecond; None where it has no time travel."""
    import snowflake.connector as driver

    past = f"{relation} AT(TIMESTAMP => '{moment}+00:00'::TIMESTAMP_TZ(9))"
    try:
        cursor.execute(f"SELECT 1 FROM {past} LIMIT 0")
    except driver.ProgrammingError:
        return None
    return past


def _primary_key(cursor: Any, relation: str) -> list[str]:
    import snowflake.connector as driver

    try:
        cursor.execute(f"SHOW PRIMARY KEYS IN TABLE {relation}")
    except driver.ProgrammingError:  # a view
        return []
    names = [column[0].lower() for column in cursor.description]
    rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    return [row["column_name"] for row in sorted(rows, key=lambda row: int(row["key_sequence"]))]


def arrival(column: str, declared: str) -> tuple[pa.DataType, str | None] | None:
    """Arrow type and, where it is not the column itself, what selects it; None when it cannot arrive."""
    import pyarrow as pa

    kind, _, size = declared.upper().partition("(")
    numbers = [int(number) for number in re.findall(r"\d+", size)]
    if kind in ("NUMBER", "FIXED", "DECIMAL"):
        precision, scale = numbers if len(numbers) == 2 else (38, 0)
        if scale == 0 and precision <= 18:
            return pa.int64(), None
        return pa.decimal128(precision, scale), None
    simple: dict[str, pa.DataType] = {
        "FLOAT": pa.float64(), "REAL": pa.float64(), "BOOLEAN": pa.bool_(), "DATE": pa.date32(), "TIME": pa.time64("us"),
        "VARCHAR": pa.string(), "TEXT": pa.string(), "BINARY": pa.binary(), "TIMESTAMP_NTZ": pa.timestamp("us"),
    }  # fmt: skip
    if kind in simple:
        return simple[kind], None
    selected: dict[str, tuple[pa.DataType, str]] = {
        # An instant comes as its time in UTC; its own offset is not kept.
        "TIMESTAMP_LTZ": (pa.timestamp("us", "UTC"), f"CONVERT_TIMEZONE('UTC', {column})::TIMESTAMP_NTZ"),
        "TIMESTAMP_TZ": (pa.timestamp("us", "UTC"), f"CONVERT_TIMEZONE('UTC', {column})::TIMESTAMP_NTZ"),
        "DECFLOAT": (pa.string(), f"TO_VARCHAR({column})"),
        "UUID": (pa.string(), f"TO_VARCHAR({column})"),
        "VARIANT": (pa.string(), f"TO_JSON({column})"),
        "OBJECT": (pa.string(), f"TO_JSON({column}::VARIANT)"),
        "ARRAY": (pa.string(), f"TO_JSON({column}::VARIANT)"),
        "MAP": (pa.string(), f"TO_JSON({column}::VARIANT)"),
        "VECTOR": (pa.string(), f"TO_JSON({column}::ARRAY::VARIANT)"),
        "GEOGRAPHY": (pa.binary(), f"ST_ASWKB({column})"),
        "GEOMETRY": (pa.binary(), f"ST_ASWKB({column})"),
    }
    return selected.get(kind)
