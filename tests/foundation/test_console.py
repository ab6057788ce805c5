"""Tables and JSON of list commands."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from quayside.foundation import console

pytestmark = pytest.mark.unit

ROWS = [
    {
        "party_id": "p1",
        "score": 712,
        "amount": Decimal("10.50"),
        "at": datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
    },
    {"party_id": "株式会社", "score": None, "amount": Decimal("7"), "at": None},
]


def test_a_table_is_aligned_and_numbers_stand_right(capsys: pytest.CaptureFixture[str]):
    console.show(ROWS)
    assert capsys.readouterr().out.splitlines() == [
        "party_id  score  amount  at",
        "p1          712   10.50  2026-01-02 03:04:00+00:00",
        "株式会社              7",
    ]


def test_columns_choose_and_order_the_table_but_json_is_whole(capsys: pytest.CaptureFixture[str]):
    console.show(ROWS, ["score", "party_id"])
    assert capsys.readouterr().out.splitlines()[0] == "score  party_id"
    console.show(ROWS, ["score"], as_json=True)
    assert json.loads(capsys.readouterr().out)[0] == {
        "party_id": "p1",
        "score": 712,
        "amount": "10.50",
        "at": "2026-01-02T03:04:00+00:00",
    }


def test_nothing_is_said_so_and_is_an_empty_list(capsys: pytest.CaptureFixture[str]):
    console.show([])
    assert capsys.readouterr().out == "(none)\n"
    console.show([], as_json=True)
    assert json.loads(capsys.readouterr().out) == []


def test_stored_names_cannot_drive_the_terminal(capsys: pytest.CaptureFixture[str]):
    console.show([{"name": "a\x1b[2J\nb"}])
    assert capsys.readouterr().out.splitlines() == ["name", "a\ufffd[2J\ufffdb"]


def test_json_is_json_even_for_nan_and_odd_types(capsys: pytest.CaptureFixture[str]):
    console.show_json({"a": float("nan"), "b": {date(2026, 1, 2)}, "c": (1, float("inf"))})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": ["2026-01-02"], "c": [1, None]}
