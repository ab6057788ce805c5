from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from quayside.kycc.generate import Batch, generate

AT = datetime(2026, 3, 2, 12, 30, tzinfo=UTC)


@pytest.fixture(scope="session")
def large() -> Batch:
    """Five blocks of transactions, enough for rates within a few per cent."""
    return generate("B-large", 10_000, generated_at=AT)


@pytest.fixture(scope="session")
def small() -> Batch:
    return generate("B-small", 100, generated_at=AT)


@pytest.fixture(scope="session")
def lake(large: Batch) -> Any:
    """The large batch as tables p, a, t, r, o in DuckDB, with `as_of` as a variable."""
    import duckdb

    con = duckdb.connect(config={"threads": 2})
    con.execute("SET TimeZone = 'UTC'")
    con.execute("SET VARIABLE as_of = ?", [AT])
    for name, table in {
        "p": large.parties,
        "a": large.accounts,
        "t": large.transactions,
        "r": large.relationships,
        "o": large.outcomes,
    }.items():
        con.register("incoming", table)
        con.execute(f"CREATE TABLE {name} AS FROM incoming")
        con.unregister("incoming")
    yield con
    con.close()
