"""Fixtures for tests that can share a database: import `module_settings` where it is needed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.conftest import private_settings

from quayside.foundation.postgres import connect
from quayside.foundation.settings import Settings


@pytest.fixture(scope="module")
def module_settings(
    session_settings: Settings, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    """As `settings`, made once for all tests of a module, with the customer ``c``."""
    for settings in private_settings(session_settings, tmp_path_factory.mktemp("module"), template_database):
        with connect(settings) as con:
            con.execute("INSERT INTO robosystems.customers (customer_id, name) VALUES ('c', 'C')")
        yield settings
