"""Our own connection to a PostgreSQL source: a read-only transaction whose snapshot the readers share."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Self

from quayside.dataloader.errors import SourceRefusedError
from quayside.dataloader.sources import postgresql_errors
from quayside.dataloader.sources.columns import check_columns
from quayside.dataloader.sources.fields import whole
from quayside.dataloader.sources.mark import mark, marked
from quayside.dataloader.sources.postgresql_types import PostgresType, arrival
from quayside.dataloader.sources.source import Column
from quayside.foundation.errors import QuaysideError
from quayside.foundation.lake.sql import identifier

if TYPE_CHECKING:
    import psycopg

    from quayside.dataloader.request import LoadRequest

#: Before it a condition on ctid reads the whole table.
_TID_RANGE_SCAN: Final = 140_000

_DESCRIBE_TABLE: Final = """
WITH RECURSIVE tree AS (
    SELECT %(oid)s::oid AS oid
    UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN tree ON tree.oid = i.inhparent
), leaves AS (
    SELECT CASE WHEN c.relkind IN ('r', 'm') AND coalesce(a.amname, '') = 'heap'
                THEN pg_catalog.pg_relation_size(c.oid) / current_setting('block_size')::int8 END AS pages,
           c.reltuples
    FROM tree JOIN pg_catalog.pg_class c USING (oid) LEFT JOIN pg_catalog.pg_am a ON a.oid = c.relam
    WHERE c.relkind <> 'p'
)
SELECT bool_and(pages IS NOT NULL), coalesce(sum(pages), 0)::int8, coalesce(max(pages), 0)::int8,
    CASE WHEN bool_and(reltuples >= 0) THEN sum(reltuples)::int8 END FROM leaves
"""
_FIND_TABLE: Final = """
SELECT c.oid, c.relkind::text, ARRAY(
    SELECT a.attname::text FROM pg_catalog.pg_index i, unnest(i.indkey) WITH ORDINALITY k(attnum, place)
    JOIN pg_catalog.pg_attribute a USING (attnum)
    WHERE i.indrelid = c.oid AND i.indisprimary AND a.attrelid = c.oid ORDER BY place)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s::text AND c.relname = %s::text AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
"""
_ATTRIBUTES: Final = """
SELECT attname::text, pg_catalog.format_type(atttypid, atttypmod), attnotnull, attndims,
       pg_catalog.has_column_privilege(attrelid, attnum, 'SELECT')
FROM pg_catalog.pg_attribute WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
_TYPES: Final = """
SELECT t.oid, t.typname::text, t.typtype::text, e.typname::text, e.typtype::text
FROM pg_catalog.pg_type t
LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND e.typarray = t.oid
WHERE t.oid = ANY(%s)
"""
#: Of this load's readers; the view is PostgreSQL 14's, and what is read of it is kept for the transaction unless told.
_PASSED: Final = """
SELECT coalesce(sum(p.tuples_processed), 0)::int8
FROM pg_catalog.pg_stat_progress_copy p JOIN pg_catalog.pg_stat_activity a USING (pid) WHERE a.application_name = %s
"""
_CANCEL: Final = """
SELECT pg_catalog.pg_cancel_backend(pid) FROM pg_catalog.pg_stat_activity
WHERE application_name = %s AND usename = current_user AND pid <> pg_catalog.pg_backend_pid() AND state = 'active'
"""
#: Values that are no place to continue from are left out of bounds.
_FINITE: Final = {
    "date": " FILTER (WHERE isfinite({column}))",
    "timestamp": " FILTER (WHERE isfinite({column}))",
    "timestamptz": " FILTER (WHERE isfinite({column}))",
    "numeric": " FILTER (WHERE {column}::text NOT IN ('NaN', 'Infinity', '-Infinity'))",
    "float4": " FILTER (WHERE {column} NOT IN ('NaN', 'Infinity', '-Infinity'))",
    "float8": " FILTER (WHERE {column} NOT IN ('NaN', 'Infinity', '-Infinity'))",
}


@dataclass(frozen=True)
class SelectedColumn:
    """A column, the expression that delivers it, and the filter that keeps what is not finite out of bounds."""

    column: Column
    expression: str
    finite: str


@dataclass(frozen=True)
class Table:
    """What is read: `relation` stands behind FROM. Sizes are in pages, those of a view or query are 0; `rows` is an estimate."""

    name: str
    relation: str
    columns: list[SelectedColumn]
    primary_key: list[str]
    has_pages: bool = False
    pages: int = 0
    largest_pages: int = 0
    rows: int | None = None


def conninfo(options: Mapping[str, str]) -> str:
    """libpq's ``key='value'`` form."""
    quoted = {k: v.replace("\\", "\\\\").replace("'", "\\'") for k, v in options.items()}
    return " ".join(f"{key}='{value}'" for key, value in quoted.items())


