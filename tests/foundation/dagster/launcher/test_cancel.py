"""Ending a run: asked first, forced when the time is up, from near and from far."""

from __future__ import annotations

import json
import signal

import pytest
from dagster._core.launcher.base import WorkerStatus
from tests.foundation.dagster.launcher.bench import Bench, stopped, until, with_token

pytestmark = pytest.mark.integration


def test_an_op_that_is_interrupted_cleans_up(warm: Bench):
    run_id = warm.submit("hold")
    warm.started(run_id)
    assert warm.launcher.terminate(run_id)
    assert warm.finished(run_id) == "CANCELED"
    assert json.loads((warm.folder / f"{run_id}.interrupted").read_text())["error"] == (
        "DagsterExecutionInterruptedError"
    )
    assert warm.events(run_id).count("PIPELINE_CANCELED") == 1
    assert not warm.launcher.terminate(run_id), "it has ended already"


@pytest.mark.slow
@pytest.mark.parametrize("job", ["resist", "block"])
def test_what_does_not_listen_is_killed_with_its_children(warm: Bench, job: str):
    run_id = warm.submit(job)
    child = warm.started(run_id).get("child")
    process = warm.record(run_id).process
    assert warm.launcher.terminate(run_id)
    assert process.alive()
    assert warm.finished(run_id) == "CANCELED"
    assert not process.alive()
    assert warm.said(run_id, "It had been asked to end.")
    assert child not in with_token()


@pytest.mark.slow
def test_force_terminate_ends_the_process_as_well(warm: Bench):
    """What the UI does with "force terminate": the run is marked at once, whatever the process does."""
    run_id = warm.submit("resist")
    warm.started(run_id)
    process = warm.record(run_id).process
    warm.instance.report_run_canceled(warm.run(run_id))
    until(lambda: not process.alive(), what="its warden saw it and ended the process")
    assert warm.run(run_id).status.value == "CANCELED"
    assert not warm.said(run_id, "unexpectedly")


def test_a_run_whose_process_is_gone_is_canceled_at_once(warm: Bench):
    run_id = warm.create("hold")
    warm.launch(run_id)
    warm.started(run_id)
    warm.place(run_id, folder=str(warm.folder))  # as if nothing were noted of it
    assert warm.launcher.terminate(run_id)
    assert warm.run(run_id).status.value == "CANCELED"
    until(lambda: warm.records.find(run_id) is None, what="its warden saw it and ended the process")


def test_canceled_before_its_process_began_it_does_not_execute(warm: Bench):
    run_id = warm.create("count")
    warm.instance.report_run_canceled(warm.run(run_id))
    warm.servers.run(_version(warm, run_id), run_id, _serialized(warm, run_id))
    until(lambda: warm.said(run_id, "Process for run exited"))
    assert warm.run(run_id).status.value == "CANCELED"
    assert not (warm.folder / "executions").exists()


@pytest.mark.slow
def test_canceled_from_another_host_it_ends_within_seconds(warm: Bench):
    run_id = warm.submit("hold")
    warm.started(run_id)
    warm.place(run_id, host="another")
    assert warm.launcher.terminate(run_id)
    assert warm.finished(run_id) == "CANCELED"
    assert (warm.folder / f"{run_id}.interrupted").exists()


@pytest.mark.slow
def test_a_server_that_hangs_does_not_lose_the_request(warm: Bench, monkeypatch: pytest.MonkeyPatch):
    """The launcher stops waiting for the server; its warden reads the run's state."""
    from quayside.foundation.dagster.launcher import protocol

    run_id = warm.submit("resist")
    warm.started(run_id)
    ask = protocol.request
    monkeypatch.setattr(protocol, "request", lambda path, message: ask(path, message, seconds=0.2))
    with stopped(warm.server_process()):
        assert warm.launcher.terminate(run_id)
        until(lambda: not warm.record(run_id).process.alive())
    assert warm.finished(run_id) == "CANCELED"


@pytest.mark.slow
def test_a_step_in_a_process_of_its_own_is_ended_too(warm: Bench):
    run_id = warm.submit("apart")
    step = warm.started(run_id)["pid"]
    assert warm.launcher.terminate(run_id)
    assert warm.finished(run_id) == "CANCELED"
    until(lambda: step not in with_token())


@pytest.mark.slow
def test_of_the_default_launcher_a_run_is_canceled_there(warm: Bench):
    run_id = warm.create("hold")
    from dagster._core.launcher.base import LaunchRunContext

    warm.launcher._default.launch_run(LaunchRunContext(warm.run(run_id), warm.workspace))
    warm.started(run_id)
    assert warm.launcher.check_run_worker_health(warm.run(run_id)).status is WorkerStatus.RUNNING
    assert warm.launcher.get_run_worker_debug_info(warm.run(run_id)) is None
    assert warm.launcher.terminate(run_id)
    assert warm.finished(run_id) == "CANCELED"


@pytest.mark.slow
def test_signals_to_the_whole_server_end_its_runs(fresh):
    """What a container that stops does: SIGTERM."""
    bench = fresh()
    runs = [bench.submit("hold"), bench.submit("resist")]
    for run_id in runs:
        bench.started(run_id)
    server = bench.server_process()
    server.signal(signal.SIGTERM)
    assert [bench.finished(run_id) for run_id in runs] == ["FAILURE", "FAILURE"]
    until(lambda: not server.alive())


def _version(warm: Bench, run_id: str):
    from dagster._core.launcher.base import LaunchRunContext

    return warm.launcher._version(LaunchRunContext(warm.run(run_id), warm.workspace))


def _serialized(warm: Bench, run_id: str) -> str:
    from dagster._serdes import serialize_value

    return serialize_value(warm.run(run_id))
