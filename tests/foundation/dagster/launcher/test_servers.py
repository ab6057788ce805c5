"""Fork servers: killed, replaced, starting anew when code changes, ending when they are not needed."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dagster._core.launcher.base import LaunchRunContext
from tests.foundation.dagster.launcher.bench import Bench, children, until

from quayside.foundation.dagster.launcher import protocol
from quayside.foundation.dagster.launcher.__main__ import main as table
from quayside.foundation.dagster.launcher.launcher import WarmRunLauncher

pytestmark = [pytest.mark.integration, pytest.mark.slow]
Fresh = Callable[..., Bench]


@pytest.fixture
def default(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of runs given to the default launcher, which does nothing here."""
    given: list[str] = []

    class Default:
        def register_instance(self, instance: Any) -> None:
            pass

        def launch_run(self, context: LaunchRunContext) -> None:
            given.append(context.dagster_run.run_id)

        def join(self, timeout: int) -> None:
            pass

    monkeypatch.setattr("quayside.foundation.dagster.launcher.launcher.DefaultRunLauncher", Default)
    return given


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


# Killed


@pytest.mark.slow
def test_a_folder_that_was_cleaned_up_is_made_again_by_several_launches_at_once(fresh: Fresh):
    bench = fresh()
    assert bench.finished(bench.submit("count")) == "SUCCESS"
    shutil.rmtree(bench.servers.folder)
    # From several threads at once: they share the new server.
    runs = [bench.create("count") for _ in range(6)]
    threads = [threading.Thread(target=bench.launch, args=(run_id,)) for run_id in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {bench.finished(run_id) for run_id in runs} == {"SUCCESS"}
    assert bench.status()["served"] == 6


def test_runs_outlive_their_server(fresh: Fresh):
    """Killed while runs go: one finishes, one that crashes is reported, one is canceled; the next launch starts a server."""
    bench = fresh()
    held, crashing, canceled = (bench.submit("hold") for _ in range(3))
    for run_id in (held, crashing, canceled):
        bench.started(run_id)
    resisting = bench.submit("resist")
    bench.started(resisting)
    server = bench.server_process()
    server.signal(signal.SIGKILL)
    until(lambda: not server.alive())

    # One that ignores it is killed when its time is up, though its server is gone.
    assert bench.launcher.terminate(resisting)
    bench.record(crashing).process.signal(signal.SIGKILL)
    assert bench.finished(crashing) == "FAILURE"
    assert bench.said(crashing, "its fork server had been killed")

    assert bench.launcher.terminate(canceled)
    assert bench.finished(canceled) == "CANCELED"
    assert (bench.folder / f"{canceled}.interrupted").exists()
    assert bench.finished(resisting) == "CANCELED"

    assert bench.finished(bench.submit("count")) == "SUCCESS"
    assert bench.server_process() != server
    assert bench.launcher.check_run_worker_health(bench.run(held)).status.value == "RUNNING"
    (bench.folder / "go").touch()
    assert bench.finished(held) == "SUCCESS"


def test_a_killed_warden_is_replaced(warm: Bench):
    run_id = warm.submit("hold")
    warm.started(run_id)
    warden = warm.warden()
    warden.signal(signal.SIGKILL)
    until(lambda: not warden.alive())
    assert warm.warden() != warden
    warm.record(run_id).process.signal(signal.SIGKILL)
    assert warm.finished(run_id) == "FAILURE"
    assert warm.said(run_id, "SIGKILL")


@pytest.mark.slow
def test_without_a_launcher_a_server_ends_after_its_runs(fresh: Fresh):
    bench = fresh()
    run_id = bench.submit("hold")
    bench.started(run_id)
    server = bench.server_process()
    bench.launcher.dispose()
    assert server.alive()
    (bench.folder / "go").touch()
    assert bench.finished(run_id) == "SUCCESS"
    until(lambda: not server.alive())


@pytest.mark.slow
def test_under_dagster_dev_runs_end_with_the_launcher(fresh: Fresh, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DAGSTER_IS_DEV_CLI", "1")
    bench = fresh()
    run_id = bench.submit("hold")
    bench.started(run_id)
    bench.launcher.dispose()
    assert bench.finished(run_id) == "FAILURE"
    assert (bench.folder / f"{run_id}.interrupted").exists()


# Code that changes


def test_changed_code_and_data_are_what_the_next_run_has(fresh: Fresh):
    """A run that goes on keeps the code it began with."""
    bench = fresh()
    assert bench.saw()["settings"] == {"greeting": "hello"}
    held = bench.submit("hold")
    bench.started(held)
    first = bench.server_process()
    (bench.project / "settings.json").write_text(json.dumps({"greeting": "good day"}))
    assert bench.saw()["settings"] == {"greeting": "good day"}
    second = bench.server_process()
    assert first != second
    assert first.alive()
    (bench.folder / "go").touch()
    assert bench.finished(held) == "SUCCESS"
    until(lambda: not first.alive())

    source = (bench.project / "defs.py").read_text()
    (bench.project / "defs.py").write_text(source.replace("settings=SETTINGS", "settings='changed'"))
    assert bench.saw()["settings"] == "changed"
    assert bench.server_process() != second
    assert bench.saw()["settings"] == "changed"


def test_a_location_loaded_anew_gets_a_server_of_its_own(fresh: Fresh):
    bench = fresh()
    bench.saw()
    first = bench.server_process()
    bench.server_id = "2"
    bench.saw()
    assert bench.server_process() != first
    until(lambda: not first.alive())


@pytest.mark.slow
def test_a_file_written_at_each_load_is_no_endless_loop(
    fresh: Fresh, default: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("OPENS", "rewritten")
    bench = fresh()
    run_id = bench.submit("count")
    assert default == [run_id]
    assert bench.said(run_id, "times in a row")
    assert bench.said(run_id, "cache.txt")
    assert len(warnings(caplog)) == 1


# What cannot be warmed


@pytest.mark.parametrize(
    "what, words",
    [
        pytest.param(
            "thread socket channel duckdb sqlite",
            ["thread", "a socket (", "a gRPC channel", "a DuckDB connection", "an SQLite connection"],
            id="open",
        ),
        pytest.param(
            "duckdb", ["a DuckDB connection"], id="no descriptor, no thread", marks=pytest.mark.slow
        ),
        pytest.param("exit", ["it ends at import"], id="exit", marks=pytest.mark.slow),
        pytest.param("child", ["it left a child and gave up"], id="child", marks=pytest.mark.slow),
    ],
)
def test_what_is_open_after_import_is_named(
    fresh: Fresh,
    default: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    what: str,
    words: list[str],
):
    """Refused, with one warning for several runs. `no_orphan` looks for what the server left."""
    monkeypatch.setenv("OPENS", what)
    bench = fresh()
    runs = [bench.submit("count") for _ in range(3)]
    assert default == runs
    [warning] = warnings(caplog)
    assert "default launcher" in warning
    for word in words:
        assert word in warning
        assert all(bench.said(run_id, word) for run_id in runs)


@pytest.mark.slow
def test_a_load_that_takes_too_long_is_given_up(
    fresh: Fresh, default: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OPENS", "never")
    bench = fresh(start_seconds=3.0)
    run_id = bench.submit("count")
    assert default == [run_id]
    assert bench.said(run_id, "it did not load within 3 s")


def test_an_interpreter_that_is_not_here(fresh: Fresh, default: list[str], caplog: pytest.LogCaptureFixture):
    bench = fresh()
    bench.executable = "/nowhere/python"
    runs = [bench.submit("count") for _ in range(3)]
    assert default == runs
    assert bench.said(runs[0], "its interpreter /nowhere/python does not exist here")
    assert len(warnings(caplog)) == 1


def test_a_module_only_the_code_server_can_find(
    fresh: Fresh, default: list[str], caplog: pytest.LogCaptureFixture
):
    bench = fresh()
    (bench.project / "defs.py").write_text("import only_on_the_code_server")
    runs = [bench.submit("count") for _ in range(2)]
    assert default == runs
    assert bench.said(runs[0], "No module named 'only_on_the_code_server'")
    assert len(warnings(caplog)) == 1


@pytest.mark.slow
def test_it_is_tried_again_when_the_location_is_loaded_anew(fresh: Fresh, default: list[str]):
    bench = fresh()
    good = (bench.project / "defs.py").read_text()
    (bench.project / "defs.py").write_text("1 / 0")
    runs = [bench.submit("count")]
    (bench.project / "defs.py").write_text(good)
    assert default == runs
    bench.server_id = "2"
    assert bench.finished(bench.submit("count")) == "SUCCESS"
    assert default == runs


def test_a_folder_that_cannot_be_used(fresh: Fresh, default: list[str], caplog: pytest.LogCaptureFixture):
    """Not a folder, or somebody else's: runs start all the same."""
    bench = fresh(base_folder="/dev/null/not a folder")
    runs = [bench.submit("count") for _ in range(2)]
    assert default == runs
    assert len(warnings(caplog)) == 1


@pytest.mark.slow
def test_a_run_that_falls_back_is_a_run_like_any_other(warm: Bench, monkeypatch: pytest.MonkeyPatch):
    """Refused here, executed by the code server; health and end are its business then."""
    monkeypatch.setenv("OPENS", "thread")
    options = warm.launcher._options
    launcher = WarmRunLauncher(options)
    launcher.register_instance(warm.instance)
    run_id = warm.create("hold")
    launcher.launch_run(LaunchRunContext(warm.run(run_id), warm.workspace))
    warm.started(run_id)
    assert not warm.warm(run_id)
    assert launcher.check_run_worker_health(warm.run(run_id)).status.value == "RUNNING"
    (warm.folder / "go").touch()
    assert warm.finished(run_id) == "SUCCESS"
    launcher.join()
    launcher.dispose()


@pytest.mark.slow
def test_code_that_fails_at_import_fails_the_run(warm: Bench):
    """The file was broken after the code server had loaded it: the run that is started fails and says so."""
    good = (warm.project / "defs.py").read_text()
    try:
        (warm.project / "defs.py").write_text("1 / 0")
        run_id = warm.submit("count")
        assert warm.finished(run_id) == "FAILURE"
        assert warm.said(run_id, "ZeroDivisionError")
    finally:
        (warm.project / "defs.py").write_text(good)
        warm.launcher.dispose()


# Room


@pytest.mark.slow
def test_a_server_that_is_not_used_ends(fresh: Fresh):
    """Not while it has a run, however long that takes."""
    bench = fresh(idle_minutes=0.5 / 60)
    run_id = bench.submit("hold")
    bench.started(run_id)
    server, begun = bench.server_process(), time.monotonic()
    until(lambda: time.monotonic() - begun > 1)
    assert server.alive()
    (bench.folder / "go").touch()
    assert bench.finished(run_id) == "SUCCESS"
    until(lambda: not server.alive())
    bench.saw()
    assert bench.server_process() != server


@pytest.mark.slow
def test_memory_is_told_and_bounded(fresh: Fresh, tmp_path: Path):
    """Two locations in room for one: the one used last stays."""
    bench = fresh(max_memory_mb=1.0)
    bench.saw()
    first = bench.server_process()
    status = bench.status()
    assert 30 < status["memory"]["proportional"] < 500
    assert 0 < status["warden_memory"]["private"] < status["memory"]["proportional"]
    assert (status["served"], status["location"], status["pid"]) == (1, "project", first.pid)
    bench.server_id = "2"
    bench.saw()
    until(lambda: not first.alive())
    assert len(bench.servers._servers) == 1


def test_a_table_tells_of_them(
    warm: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """What ``python -m quayside.foundation.dagster.launcher`` prints."""
    warm.saw()
    monkeypatch.setattr("sys.argv", ["-m", str(warm.servers.folder.parent)])
    assert table() == 0
    [heading, line] = capsys.readouterr().out.splitlines()
    assert heading.split()[:2] == ["location", "pid"]
    assert line.split()[:2] == ["project", str(warm.server_process().pid)]


# Talking to a server


def test_rubbish_does_not_end_a_server(warm: Bench):
    warm.saw()
    path = warm.server().socket
    before = warm.server_process()
    for line in (
        b"\n",
        b"rubbish\n",
        b"\xff\xfe\n",
        b"[]\n",
        b"1\n",
        b'"run"\n',
        b"{}\n",
        b'{"what": []}\n',
        b'{"what": "run"}\n',
        b'{"what": "run", "run_id": "x", "run": 3}\n',
        b'{"what": "cancel"}\n',
        b'{"what": "cancel", "run_id": {}}\n',
        b"[" * 100_000 + b"\n",
        b'{"what": "sta',
        b"",
    ):
        with socket.socket(socket.AF_UNIX) as client, protocol._short(path) as address:
            client.connect(address)
            client.sendall(line)
            client.shutdown(socket.SHUT_WR)
    assert warm.status()["pid"] == before.pid
    assert warm.finished(warm.submit("count")) == "SUCCESS"
    assert before.alive()


def test_a_run_asked_for_twice_is_executed_once(warm: Bench):
    """Within a server, and across two of them."""
    run_id = warm.submit("hold")
    warm.started(run_id)
    process = warm.record(run_id).process
    context = LaunchRunContext(warm.run(run_id), warm.workspace)
    other = WarmRunLauncher(warm.launcher._options)
    other.register_instance(warm.instance)
    for launcher in (warm.launcher, other):
        launcher.launch_run(context)
    until(lambda: other._warm_servers().runs() == [])
    until(lambda: len(children(warm.server_process().pid)) == 2)
    assert warm.record(run_id).process == process
    assert warm.launcher.check_run_worker_health(warm.run(run_id)).status.value == "RUNNING"
    assert warm.launcher.terminate(run_id)
    assert warm.finished(run_id) == "CANCELED"
    assert warm.events(run_id).count("PIPELINE_START") == 1
    other.dispose()


@pytest.mark.slow
def test_a_fork_that_fails_is_told_and_the_server_goes_on(
    fresh: Fresh, default: list[str], monkeypatch: pytest.MonkeyPatch
):
    """No process left to be had, as in a container at its limit: the default launcher has its try."""
    bench = fresh()
    (bench.project / "sitecustomize.py").write_text(NO_FORK)
    monkeypatch.setenv("PYTHONPATH", str(bench.project))
    run_id = bench.submit("count")
    assert default == [run_id]
    assert bench.said(run_id, "Resource temporarily unavailable")


NO_FORK = """
import os

fork, forks = os.fork, []

def limited():
    forks.append(1)
    if len(forks) > 2:  # the trial and the warden
        raise BlockingIOError(11, "Resource temporarily unavailable")
    return fork()

os.fork = limited
"""
