"""One run from start to end: how it ends, what it sees, what the instance is told."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import pytest
import sqlalchemy
from dagster._core.events import DagsterEventType
from dagster._core.storage.compute_log_manager import ComputeIOType
from tests.foundation.dagster.launcher.bench import Bench, until, with_token

from quayside.foundation.dagster.launcher.worker import close_connections

pytestmark = pytest.mark.integration


def test_a_run_succeeds_in_a_session_of_its_own(warm: Bench):
    run_id = warm.submit("look", owner="me")
    assert warm.finished(run_id) == "SUCCESS"
    assert warm.warm(run_id)
    assert warm.run(run_id).tags["owner"] == "me"
    until(lambda: warm.records.find(run_id) is None, what="its record is gone")
    assert warm.status()["runs"] == []


def test_it_finds_what_a_new_interpreter_would(warm: Bench):
    seen = warm.saw()
    assert seen["pid"] == seen["sid"] == seen["group"] != os.getsid(0)
    assert seen["folder"] == seen["path"] == str(warm.project)
    assert seen["settings"] == {"greeting": "hello"}
    assert seen["signals"] == [signal.SIG_DFL, signal.SIG_IGN]
    assert seen["blocked"] == []
    assert not seen["children"]


def test_it_has_what_its_location_names_beforehand(warm: Bench):
    assert warm.saw()["preloaded"]


def test_nothing_of_a_run_reaches_the_next(warm: Bench):
    first, second = warm.saw(), warm.saw()
    assert first["pid"] != second["pid"]
    assert (first["seen"], first["left"]) == (second["seen"], second["left"]) == ([], None)
    assert first["folder"] == second["folder"]
    assert first["random"] != second["random"]
    assert first["numpy"] != second["numpy"]


def test_numpy_works_in_the_run_also_with_threads(warm: Bench):
    assert warm.saw()["product"] == 400**3


def test_no_socket_of_the_server_is_open_in_a_run(warm: Bench):
    seen = warm.saw()
    open_there = Path(f"/proc/{warm.server_process().pid}/fd").iterdir()
    sockets = {name for link in open_there if (name := str(link.readlink())).startswith("socket:")}
    assert len(sockets) >= 3  # the launcher's, its own, the warden's
    assert not sockets & set(seen["descriptors"])


def test_a_failure_is_recorded_as_such(warm: Bench):
    run_id = warm.submit("fail")
    assert warm.finished(run_id) == "FAILURE"
    [failure] = warm.instance.all_logs(run_id, of_type=DagsterEventType.STEP_FAILURE)
    assert "boom" in str(failure.get_dagster_event().step_failure_data.error)
    assert warm.events(run_id).count("PIPELINE_FAILURE") == 1
    assert not warm.said(run_id, "unexpectedly")


@pytest.mark.parametrize(
    "tags, words",
    [
        ({"how": "_exit", "code": "0"}, "unexpectedly exited with code 0"),
        ({"how": "_exit", "code": "3"}, "unexpectedly exited with code 3"),
        ({"how": "kill"}, "SIGKILL"),
        ({"how": "fault"}, "SIGSEGV"),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else "",
)
def test_a_process_that_is_gone_is_reported_at_once(warm: Bench, tags: dict[str, str], words: str):
    run_id = warm.submit("leave", **tags)
    assert warm.finished(run_id) == "FAILURE"
    assert warm.said(run_id, words), warm.texts(run_id)
    assert warm.events(run_id).count("PIPELINE_FAILURE") == 1
    [failed] = warm.instance.all_logs(run_id, of_type=DagsterEventType.RUN_FAILURE)
    assert failed.get_dagster_event().job_failure_data.failure_reason.value == "UNEXPECTED_TERMINATION"


@pytest.mark.parametrize("code", ["0", "3"])
def test_an_op_that_exits_the_interpreter_fails_its_run(warm: Bench, code: str):
    run_id = warm.submit("leave", how="exit", code=code)
    assert warm.finished(run_id) == "FAILURE"


def test_a_step_is_retried_by_its_policy(warm: Bench):
    run_id = warm.submit("flaky")
    assert warm.finished(run_id) == "SUCCESS"
    assert Counter(warm.events(run_id))["STEP_RESTARTED"] == 2


def test_output_of_steps_is_where_the_ui_reads_it(warm: Bench):
    run_id = warm.submit("speak")
    assert warm.finished(run_id) == "SUCCESS"
    key = _log_key(warm, run_id)
    manager = warm.instance.compute_log_manager
    assert manager.is_capture_complete(key)
    data = manager.get_log_data(key)
    assert data.stdout is not None
    assert data.stderr is not None
    assert data.stdout.decode().splitlines() == ["from print", "from C", "from a child"]
    for line in ("from print to stderr", "from a child to stderr"):
        assert line in data.stderr.decode().splitlines()
    assert manager.get_log_metadata(key).stdout_location.endswith(f".{ComputeIOType.STDOUT.value[3:]}")
    assert warm.said(run_id, "from the logger")


def test_output_before_a_crash_is_kept(warm: Bench):
    run_id = warm.submit("leave", how="kill")
    assert warm.finished(run_id) == "FAILURE"
    data = warm.instance.compute_log_manager.get_log_data(_log_key(warm, run_id))
    assert data.stdout == b"last words\n"


def _log_key(warm: Bench, run_id: str) -> list[str]:
    [captured] = warm.instance.all_logs(run_id, of_type=DagsterEventType.LOGS_CAPTURED)
    return [run_id, "compute_logs", captured.get_dagster_event().logs_captured_data.file_key]


@pytest.mark.slow
def test_what_a_run_leaves_running_ends_with_it(warm: Bench):
    run_id = warm.submit("abandon")
    child = warm.started(run_id)["child"]
    assert warm.finished(run_id) == "SUCCESS"
    until(lambda: child not in with_token(), what="the child ended")


@pytest.mark.slow
def test_events_are_those_of_the_default_launcher(warm: Bench):
    for job in ("fail", "flaky"):  # the second succeeds in the end
        ours = warm.submit(job)
        theirs = warm.create(job)
        warm.instance.report_engine_event("Started by the default launcher", warm.run(theirs))
        warm.launcher._default.launch_run(_context(warm, theirs))
        for run_id in (ours, theirs):
            warm.finished(run_id)
            until(lambda i=run_id: warm.said(i, "Process for run exited"))
        known = [*warm.events(theirs)]
        known[0] = "PIPELINE_STARTING"  # what the instance says in `launch_run`
        assert warm.events(ours) == known


def _context(warm: Bench, run_id: str):
    from dagster._core.launcher import LaunchRunContext

    return LaunchRunContext(warm.run(run_id), warm.workspace)


@pytest.mark.slow
def test_steps_in_processes_of_their_own(warm: Bench):
    run_id = warm.submit("apart_short")
    assert warm.finished(run_id) == "SUCCESS"
    assert Path(warm.folder / "executions").read_text().split() == [run_id]


@pytest.mark.slow
def test_a_killed_run_takes_the_processes_of_its_steps_along(warm: Bench):
    """`no_orphan` looks for them."""
    run_id = warm.submit("apart")
    step = warm.started(run_id)
    run = warm.record(run_id).process
    assert step["pid"] != run.pid
    run.signal(signal.SIGKILL)
    assert warm.finished(run_id) == "FAILURE"
    until(lambda: step["pid"] not in with_token(), what="the step's process ended")


@pytest.mark.slow
def test_forty_at_once_each_exactly_once(warm: Bench):
    runs = [warm.create("count") for _ in range(40)]
    for run_id in runs:
        warm.launch(run_id)
    assert {warm.finished(run_id) for run_id in runs} == {"SUCCESS"}
    assert Counter((warm.folder / "executions").read_text().split()) == dict.fromkeys(runs, 1)
    assert all(warm.events(run_id).count("PIPELINE_START") == 1 for run_id in runs)
    until(lambda: list(warm.records.folder.iterdir()) == [])
    warm.launcher.join()


def test_a_run_outlives_a_restart_of_its_database(warm: Bench):
    """Its connections are closed while an op works, as by a restart or a firewall that forgets them."""
    held, crashing = warm.submit("hold"), warm.submit("hold")
    for run_id in (held, crashing):
        warm.started(run_id)
    process = warm.record(crashing).process
    url = sqlalchemy.make_url(warm.instance.run_storage.postgres_url)
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    close_connections(warm.instance)
    with engine.connect() as connection:
        connection.execute(
            sqlalchemy.text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid()"
            )
        )
    process.signal(signal.SIGKILL)
    assert warm.finished(crashing) == "FAILURE"
    (warm.folder / "go").touch()
    assert warm.finished(held) == "SUCCESS", warm.texts(held)