class Session:
    """The connection, its snapshot, and the table as it is in there."""

    def __init__(
        self, connection: psycopg.Connection[tuple[Any, ...]], request: LoadRequest, fields: Mapping[str, str]
    ) -> None:
        self._connection = connection
        #: Who asks: the thread that loads, or now and then the one that watches it.
        self._asking = threading.Lock()
        self._mark = mark()
        self._request = request
        self.fields = fields
        self.source = request.db_config_key
        # now() is the begin of the transaction, so it is not after the snapshot.
        [[now, local_now]] = self.fetch("SELECT now(), now()::timestamp")
        self.now: datetime = now.astimezone(UTC)
        self.local_now: datetime = local_now
        self.fetch("SELECT set_config('TimeZone', 'UTC', true), set_config('DateStyle', 'ISO', true)")
        [[self.snapshot]] = self.fetch("SELECT pg_export_snapshot()")

    @cached_property
    def table(self) -> Table:
        """The request's table or query.

        Raises:
            SourceUnavailableError, SourceRefusedError, InputError.
        """
        query = self._request.query
        return self._describe_query(query) if query else self._describe_table()

    def of(self, request: LoadRequest) -> Session:
        """The same connection and snapshot for another table of the database."""
        other = copy(self)
        other.__dict__.pop("table", None)
        other._request = request
        return other

    @classmethod
    @contextmanager
    def open(cls, request: LoadRequest, fields: Mapping[str, str]) -> Iterator[Self]:
        """Connect and begin.

        Raises:
            SourceUnavailableError, SourceRefusedError, InputError.
        """
        import psycopg

        with closing(connect(request, fields)) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            yield cls(connection, request, fields)

    def options(self, *, reading: bool) -> dict[str, str]:
        """libpq options beyond those of the secret."""
        return _options(self._request, self.fields, reading=reading)

    def fetch(self, statement: str, values: Any = None) -> list[tuple[Any, ...]]:
        """Rows of one statement of ours; values are bound.

        Raises:
            SourceUnavailableError, SourceRefusedError, InputError.
        """
        import psycopg

        with self._asking:
            try:
                return self._connection.execute(statement.encode(), values).fetchall()
            except psycopg.Error as error:
                raise postgresql_errors.of_driver(error, self.source, self.fields) from None

    def answers(self) -> bool:
        """Whether the server does, on this connection."""
        try:
            return bool(self.fetch("SELECT 1"))
        except QuaysideError:
            return False

    def passed(self) -> int | None:
        """Rows that this load's running reads have given so far, by the server's own count; from any thread.

        None while the session is busy, and where the server does not count.
        """
        import psycopg

        if self._connection.info.server_version < _TID_RANGE_SCAN or not self._asking.acquire(blocking=False):
            return None
        try:
            self._connection.execute(b"SELECT pg_catalog.pg_stat_clear_snapshot()")
            name = marked(self.fields["application_name"], self._mark)
            row = self._connection.execute(_PASSED.encode(), [name]).fetchone()
            return None if row is None else int(row[0])
        except psycopg.Error:  # the thread that loads meets it too, and says so
            return None
        finally:
            self._asking.release()

    def quote(self, value: Any) -> str:
        """A value as a literal that this server reads as that value and nothing else."""
        from psycopg import sql

        return sql.Literal(value).as_string(self._connection)

    # -- what there is ---------------------------------------------------------------------------------------------

    def _describe_table(self) -> Table:
        schema, name = self._request.source_schema_name or "public", self._request.source_table_name
        shown = f"{schema}.{name}"
        found = self.fetch(_FIND_TABLE, [schema, name])
        if not found:
            raise SourceRefusedError(
                f"Source {self.source} has no table or view {shown!r} that this user can see: names are taken "
                "exactly as written, upper and lower case included."
            )
        [[oid, _, primary_key]] = found
        attributes = self.fetch(_ATTRIBUTES, [oid])
        if hidden := [row[0] for row in attributes if not row[4]]:
            raise SourceRefusedError(
                f"Source {self.source} lets this user not read {', '.join(map(repr, hidden))} of {shown!r}: grant "
                "SELECT, or name the other columns in a query."
            )
        relation = f"{identifier(schema)}.{identifier(name)}"
        [[has_pages, pages, largest, rows]] = self.fetch(_DESCRIBE_TABLE, {"oid": oid})
        has_pages = bool(has_pages) and self._connection.info.server_version >= _TID_RANGE_SCAN
        return Table(
            shown,
            relation,
            self._columns(relation, attributes),
            primary_key,
            has_pages,
            pages if has_pages else 0,
            largest,
            rows,
        )

    def _describe_query(self, query: str) -> Table:
        # Prepared as a whole, which PostgreSQL does with one statement only; the line break ends a comment.
        relation = f"(\n{query.strip().rstrip(';')}\n) AS quayside_query"
        return Table("the query", relation, self._columns(relation, []), [])

    def _columns(self, relation: str, attributes: list[tuple[Any, ...]]) -> list[SelectedColumn]:
        described = self._prepare(f"SELECT * FROM {relation}")  # noqa: S608  quoted, or a query of the configuration
        check_columns(self.source, [name for name, *_ in described])
        types = {row[0]: row[1:] for row in self.fetch(_TYPES, [[oid for _, oid, _ in described]])}
        shown = self.fetch(
            "SELECT pg_catalog.format_type(o, m) FROM unnest(%s::oid[], %s::int4[]) WITH ORDINALITY u(o, m, place) "
            "ORDER BY place",
            [[oid for _, oid, _ in described], [modifier for *_, modifier in described]],
        )
        declared = {row[0]: row for row in attributes}
        columns = []
        for number, ((name, oid, modifier), [type_shown]) in enumerate(zip(described, shown, strict=True)):
            attribute = declared.get(name)
            type_name, kind, element, element_kind = types[oid]
            of = PostgresType(
                type_name, kind, element, element_kind, modifier, attribute[3] if attribute else 0
            )
            type_, expression = arrival(name, number, of)
            source_type, nullable = (attribute[1], not attribute[2]) if attribute else (type_shown, True)
            column = Column(name, str(source_type), type_, bool(nullable))
            columns.append(
                SelectedColumn(column, expression, _FINITE.get(of.name, "") if of.kind == "b" else "")
            )
        return columns

    def _prepare(self, statement: str) -> list[tuple[str, int, int]]:
        """Name, type and modifier of each column of a statement that is not run."""
        from psycopg.pq import ExecStatus

        with self._asking:
            server = self._connection.pgconn
            prepared = server.prepare(b"", statement.encode())
            if prepared.status == ExecStatus.COMMAND_OK:
                prepared = server.describe_prepared(b"")
        if prepared.status != ExecStatus.COMMAND_OK:
            raise postgresql_errors.of_result(prepared, self.source, self.fields)
        return [
            ((prepared.fname(i) or b"").decode(), prepared.ftype(i), prepared.fmod(i))
            for i in range(prepared.nfields)
        ]


