"""Tests that the docs name are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "page, below",
    [
        ("docs/kycc/failures.md", "tests/kycc"),
        ("docs/dataloader/failures.md", "tests/dataloader"),
        ("docs/robosystems/failures.md", "tests/robosystems"),
    ],
)
def test_every_test_a_page_names_exists(page: str, below: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    rows = re.findall(r"^\| (\d+) \|", text, re.MULTILINE)
    assert [int(number) for number in rows] == list(range(1, len(rows) + 1))
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", text)
    assert len(named) >= len(rows)
    missing = [
        f"{path}::{name}"
        for path, name in named
        if f"def {name}(" not in (ROOT / below / path).read_text("utf-8")
    ]
    assert missing == []
