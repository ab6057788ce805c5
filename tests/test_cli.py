"""The command line as a whole: every command answers --help, errors are one sentence, nothing is loaded too early."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from quayside.cli.main import COMMANDS, run

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


#: What is typed, and the sentence that answers it.
REFUSED = {
    "bogus": "No such command 'bogus'; see `quayside --help`.",
    "--bogus": "No such option '--bogus'; see `quayside --help`.",
    "tables list --limit 0": "No such option: --limit; see `quayside tables list --help`.",
    "tables bogus": "No such command 'bogus'; see `quayside tables --help`.",
    "tables sources add": "Missing argument 'KEY'; see `quayside tables sources add --help`.",
    "tables add --source": "Option '--source' requires an argument; see `quayside tables --help`.",
    "tables history 1 --limit 0": "Invalid value for '--limit': Input should be greater than or equal to 1; see "
    "`quayside tables history --help`.",
    "doctor bogus": "Got unexpected extra argument (bogus); see `quayside doctor --help`.",
    "lake query": "Missing argument 'sql'; see `quayside lake query --help`.",
    "credits grant graph": "Missing argument 'amount'; see `quayside credits grant --help`.",
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_what_is_typed_wrongly_is_one_sentence(
    arguments: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("QUAYSIDE_DEBUG", "1")  # which is for what went wrong, and not for this
    with pytest.raises(SystemExit) as ended:
        run(arguments.split())
    assert ended.value.code == 2
    assert capsys.readouterr() == ("", f"quayside: {REFUSED[arguments]}\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_refuses_what_it_does_not_know(name: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        run([name, "--bogus"])
    assert ended.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("quayside: No such option")
    assert line.endswith(f"; see `quayside {name} --help`.")


@pytest.mark.parametrize("module", ["doctor", "tables"])  # click's own, and Typer's
def test_ctrl_c_ends_a_command_without_a_trace(module: str, monkeypatch: pytest.MonkeyPatch):
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("quayside.foundation.settings.load_settings", interrupted)
    with pytest.raises(SystemExit) as ended:
        run([module, *(["list"] if module == "tables" else [])])
    assert ended.value.code == 130


def test_a_command_that_is_not_finished_shows_its_help(capsys: pytest.CaptureFixture[str]):
    for arguments, shown in (([], "Commands:"), (["tables"], "Usage: quayside tables")):
        with pytest.raises(SystemExit) as ended:
            run(arguments)
        assert ended.value.code == 2
        assert shown in "".join(capsys.readouterr())


def test_a_wrong_setting_is_one_sentence_and_exit_code_2():
    done = quayside("doctor", REDIS_PORT="wrong")
    assert done.returncode == 2
    assert done.stderr.startswith("quayside: Settings are not usable: REDIS_PORT ")
    assert done.stderr.count("\n") == 1


def test_a_trace_on_request():
    done = quayside("doctor", REDIS_PORT="wrong", QUAYSIDE_DEBUG="1")
    assert "Traceback" in done.stderr
