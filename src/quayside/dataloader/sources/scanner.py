"""What DuckDB's scanners have in common: extensions, secrets and attachments of a connection that is not ours.

Everything gets a name of its own, so that several sources can be open in one connection, and is taken away again.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from quayside.foundation.lake.extensions import load_extensions
from quayside.foundation.lake.sql import identifier, literal

if TYPE_CHECKING:
    import duckdb

_numbers: Final = itertools.count()


def new_name() -> str:
    """A name that nothing else in this process has."""
    return f"quayside_source_{next(_numbers)}"


def load(con: duckdb.DuckDBPyConnection, *extensions: str) -> None:
    """Load extensions from their wheels, by way of the connection's own extension folder."""
    row = con.execute("SELECT current_setting('extension_directory')").fetchone()
    assert row is not None
    if not row[0]:
        raise ValueError(
            "The DuckDB connection has no extension_directory: take one from quayside.foundation.lake.Lake."
        )
    load_extensions(con, Path(str(row[0])), extensions)


@contextmanager
def secret(con: duckdb.DuckDBPyConnection, kind: str, values: Mapping[str, str]) -> Iterator[str]:
    """A DuckDB secret, its values bound and never in the text of a statement; yields its name."""
    name = new_name()
    options = ", ".join([f"TYPE {kind}", *(f"{key} ?" for key in values)])
    con.execute(f"CREATE TEMPORARY SECRET {name} ({options})", list(values.values()))
    try:
        yield name
    finally:
        _try(con, f"DROP TEMPORARY SECRET IF EXISTS {name}")


@contextmanager
def attached(con: duckdb.DuckDBPyConnection, path: str, kind: str, options: str = "") -> Iterator[str]:
    """A database attached read-only; yields its name as a catalog."""
    name = new_name()
    con.execute(f"ATTACH {literal(path)} AS {identifier(name)} (TYPE {kind}, READ_ONLY{options})")
    try:
        yield name
    finally:
        _try(con, f"DETACH DATABASE IF EXISTS {identifier(name)}")


def transaction_of(con: duckdb.DuckDBPyConnection) -> int | None:
    """Number of the connection's open transaction; None when every statement is one of its own."""
    numbers = {con.execute("SELECT current_transaction_id()").fetchone() for _ in range(2)}
    row = numbers.pop()
    return None if numbers or row is None else int(row[0])


def threads_of(con: duckdb.DuckDBPyConnection) -> int:
    """Threads the connection may use."""
    row = con.execute("SELECT current_setting('threads')").fetchone()
    return int(row[0]) if row is not None else 1


def _try(con: duckdb.DuckDBPyConnection, statement: str) -> None:
    import duckdb

    # After an error the connection may refuse everything until its owner rolls back; it is closed soon after then, and
    # what was attached goes with it.
    with suppress(duckdb.Error):
        con.execute(statement)
