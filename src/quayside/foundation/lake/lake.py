"""`Lake`: connections, transactions and tables."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from contextlib import closing, nullcontext, suppress
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import duckdb

from quayside.foundation.errors import ConflictError, ServiceUnavailableError
from quayside.foundation.lake import session
from quayside.foundation.lake.conflicts import is_conflict, is_connection_lost
from quayside.foundation.lake.sql import identifier
from quayside.foundation.lake.turns import turn
from quayside.foundation.postgres import advisory_lock

if TYPE_CHECKING:
    from quayside.foundation.settings import Settings

T = TypeVar("T")

ATTEMPTS: Final = 10
FIRST_WAIT_SECONDS: Final = 0.05
LONGEST_WAIT_SECONDS: Final = 2.0


class LakeTable(Protocol):
    """What `Lake.ensure_tables` needs to know of a table."""

    @property
    def qualified(self) -> str:
        """``schema.table``."""
        ...

    def ddl(self) -> list[str]:
        """Statements that make the table in an existing schema."""
        ...


class Lake:
    """The lake of one set of settings. It holds no connection, so it may be kept and may cross a fork."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def connect(
        self,
        *,
        read_only: bool = False,
        threads: int | None = None,
        memory_limit: str | None = None,
        in_use: bool = True,
    ) -> duckdb.DuckDBPyConnection:
        """A new in-memory DuckDB with the lake attached as ``lake`` and in use; close it after use.

        Times are in UTC. `threads` and `memory_limit` (e.g. ``"4GB"``) override the settings. Each connection reads the
        names of all tables again, so keep one for a piece of work. Without `in_use` it reads them when they are first
        needed, and they are named ``lake.schema.table``: 10 ms less.

        Raises:
            SettingsError: the data path is not the catalog's, or S3 has no credentials.
            ServiceUnavailableError: PostgreSQL does not answer.
        """
        return session.open_connection(
            self.settings, read_only=read_only, threads=threads, memory_limit=memory_limit, in_use=in_use
        )

    def attach_postgres(
        self, con: duckdb.DuckDBPyConnection, alias: str = "pg", *, read_only: bool = False
    ) -> None:
        """Attach the platform's PostgreSQL to a connection of this lake as catalog `alias`."""
        session.attach_postgres(con, self.settings, alias, read_only=read_only)

    def transaction(
        self,
        work: Callable[[duckdb.DuckDBPyConnection], T],
        con: duckdb.DuckDBPyConnection | None = None,
        *,
        lock: str | None = None,
    ) -> T:
        """Run `work` in one lake transaction and commit; on a conflict with another writer run it again.

        `work` may run several times, so what it does outside the lake must bear repetition. With `con`, that
        connection is used and stays open. DuckLake has no unique keys and two inserts never conflict: where two
        writers must not both insert what neither has seen, name a `lock`, held across all attempts.

        Raises:
            ConflictError: other writers won every time.
            ServiceUnavailableError: the connection to the catalog broke; whether it was committed is then unknown.
        """
        held = advisory_lock(self.settings, lock) if lock is not None else nullcontext()
        with held, nullcontext(con) if con is not None else closing(self.connect()) as connection:
            for attempt in range(ATTEMPTS):
                try:
                    return self._attempt(connection, work)
                except duckdb.Error as error:
                    if is_connection_lost(error):
                        raise ServiceUnavailableError(
                            "The connection to the lake's catalog broke during a transaction: see that PostgreSQL "
                            "runs, and whether the change is there before trying again."
                        ) from error
                    if not is_conflict(error):
                        raise
                longest = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**attempt)
                time.sleep(random.uniform(longest / 4, longest))  # noqa: S311  jitter, not a secret
        raise ConflictError(
            f"Other writers changed the same lake tables {ATTEMPTS} times in a row: try again later."
        )

    def _attempt(self, con: duckdb.DuckDBPyConnection, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        with turn(self.settings):
            con.execute("BEGIN")
            try:
                result = work(con)
                con.execute("COMMIT")
            except BaseException:
                # A COMMIT that failed has ended the transaction already.
                with suppress(duckdb.TransactionException):
                    con.execute("ROLLBACK")
                raise
        return result

    def ensure_tables(
        self, tables: Iterable[LakeTable], con: duckdb.DuckDBPyConnection | None = None
    ) -> None:
        """Make the tables, and their schemas, that do not exist. One query and no new snapshot when all do."""
        wanted = list(tables)

        def create(connection: duckdb.DuckDBPyConnection) -> None:
            for table in _missing(connection, wanted):
                schema = table.qualified.rpartition(".")[0]
                connection.execute(f"CREATE SCHEMA IF NOT EXISTS {identifier(schema)}")
                for statement in table.ddl():
                    connection.execute(statement)

        with nullcontext(con) if con is not None else closing(self.connect()) as connection:
            if _missing(connection, wanted):
                self.transaction(create, connection)


def _missing(con: duckdb.DuckDBPyConnection, wanted: list[LakeTable]) -> list[LakeTable]:
    return [table for table in wanted if not _exists(con, table)]


def _exists(con: duckdb.DuckDBPyConnection, table: LakeTable) -> bool:
    # Not by duckdb_tables(): it looks into the statistics of every table of the lake, 5 ms each.
    schema, _, name = table.qualified.rpartition(".")
    try:
        con.execute(f"SELECT 1 FROM {session.CATALOG}.{identifier(schema)}.{identifier(name)} LIMIT 0")  # noqa: S608  quoted
    except duckdb.CatalogException:
        return False
    return True
