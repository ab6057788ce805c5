"""The command line as a whole: every command answers --help, errors are one sentence, nothing is loaded too early."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from quayside.cli.main import COMMANDS

pytestmark = pytest.mark.unit


def quayside(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from quayside.cli.main import run; run()", *arguments],
        env=os.environ | variables,
        capture_output=True,
        text=True,
    )


def test_help_lists_every_command():
    done = quayside("--help")
    assert done.returncode == 0
    assert done.stderr == ""
    for name, (_, text) in COMMANDS.items():
        assert any(line.split()[:1] == [name] and text in line for line in done.stdout.splitlines())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_and_touches_nothing(name: str, tmp_path: Path):
    done = quayside(name, "--help", QUAYSIDE_HOME=str(tmp_path / "home"))
    assert done.returncode == 0, done.stderr
    assert "Usage: quayside " + name in done.stdout
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("arguments", [["bogus"], *([name, "--bogus"] for name in COMMANDS)])
def test_wrong_usage_is_explained_without_a_trace(arguments: list[str]):
    done = quayside(*arguments)
    assert done.returncode == 2
    assert "bogus" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_setting_is_one_sentence_and_exit_code_2():
    done = quayside("doctor", REDIS_PORT="wrong")
    assert done.returncode == 2
    assert done.stderr.startswith("quayside: Settings are not usable: REDIS_PORT ")
    assert done.stderr.count("\n") == 1


def test_a_trace_on_request():
    done = quayside("doctor", REDIS_PORT="wrong", QUAYSIDE_DEBUG="1")
    assert "Traceback" in done.stderr
