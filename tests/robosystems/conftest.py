"""A migrated database with empty books."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from quayside.foundation.postgres import connect
from quayside.foundation.settings import Settings
from quayside.robosystems.ledger import Ledger


@pytest.fixture
def con(settings: Settings) -> Iterator[psycopg.Connection[Any]]:
    """An autocommit connection to empty books."""
    with connect(settings, autocommit=True) as connection:
        yield connection


@pytest.fixture
def ledger(con: psycopg.Connection[Any]) -> Ledger:
    return Ledger(con)
