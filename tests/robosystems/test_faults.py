"""The fault harness of billing in its short form, and the proof that it notices when a guard is taken out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800)]


def run_harness(*arguments: str) -> tuple[int, dict[str, Any]]:
    # A process of its own: the harness forks, which only a process without threads may do.
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.billing", *arguments],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("{"), done.stderr[-3000:]
    return done.returncode, json.loads(done.stdout)


def test_killed_and_run_again_is_as_if_undisturbed() -> None:
    code, report = run_harness("--kills", "12", "--twins", "1", "--seed", "7")
    assert report["problems"] == []
    assert code == 0
    assert report["kills"] >= 12


WITHOUT = {
    "key": "took 212.000000 credits instead of 112",
    "lock": "two consumers of one account: the second failed",
    "number": "two invoices of one series: the second failed",
    "transaction": "transfers differ",
}


def test_without_a_guard_the_harness_fails() -> None:
    code, report = run_harness("--without", *WITHOUT)
    assert code == 1
    for guard, expected in WITHOUT.items():
        said = [problem for problem in report["problems"] if problem.startswith(f"without {guard}:")]
        assert any(expected in problem for problem in said), (guard, report)
