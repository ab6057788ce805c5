"""The fault harness in its short form, and the proof that it notices when a guard is taken out."""

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
        [sys.executable, "-m", "tests.faults.kycc", *arguments],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("{"), done.stderr[-3000:]
    return done.returncode, json.loads(done.stdout)


def test_killed_and_run_again_is_as_if_undisturbed() -> None:
    code, report = run_harness("--kills", "5", "--twins", "1", "--seed", "7")
    assert report["problems"] == []
    assert code == 0
    assert report["kills"] >= 5
    assert report["killed_while_writing"] * 2 >= report["kills"]


@pytest.mark.parametrize(
    ("guard", "arguments", "expected"),
    [
        ("lock", ("--twins", "1", "--between-statements", "0"), "two runs at once"),
        ("transaction", ("--twins", "0", "--between-statements", "20"), "killed after statement"),
    ],
)
def test_without_a_guard_the_harness_fails(guard: str, arguments: tuple[str, ...], expected: str) -> None:
    # Where to strike is staged, not random: without the guard it is found every time.
    code, report = run_harness("--without", guard, "--kills", "0", *arguments)
    assert code == 1
    assert any(expected in problem for problem in report["problems"]), report
