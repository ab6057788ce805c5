"""What errors of sources mean: the words of servers and drivers as they came, each with what it means for a load."""

from __future__ import annotations

import pytest

from quayside.dataloader.errors import SourceRefusedError, SourceUnavailableError
from quayside.dataloader.sources import mysql_errors, postgresql_errors
from quayside.dataloader.sources.postgresql_session import Table
from quayside.foundation.errors import InputError, PermanentError, TransientError

pytestmark = pytest.mark.unit

LATER, REFUSED, WRONG = SourceUnavailableError, SourceRefusedError, InputError

POSTGRESQL = [
    # the session that exported the snapshot died with its server; the readers come a moment later
    ('IO Error: Failed to execute query "SET TRANSACTION SNAPSHOT \'0-3-1\'": ERROR:  snapshot "00000003-0000001B-1" '
     "does not exist", LATER),
    ('ERROR:  invalid snapshot identifier: "00000003-0000001B-1"', LATER),
    ("ERROR:  could not import the requested snapshot\nDETAIL:  The source process with PID 41 is not running anymore.", LATER),
    ("IO Error: Failed to fetch header for COPY: FATAL:  terminating connection due to administrator command", LATER),
    ("FATAL:  terminating connection because of crash of another server process", LATER),
    ("terminating connection due to idle-in-transaction timeout", LATER),
    ("ERROR:  canceling statement due to conflict with recovery", LATER),
    ("ERROR:  canceling statement due to statement timeout", LATER),
    ("ERROR:  canceling statement due to user request", LATER),
    ('IO Error: Unable to connect to Postgres at "host=x": connection to server at "x", port 5432 failed: FATAL:  '
     "the database system is in recovery mode", LATER),
    ('connection to server on socket "/s" failed: FATAL:  the database system is shutting down', LATER),
    ("FATAL:  the database system is not yet accepting connections\nDETAIL:  Consistent recovery state has not been yet "
     "reached.", LATER),
    ("FATAL:  sorry, too many clients already", LATER),
    ('FATAL:  too many connections for role "loader"', LATER),
    ('FATAL:  database "sales" is not currently accepting connections', LATER),
    ("FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute", LATER),
    ('IO Error: Failed to execute query "COPY (SELECT 1)": server closed the connection unexpectedly\n\tThis probably '
     "means the server terminated abnormally", LATER),
    ("SSL connection has been closed unexpectedly", LATER),
    ("SSL error: unexpected eof while reading", LATER),
    ("SSL SYSCALL error: EOF detected", LATER),
    ("IO Error: Unable to read binary COPY data from Postgres: ", LATER),
    ("IO Error: Failed to fetch header for COPY: ", LATER),
    ("Unable to read binary COPY data, invalid header", LATER),
    ("could not send data to server: Broken pipe", LATER),
    ("consuming input failed: could not receive data from server: Connection timed out", LATER),
    ("the connection is closed", LATER),
    ('could not translate host name "db" to address: Temporary failure in name resolution', LATER),
    ("ERROR:  could not open relation with OID 16385", LATER),
    ("ERROR:  could not resize shared memory segment: No space left on device", LATER),
    ("FATAL:  query_wait_timeout", LATER),  # PgBouncer's
    ('connection to server at "x", port 5432 failed: FATAL:  password authentication failed for user "loader"', REFUSED),
    ('connection to server at "x" failed: FATAL:  role "loader" does not exist', REFUSED),
    ('connection to server at "x" failed: FATAL:  no pg_hba.conf entry for host "y"', REFUSED),
    ('ERROR:  relation "orders" does not exist', REFUSED),
    ("ERROR:  permission denied for table orders", REFUSED),
    ("SSL error: certificate verify failed", REFUSED),
    ("IO Error: Failed to fetch header for COPY: ERROR:  division by zero", WRONG),
]  # fmt: skip
MARIADB = [
    ('IO Error: Failed to connect to MySQL database with parameters "host=x": Too many connections', LATER),
    ("User 'loader' has exceeded the 'max_user_connections' resource (current value: 5)", LATER),
    ('Failed to run query "SELECT 1": Lost connection to server during query', LATER),
    ('Failed to fetch result row for MySQL query "SELECT 1": Server has gone away', LATER),
    ('Failed to run query "SELECT 1": Server shutdown in progress', LATER),
    ('Failed to run query "SELECT 1": Connection was killed', LATER),
    ('Failed to run query "SELECT 1": Query execution was interrupted (max_statement_time exceeded)', LATER),
    ('Failed to run query "SELECT 1": Lock wait timeout exceeded; try restarting transaction', LATER),
    ('Failed to run query "SELECT 1": Deadlock found when trying to get lock; try restarting transaction', LATER),
    ("WSREP has not yet prepared node for application use", LATER),
    ("Can't create a new thread (errno 11 \"Resource temporarily unavailable\")", LATER),
    ('Failed to run query "SELECT 1": The table \'/tmp/#sql_1\' is full', LATER),
    ('Failed to connect to MySQL database with parameters "host=x": Can\'t connect to server on \'x\' (111)', LATER),
    ('Failed to connect to MySQL database with parameters "host=x": Error in server handshake', LATER),
    ("Received error packet before completion of TLS handshake. The authenticity of the following error cannot be verified: "
     "1040 - Too many connections", LATER),
    ("Access denied for user 'loader'@'10.0.0.1' (using password: YES)", REFUSED),
    ("Host '10.0.0.1' is blocked because of many connection errors", REFUSED),
    ("Table 'source.orders' doesn't exist", REFUSED),
    ('Failed to run query "SELECT 1": You have an error in your SQL syntax', WRONG),
]  # fmt: skip


def the_kind(error: Exception) -> type[Exception]:
    return next(kind for kind in (LATER, REFUSED, WRONG) if isinstance(error, kind))


@pytest.mark.parametrize("text, kind", POSTGRESQL)
def test_words_of_postgresql(text: str, kind: type[Exception]):
    meaning = postgresql_errors.of_text(text, "sales", {})
    assert the_kind(meaning) is kind
    assert isinstance(meaning, TransientError if kind is LATER else PermanentError)
    assert str(meaning).startswith("Source sales ")


@pytest.mark.parametrize("text, kind", MARIADB)
def test_words_of_mariadb(text: str, kind: type[Exception]):
    assert the_kind(mysql_errors.of_text(text, "sales", {})) is kind


def test_an_error_of_the_lakes_catalog_is_not_the_sources():
    # The catalog is a PostgreSQL as well, read by the same scanner.
    table = Table("public.orders", '"public"."orders"', [], [])
    closed = "server closed the connection unexpectedly"
    of_the_lake = f"IO Error: Failed to query most recent snapshot for DuckLake: {closed}"
    of_either = f'IO Error: Failed to execute query "COMMIT": {closed}'
    of_the_source = f'IO Error: Failed to execute query "COPY (SELECT 1)": {closed}'

    def kind(text: str, answers: bool) -> object:
        meaning = postgresql_errors.of_reading(Exception(text), "sales", {}, table, lambda: answers)
        return meaning and the_kind(meaning)

    assert [kind(of_the_lake, False), kind(of_either, True)] == [None, None]
    assert [kind(of_either, False), kind(of_the_source, True)] == [LATER, LATER]
    mine = "Failed to get data file list from DuckLake: Lost connection to server during query"
    assert mysql_errors.of_reading(mine, "sales", {}) is None
