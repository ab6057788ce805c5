"""Empty books: one database per module, in which every test is rolled back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from tests.conftest import private_settings

from quayside.foundation.postgres import connect
from quayside.foundation.settings import Settings
from quayside.robosystems.ledger import Ledger


@pytest.fixture(scope="module")
def books_settings(
    session_settings: Settings, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    """As `settings`, shared by the tests of a module: what they commit stays."""
    yield from private_settings(session_settings, tmp_path_factory.mktemp("books"), template_database)


@pytest.fixture(scope="module")
def books_connection(books_settings: Settings) -> Iterator[psycopg.Connection[Any]]:
    with connect(books_settings, autocommit=True) as connection:
        yield connection


@pytest.fixture
def con(books_connection: psycopg.Connection[Any]) -> Iterator[psycopg.Connection[Any]]:
    """A connection to empty books, inside a transaction that is rolled back at the end of the test."""
    with books_connection.transaction(force_rollback=True):
        yield books_connection


@pytest.fixture
def ledger(con: psycopg.Connection[Any]) -> Ledger:
    return Ledger(con)
