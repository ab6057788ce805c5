"""MySQL and MariaDB, read by DuckDB's scanner.

These servers cannot share a snapshot between connections. A read is one statement on one connection, which is one
consistent state by itself; with a partition column and several partitions it is cut into ranges on as many connections,
each with a state of its own (docs/dataloader/sources.md). The SELECT is ours, so that predicates reach the index.
"""

# ruff: noqa: S608 - identifiers and values are quoted by `_quote` and `_literal`

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from quayside.dataloader.errors import SourceRefusedError, SourceUnavailableError, UnsupportedTypeError
from quayside.dataloader.sources import mysql_errors, mysql_types, scanner
from quayside.dataloader.sources.columns import check_columns
from quayside.dataloader.sources.counting import LARGE_ROWS, CountingFilter
from quayside.dataloader.sources.fields import PROTECTION, Field, whole
from quayside.dataloader.sources.mark import mark
from quayside.dataloader.sources.ranges import ranges_of
from quayside.dataloader.sources.source import Column, Predicate
from quayside.foundation.errors import InputError, QuaysideError
from quayside.foundation.lake.sql import identifier, literal

if TYPE_CHECKING:
    import duckdb

    from quayside.dataloader.request import LoadRequest

FIELDS: Final = (
    Field("host", required=True),
    Field("port", default="3306"),
    Field("service_name", aliases=("database",)),
    Field("user", required=True),
    Field("password"),
    Field("ssl_mode", plain=True),
    Field("ssl_ca", plain=True),
    *PROTECTION,
)
_log = logging.getLogger(__name__)


@contextmanager
def open(
    con: duckdb.DuckDBPyConnection, request: LoadRequest, fields: Mapping[str, str]
) -> Iterator[MySQLTable]:
    """Open the request's table or query; see `quayside.dataloader.sources.source.Source.open`."""
    import duckdb

    _greet(request, fields)
    scanner.load(con, "mysql_scanner")
    wanted = min(request.num_partitions or 1, whole(request.db_config_key, fields, "max_connections"))
    if not request.partition_column:
        wanted = 1
    with ExitStack() as stack:
        try:
            # Of every connection that is opened from here on; times of the type timestamp travel in it.
            con.execute("SET mysql_session_time_zone = '+00:00'")
            secret = stack.enter_context(scanner.secret(con, "mysql", _signing_in(fields)))
            readers = [
                stack.enter_context(scanner.attached(con, "", "mysql", f", SECRET {secret}"))
                for _ in range(max(1, wanted))
            ]
            table = MySQLTable(con, request, fields, readers)
            large = table.estimate() is None or (table.estimate() or 0) >= LARGE_ROWS
            table.counting = stack.enter_context(CountingFilter.made(con, large=large))
        except duckdb.Error as error:
            raise mysql_errors.of_text(str(error), request.db_config_key, fields) from None
        yield table


def cancel(
    con: duckdb.DuckDBPyConnection, request: LoadRequest, fields: Mapping[str, str], load: str
) -> None:
    """End the statements marked `load`, as their user may: the scanner waits for the server and hears of no interrupt.

    See `quayside.dataloader.sources.registry.cancel`.
    """
    import duckdb

    theirs = (
        f"SELECT ID AS a FROM information_schema.PROCESSLIST WHERE INFO LIKE {_literal(f'%{_shown(load)}%')} "
        "AND ID <> CONNECTION_ID()"
    )
    name = scanner.new_name()
    _greet(request, {**fields, "connect_timeout_seconds": "2"})
    try:
        with (
            closing(con.cursor()) as apart,
            scanner.secret(apart, "mysql", _signing_in(fields)) as secret,
        ):
            # Not `scanner.attached`, which is read-only, and so would refuse to end anything.
            apart.execute(f"ATTACH '' AS {name} (TYPE mysql, SECRET {secret})")
            try:
                found = apart.execute(f"FROM mysql_query('{name}', {literal(theirs)})").fetchall()
                for (number,) in found:
                    with suppress(duckdb.Error):  # it has ended by itself meanwhile
                        apart.execute(f"CALL mysql_execute('{name}', 'KILL QUERY {int(number)}')")
            finally:
                apart.execute(f"DETACH {name}")
    except duckdb.Error as error:
        raise mysql_errors.of_text(str(error), request.db_config_key, fields) from None


def _signing_in(fields: Mapping[str, str]) -> dict[str, str]:
    """What a secret of the scanner holds."""
    names = {
        "host": "HOST",
        "port": "PORT",
        "service_name": "DATABASE",
        "user": "USER",
        "password": "PASSWORD",
    }
    return {
        names.get(name, name.upper()): fields[name]
        for name in (*names, "ssl_mode", "ssl_ca")
        if name in fields
    }


