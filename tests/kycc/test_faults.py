"""The fault harness in its short form, and the proof that it notices when a guard is taken out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import private_settings

from quayside.foundation.settings import Settings

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800)]

WITHOUT = {"lock": "two runs at once", "transaction": "killed after statement"}


@pytest.fixture
def other(session_settings: Settings, template_database: str, tmp_path: Path) -> Iterator[Settings]:
    yield from private_settings(session_settings, tmp_path / "other", template_database)


def test_killed_and_run_again_is_as_if_undisturbed(settings: Settings, other: Settings) -> None:
    urls = [s.database_url.get_secret_value() for s in (settings, other) if s.database_url]
    command = [sys.executable, "-m", "tests.faults.kycc", "--kills", "5", "--twins", "1", "--seed", "7"]
    # A process of its own: the harness forks, which only a process without threads may do.
    done = subprocess.run(
        [*command, "--databases", *urls, "--without", *WITHOUT],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("{"), done.stderr[-3000:]
    report = json.loads(done.stdout)
    assert report["problems"] == []
    assert report["kills"] >= 5
    assert report["killed_while_writing"] * 2 >= report["kills"]
    # Where to strike is staged, not random: without the guard it is found every time.
    assert done.returncode == 1
    for guard, expected in WITHOUT.items():
        assert any(expected in problem for problem in report["without"][guard]), (guard, report)
