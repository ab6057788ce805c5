"""Servers and a connection for tests of sources."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import duckdb
import pytest

from quayside.dataloader.request import LoadRequest
from quayside.dataloader.sources.source import SourceTable, open_source
from quayside.foundation.settings import Settings

Opener = Callable[[LoadRequest], AbstractContextManager[SourceTable]]


@pytest.fixture
def opened(shared_settings: Settings, shared_con: duckdb.DuckDBPyConnection) -> Opener:
    """``opened(request)``: the source of a request, in the shared connection."""
    return lambda request: open_source(shared_settings, shared_con, request)


@pytest.fixture
def rows(shared_con: duckdb.DuckDBPyConnection) -> Callable[..., list[tuple[Any, ...]]]:
    """``rows(table, where=…, columns=…)``: what its relation holds, read in a transaction, sorted."""

    def read(table: SourceTable, *relation: Any, **options: Any) -> list[tuple[Any, ...]]:
        shared_con.execute("BEGIN")
        try:
            found = shared_con.execute(f"FROM {table.relation(*relation, **options)}").fetchall()
            return sorted(found, key=lambda row: [(value is None, value) for value in row])
        finally:
            shared_con.execute("ROLLBACK")

    return read
