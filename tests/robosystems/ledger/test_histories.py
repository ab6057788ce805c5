"""Random histories, in PostgreSQL and in the model: equal to the credit. The long form is ``make histories``."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from tests.robosystems.histories import play

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def test_books_equal_the_model(con: psycopg.Connection[Any]) -> None:
    assert play(con, 80, seed=11) > 800
