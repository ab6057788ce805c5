"""Amounts are exact: no float anywhere in the package, no such column in its tables, and one way to round."""

from __future__ import annotations

import ast
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

import quayside.robosystems
from quayside.robosystems.amounts import credits_of, half_even

FOLDER = Path(quayside.robosystems.__file__).parent
#: Rooms in which no credit or cent is handled. A timeout is seconds; what a customer's file holds is theirs.
OTHER_ROOMS = (
    "adapters",
    "graphs",
    "provisioning",
    "subscriptions",
    "keys",
    "dagster/resources",
    "dagster/assets",
)


def floats_of(text: str) -> list[str]:
    """Where a module writes a float, calls float(), or divides with ``/`` on something that may be whole numbers."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, float):
            found.append(f"line {node.lineno}: {node.value}")
        if isinstance(node, ast.Name) and node.id == "float":
            found.append(f"line {node.lineno}: float")
    return found


@pytest.mark.unit
def test_no_module_that_handles_amounts_knows_floats():
    """Failure 28."""
    wrong = {}
    for path in sorted(FOLDER.rglob("*.py")):
        name = path.relative_to(FOLDER).as_posix()
        if not name.startswith(OTHER_ROOMS) and (found := floats_of(path.read_text("utf-8"))):
            wrong[name] = found
    assert wrong == {}


@pytest.mark.unit
def test_the_walk_sees_floats():
    assert len(floats_of("a = 0.5\nb = float(a)\n")) == 2


@pytest.mark.integration
def test_no_column_is_a_float(con: psycopg.Connection[Any]):
    found = con.execute(
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = 'robosystems' AND data_type IN ('real', 'double precision', 'money')"
    ).fetchall()
    assert found == []
    times = con.execute(
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = 'robosystems' AND data_type = 'timestamp without time zone'"
    ).fetchall()
    assert times == []


@pytest.mark.integration
def test_postgresql_and_python_round_alike(con: psycopg.Connection[Any]):
    numbers = random.Random(5)
    pairs = [
        (numbers.randrange(0, 10**15), numbers.choice((1, 2, 3, 7, 8, 28, 31, 24 << 30))) for _ in range(300)
    ]
    pairs += [(1, 2), (3, 2), (5, 2), (25, 10**7), (35, 10**7)]
    for places in (0, 6):
        found = con.execute(
            "SELECT robosystems.half_even(a, b, %s) FROM unnest(%s::numeric[], %s::numeric[]) AS u (a, b)",
            [places, [a for a, _ in pairs], [b for _, b in pairs]],
        ).fetchall()
        assert [row[0] for row in found] == [half_even(a, b, places) for a, b in pairs]


@pytest.mark.unit
def test_cents_are_rounded_half_to_even():
    assert [half_even(credits, 2, 0) for credits in (1, 3, 5, 7, 2005)] == [0, 2, 2, 4, 1002]
    assert credits_of("1.5") == Decimal("1.500000")
