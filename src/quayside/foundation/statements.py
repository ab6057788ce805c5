"""Statements on whatever connection a caller has: one way for psycopg and SQLAlchemy, and the row of a query that has one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import duckdb
    import psycopg
    import sqlalchemy


def execute(
    connection: psycopg.Connection[Any] | sqlalchemy.Connection,
    statement: str,
    parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]],
) -> int:
    """Run a statement with ``%(name)s`` parameters, or once for each of a list; rows it touched.

    A SQLAlchemy connection has to be one on psycopg 3, as `quayside.foundation.postgres.engine` makes them.
    """
    many = not isinstance(parameters, Mapping)
    if hasattr(connection, "exec_driver_sql"):
        alchemy = cast("sqlalchemy.Connection", connection)
        return alchemy.exec_driver_sql(statement, list(parameters) if many else dict(parameters)).rowcount
    with cast("psycopg.Connection[Any]", connection).cursor() as cursor:
        query = (
            statement.encode()
        )  # psycopg takes literal text only, to keep values out of it; ours are bound
        if many:
            cursor.executemany(query, parameters)
        else:
            cursor.execute(query, parameters)
        return cursor.rowcount


def one_row(
    connection: duckdb.DuckDBPyConnection,
    query: str,
    parameters: Sequence[Any] | Mapping[str, Any] | None = None,
) -> tuple[Any, ...]:
    """The row of a query that has exactly one, such as an aggregate."""
    row = connection.execute(query, parameters).fetchone()
    assert row is not None
    return row
