"""The fault harness in its short form, and the proof that it notices when a guard is taken out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.faults.dataloader.books import Attempt, of_table
from tests.faults.dataloader.compare import compare
from tests.faults.dataloader.kills import KINDS, digest, schedule
from tests.faults.dataloader.staged import GUARDS

SEED, KILLS, TABLES = 29407, 10, "rates,orders,events,prices,ledger,customers,alerts"


def run_harness(*arguments: str) -> tuple[int, dict[str, Any]]:
    # A process of its own: the harness forks, which only a process without threads may do.
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.dataloader", *arguments],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("{"), done.stderr[-3000:]
    return done.returncode, json.loads(done.stdout)


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.timeout(2700)
def test_killed_at_random_every_table_equals_its_source_and_is_loaded_as_often_as_due() -> None:
    # cases 1, 3, 16, 25, 45: workers, runs, daemon and databases are killed while everything goes on
    code, report = run_harness(
        "--kills", str(KILLS), "--seed", str(SEED), "--tables", TABLES, "--bound", "400"
    )
    assert report["problems"] == [], report
    assert code == 0
    assert report["kills"] == KILLS
    assert all(report["by_kind"][kind] for kind in KINDS)
    assert report["active"] * 2 >= report["kills"]
    assert report["outcomes"].keys() <= {"Succeeded", "Failed", "Cancelled"}


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_each_guard_prevents_what_happens_without_it() -> None:
    # cases 11, 12, 45: the interleavings are staged, not random, so that without the guard each goes wrong every time
    code, report = run_harness("--staged", "--without", "all")
    assert report["with_guards"] == {guard: [] for guard in GUARDS}
    expected = {
        "fencing": "are there twice",
        "unique": "loaded 2 times",
        "cursor-in-commit": "are there twice",
    }
    for guard in GUARDS:
        assert any(expected[guard] in problem for problem in report["without"][guard]), report
    assert code == 1


@pytest.mark.unit
def test_a_seed_is_a_schedule_and_every_kind_has_its_share() -> None:
    planned = schedule(1, 200, 13)
    assert digest(planned) == digest(schedule(1, 200, 13)) != digest(schedule(2, 200, 13))
    assert len(planned) == 200
    kinds = [kill.kind for kill in planned]
    assert all(kinds.count(kind) >= 30 for kind in ("worker", "run", "daemon", "postgres"))
    assert sum(kill.phase is not None for kill in planned) >= 100
    short = schedule(SEED, KILLS, len(TABLES.split(",")))
    assert {kill.kind for kill in short} == set(KINDS)
    assert sum(kill.phase is not None for kill in short) >= 8


@pytest.mark.unit
def test_the_comparison_sees_what_is_missing_extra_different_or_twice() -> None:
    wanted = [(1, "a"), (2, "b")]
    assert compare(wanted, [(2, "b"), (1, "a")]) == []
    assert "missing" in compare(wanted, [(1, "a")])[0]
    assert "not in the source" in compare(wanted, [*wanted, (3, "c")])[0]
    assert "other values" in compare(wanted, [(1, "a"), (2, "c")])[0]
    assert "twice" in compare(wanted, [*wanted, (1, "a")])[0]


@pytest.mark.unit
def test_the_books_see_what_is_open_lost_or_loaded_twice() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    ticks = [start, start + timedelta(minutes=1)]

    def attempt(number: int, status: str | None, minute: float, final: bool = True) -> Attempt:
        return Attempt(1, number, status, start + timedelta(minutes=minute, seconds=1), final)

    right = [attempt(1, "Succeeded", 0), attempt(2, "Failed", 1), attempt(3, "Succeeded", 1.5)]
    assert of_table(right, ticks, 3) == []
    parts = [attempt(1, "Succeeded", 0, final=False), *[attempt(n + 1, "Succeeded", n - 1) for n in (1, 2)]]
    assert of_table(parts, ticks, 3) == []
    assert "open" in of_table([attempt(1, "Succeeded", 0), attempt(2, None, 1)], ticks, 2)[0]
    assert "lacks" in of_table([right[0], right[2]], ticks, 3)[0]
    assert "loaded 0 times" in of_table(right[:2], ticks, 2)[0]
    assert (
        "loaded 2 times"
        in of_table([attempt(1, "Succeeded", 0), attempt(2, "Succeeded", 0.5)], ticks[:1], 2)[0]
    )
    assert "before it was due" in of_table([attempt(1, "Succeeded", -1), *right[1:]], ticks, 3)[-1]