def _shown(load: str) -> str:
    """The mark of a load as it stands in its statements."""
    return load.strip("[]")


class MySQLTable:
    """An open table; `quayside.dataloader.sources.source.SourceTable`."""

    one_stream = True

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        request: LoadRequest,
        fields: Mapping[str, str],
        readers: Sequence[str],
    ) -> None:
        self._con = con
        self._request = request
        self._fields = fields
        self._readers = readers
        self._source = request.db_config_key
        self._mariadb: bool | None = None
        self._mark = _shown(mark())
        self._rows: int | None = None
        self.counting: CountingFilter | None = None
        self._timeout = whole(self._source, fields, "statement_timeout_seconds")
        [[now, local, version]] = self._fetch(
            "SELECT CAST(UTC_TIMESTAMP(6) AS CHAR) AS a, CAST(COALESCE(CONVERT_TZ(UTC_TIMESTAMP(6), '+00:00', "
            "@@global.time_zone), UTC_TIMESTAMP(6)) AS CHAR) AS b, VERSION() AS c"
        )
        self._clock = datetime.fromisoformat(now).replace(tzinfo=UTC)
        self._local_clock = datetime.fromisoformat(local)
        self._mariadb = "mariadb" in version.lower()
        if self._mariadb:
            # Every statement is its own transaction then, which `_limited` makes a read-only one. The scanner would begin
            # one that may write, and a function that a query calls can.
            con.execute("SET mysql_enable_transactions = false")
        self._names: list[str] = []
        self._primary_key: list[str] = []
        if request.query:
            self._name = "the query"
            self._from = f"(\n{request.query.strip().rstrip(';')}\n) AS quayside_query"
            self._describe_query()
        else:
            self._describe_table()
        check_columns(self._source, [column.name for column in self._columns])

    @property
    def columns(self) -> Sequence[Column]:
        return self._columns

    @property
    def primary_key(self) -> Sequence[str]:
        return self._primary_key

    @property
    def snapshot(self) -> bool:
        return False

    def clock(self) -> datetime:
        return self._clock

    def local_clock(self) -> datetime:
        return self._local_clock

    def estimate(self) -> int | None:
        return self._rows

    def passed(self) -> int | None:
        return self.counting.rows if self.counting else None

    def settle(self) -> None:
        """A read that has ended is left out when the next one begins, or now."""
        if self.counting:
            self.counting.rows = 0

    def count(self, where: Predicate = ()) -> int:
        [[number]] = self._fetch(f"SELECT COUNT(*) AS a FROM {self._from}{self._where(where)}")
        return int(number)

    def bounds(self, column: str, where: Predicate = ()) -> tuple[Any, Any]:
        name = _quote(self._columns[self._number(column)].name)
        ends = [f"SELECT {end}({name}) AS a FROM {self._from}{self._where(where)}" for end in ("MIN", "MAX")]
        least, greatest = (self._scalar(self._number(column), end) for end in ends)
        return least, greatest

    def relation(self, where: Predicate = (), columns: Sequence[str] | None = None) -> str:
        numbers = range(len(self._columns)) if columns is None else [self._number(name) for name in columns]
        selected = ", ".join(f"{self._arrivals[n].expression} AS c{n}" for n in numbers)
        condition = self._where(where)
        parts = [condition]
        if len(self._readers) > 1:
            joint = " AND " if condition else " WHERE "
            parts = [f"{condition}{joint}{part}" for part in self._parts(where)] or parts
        outer = ", ".join(f"{self._cast(n)} AS {identifier(self._columns[n].name)}" for n in numbers)
        reads = [
            f"SELECT {outer} FROM mysql_query({literal(reader)}, "
            f"{literal(self._limited(f'SELECT {selected} FROM {self._from}{part}'))}, stream_results := true)"
            for reader, part in zip(self._readers, parts, strict=False)
        ]
        relation = f"({' UNION ALL '.join(reads)})"
        return self.counting.around(relation) if self.counting else relation

    def explain(self, error: Exception) -> QuaysideError | None:
        text = str(error)
        number = mysql_types.refused_column(text)
        if number is not None:
            column = self._columns[number]
            return UnsupportedTypeError(
                f"Column {column.name!r} ({column.source_type}) of {self._name} in source {self._source} holds a "
                f"date that is none, such as 0000-00-00; read it in a query as NULLIF({_quote(column.name)}, 0), or as "
                f"text: CAST({_quote(column.name)} AS CHAR)."
            )
        return mysql_errors.of_reading(text, self._source, self._fields)

    # -- what there is ---------------------------------------------------------------------------------------------

    def _describe_table(self) -> None:
        schema = self._request.source_schema_name or self._fields.get("service_name")
        if not schema:
            raise InputError(
                f"Source {self._source} names no database: set source_schema_name, or the field service_name."
            )
        schema, table, self._rows = self._find(schema, self._request.source_table_name)
        rows = self._fetch(
            "SELECT COLUMN_NAME AS a, DATA_TYPE AS b, COLUMN_TYPE AS c, IS_NULLABLE AS d, NUMERIC_PRECISION AS e, "
            "NUMERIC_SCALE AS f, COLUMN_KEY AS g, COLLATION_NAME AS h FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = "
            f"{_literal(schema)} AND BINARY TABLE_NAME = {_literal(table)} ORDER BY ORDINAL_POSITION"
        )
        self._name = f"{schema}.{table}"
        self._from = f"{_quote(schema)}.{_quote(table)}"
        self._columns, self._arrivals = [], []
        for number, (name, data_type, declared, nullable, precision, scale, _, collation) in enumerate(rows):
            numbers = (int(precision), int(scale)) if precision is not None and scale is not None else None
            arrival = mysql_types.of_table(
                _quote(name), number, str(data_type).lower(), str(declared).lower(), numbers, collation
            )
            self._columns.append(Column(name, str(declared), arrival.type, nullable == "YES"))
            self._arrivals.append(arrival)
        if any(row[6] == "PRI" for row in rows):
            keys = self._fetch(
                "SELECT COLUMN_NAME AS a FROM information_schema.STATISTICS WHERE INDEX_NAME = 'PRIMARY' AND "
                f"TABLE_SCHEMA = {_literal(schema)} AND BINARY TABLE_NAME = {_literal(table)} ORDER BY SEQ_IN_INDEX"
            )
            self._primary_key = [key for (key,) in keys]

    def _find(self, schema: str, table: str) -> tuple[str, str, int | None]:
        """The names as the server has them, in another case only where it ignores case itself; about how many rows."""
        rows = self._fetch(
            "SELECT TABLE_SCHEMA AS a, TABLE_NAME AS b, @@lower_case_table_names AS c, CAST(TABLE_ROWS AS SIGNED) AS d "
            "FROM information_schema.TABLES "
            f"WHERE TABLE_SCHEMA = {_literal(schema)} AND TABLE_NAME = {_literal(table)}"
        )
        for found_schema, found, ignores_case, estimate in rows:
            same = (found_schema, found) == (schema, table)
            if same or (
                ignores_case and found.lower() == table.lower() and found_schema.lower() == schema.lower()
            ):
                return found_schema, found, None if estimate is None else int(estimate)
        raise SourceRefusedError(
            f"Source {self._source} has no table or view '{schema}.{table}' that this user can see: names are taken "
            "exactly as written, upper and lower case included."
        )

    def _describe_query(self) -> None:
        scanned = self._con.execute(
            f"DESCRIBE SELECT * FROM mysql_query({literal(self._readers[0])}, "
            f"{literal(self._limited(f'SELECT * FROM {self._from} LIMIT 0'))})"
        ).fetchall()
        names, types = [row[0] for row in scanned], [row[1] for row in scanned]
        check_columns(self._source, names)
        # What no metadata says is asked of expressions over no rows: is arithmetic exact, is it text.
        probes = [
            f"(COALESCE(MAX({_quote(n)}), 0) * 0 + 0.1 + 0.2) = 0.3 AS e{i}"
            if t == "DOUBLE"
            else f"CHARSET(MAX({_quote(n)})) AS e{i}"
            if t == "BLOB"
            else f"0 AS e{i}"
            for i, (n, t) in enumerate(zip(names, types, strict=True))
        ]
        [(*answers, _)] = self._fetch(
            f"SELECT {', '.join(probes)}, COUNT(*) AS n FROM {self._from} WHERE 1 = 0"
        )
        self._arrivals = [
            mysql_types.of_query(_quote(n), i, t, t == "DOUBLE" and bool(a), str(a))
            for i, (n, t, a) in enumerate(zip(names, types, answers, strict=True))
        ]
        self._columns = [
            Column(n, t.lower(), a.type) for n, t, a in zip(names, types, self._arrivals, strict=True)
        ]

    # -- statements ------------------------------------------------------------------------------------------------

    def _fetch(self, statement: str) -> list[tuple[Any, ...]]:
        import duckdb

        try:
            return self._con.execute(
                f"SELECT * FROM mysql_query({literal(self._readers[0])}, {literal(self._limited(statement))})"
            ).fetchall()
        except duckdb.Error as error:
            raise mysql_errors.of_text(str(error), self._source, self._fields) from None

    def _scalar(self, number: int, statement: str) -> Any:
        """One value of a column, as it arrives."""
        cast = self._cast(number, "c")
        expression = self._arrivals[number].expression.replace(_quote(self._columns[number].name), "a")
        import duckdb

        inner = f"SELECT {expression} AS c FROM ({statement}) AS ends"
        try:
            row = self._con.execute(
                f"SELECT {cast} FROM mysql_query({literal(self._readers[0])}, {literal(self._limited(inner))})"
            ).fetchone()
        except duckdb.Error as error:
            raise self.explain(error) or mysql_errors.of_text(
                str(error), self._source, self._fields
            ) from None
        return None if row is None else row[0]

    def _cast(self, number: int, name: str | None = None) -> str:
        arrival, name = self._arrivals[number], name or f"c{number}"
        if not arrival.cast:
            return name
        if arrival.type == "TIMESTAMP WITH TIME ZONE":
            return f"{name} AT TIME ZONE 'UTC'"
        return f"{name}::{arrival.type}"

    def _limited(self, select: str) -> str:
        """Read-only, with the statement timeout, and a name by which a database administrator finds it."""
        application = re.sub(r"[^\w .-]", "", f"{self._fields['application_name']} {self._mark}")
        body = select.removeprefix("SELECT ")
        if self._mariadb is None:  # which it is, is the first question
            return select
        if self._mariadb:
            limits = f"tx_read_only = 1, max_statement_time = {self._timeout}"
            return f"SET STATEMENT {limits} FOR SELECT /* {application} */ {body}"
        return f"SELECT /*+ MAX_EXECUTION_TIME({self._timeout * 1000}) */ /* {application} */ {body}"

    def _parts(self, where: Predicate) -> list[str]:
        column = self._request.partition_column
        assert column is not None
        least, greatest = self.bounds(column, where)
        configured = (self._request.lower_bound, self._request.upper_bound)
        ranges = ranges_of(least, greatest, configured, len(self._readers))
        if len(ranges) == 1:
            _log.info(
                "Column %s cannot be cut into ranges: %s is read on one connection.", column, self._name
            )
            return []
        name, parts = _quote(self._columns[self._number(column)].name), []
        for each in ranges:
            ends = [f"{name} >= {_literal(each.lower)}"] if each.lower is not None else []
            ends += [f"{name} < {_literal(each.upper)}"] if each.upper is not None else []
            parts.append(f"({' AND '.join(ends)}{f' OR {name} IS NULL' if each.is_first else ''})")
        return parts

    def _number(self, name: str) -> int:
        for number, column in enumerate(self._columns):
            if column.name == name:
                return number
        known = ", ".join(column.name for column in self._columns)
        raise InputError(f"{self._name} of {self._source} has no column {name!r}; it has {known}.")

    def _where(self, where: Predicate) -> str:
        parts = []
        for comparison in where:
            name = _quote(self._columns[self._number(comparison.column)].name)
            if comparison.operator in ("is null", "is not null"):
                parts.append(f"{name} {comparison.operator.upper()}")
            else:
                parts.append(f"{name} {comparison.operator} {_literal(comparison.value)}")
        return f" WHERE {' AND '.join(parts)}" if parts else ""


def _quote(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _literal(value: Any) -> str:
    """A value in a form that no sql_mode reads differently."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime):
        plain = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
        return f"TIMESTAMP'{plain.isoformat(sep=' ', timespec='microseconds')}'"
    if isinstance(value, date):
        return f"DATE'{value.isoformat()}'"
    return f"_utf8mb4 X'{str(value).encode().hex()}'" if value else "''"


def _greet(request: LoadRequest, fields: Mapping[str, str]) -> None:
    """Wait for the server's first packet, which it sends by itself: the scanner would wait for it for ever."""
    seconds = whole(request.db_config_key, fields, "connect_timeout_seconds")
    host, port = fields["host"], whole(request.db_config_key, fields, "port")
    if host.startswith("/"):
        return
    try:
        with socket.create_connection((host, port), timeout=seconds) as connection:
            connection.settimeout(seconds)
            if not connection.recv(1):
                raise ConnectionResetError("it closed the connection at once")
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
    except OSError as error:
        raise SourceUnavailableError(
            f"Source {request.db_config_key} does not answer at {host}:{port} within {seconds} s: {error}."
        ) from None
