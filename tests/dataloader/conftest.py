"""One lake for all loads of a test session: tests keep apart by the names of their tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from tests.conftest import private_settings
from tests.dataloader.servers import mariadb, source_pg

if TYPE_CHECKING:
    import duckdb

    from quayside.foundation.settings import Settings

__all__ = ["mariadb", "source_pg"]


@pytest.fixture(scope="session")
def shared_settings(
    session_settings: Settings, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    """Settings of a private home and a migrated database that the tests of this room share."""
    yield from private_settings(session_settings, tmp_path_factory.mktemp("loads"), template_database)


@pytest.fixture(scope="session")
def shared_con(shared_settings: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection of the shared lake."""
    from quayside.foundation.lake import Lake

    with closing(Lake(shared_settings).connect()) as con:
        yield con