def cancel(request: LoadRequest, fields: Mapping[str, str], load: str) -> None:
    """Cancel what the sessions marked `load` run; the same user may. DuckDB would read a cancelled answer to its end.

    Raises:
        SourceUnavailableError, SourceRefusedError.
    """
    import psycopg

    brief = {**fields, "connect_timeout_seconds": "2", "statement_timeout_seconds": "2"}
    with closing(connect(request, brief)) as connection:
        connection.autocommit = True
        try:
            connection.execute(_CANCEL.encode(), [marked(fields["application_name"], load)])
        except psycopg.Error as error:
            raise postgresql_errors.of_driver(error, request.db_config_key, fields) from None


def connect(request: LoadRequest, fields: Mapping[str, str]) -> psycopg.Connection[tuple[Any, ...]]:
    """A connection to the source.

    Raises:
        SourceUnavailableError, SourceRefusedError.
    """
    import psycopg

    names = {"host": "host", "port": "port", "dbname": "service_name", "user": "user", "password": "password"}
    target = {key: fields[name] for key, name in names.items() if name in fields}
    try:
        return psycopg.connect("", **target, **_options(request, fields, reading=False))  # pyright: ignore[reportArgumentType]
    except psycopg.Error as error:
        raise postgresql_errors.of_connecting(error, request.db_config_key, fields) from None


def _options(request: LoadRequest, fields: Mapping[str, str], *, reading: bool) -> dict[str, str]:
    milliseconds = whole(request.db_config_key, fields, "statement_timeout_seconds") * 1000
    settings = {
        "default_transaction_read_only": "on",
        "statement_timeout": str(milliseconds),
        "lock_timeout": "60s",
        # The snapshot's holder waits while rows are read.
        "idle_in_transaction_session_timeout": "0",
    }
    if reading:  # our own session asks for the source's time zone first
        settings |= {"TimeZone": "UTC", "DateStyle": "ISO", "IntervalStyle": "postgres"}
    return {
        "connect_timeout": str(max(2, whole(request.db_config_key, fields, "connect_timeout_seconds"))),
        "application_name": marked(fields["application_name"]),
        "client_encoding": "UTF8",
        "keepalives_idle": "30",
        "keepalives_interval": "10",
        "keepalives_count": "3",
        "tcp_user_timeout": "60000",
        "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
        **{name: fields[name] for name in ("sslmode", "sslrootcert") if name in fields},
    }
