"""What Dagster's run monitoring makes of runs of the launcher, and what the launcher says of their health."""

from __future__ import annotations

import logging
import signal
import time

import pytest
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG, MAX_RUNTIME_SECONDS_TAG
from dagster._core.test_utils import create_run_for_test
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from dagster._daemon.monitoring import execute_run_monitoring_iteration
from tests.foundation.dagster.launcher.bench import Bench, until

from quayside.foundation.dagster.launcher.warden import ALIVE_SECONDS, ALIVE_TAG

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def monitor(bench: Bench) -> None:
    with WorkspaceProcessContext(bench.instance, EmptyWorkspaceTarget()) as context:
        errors = [
            error for error in execute_run_monitoring_iteration(context, logging.getLogger("test")) if error
        ]
    assert errors == []


def health(bench: Bench, run_id: str) -> CheckRunHealthResult:
    return bench.launcher.check_run_worker_health(bench.run(run_id))


def go_on(bench: Bench, run_id: str) -> None:
    (bench.folder / "go").touch()
    assert bench.finished(run_id) == "SUCCESS"


def test_a_run_that_goes_is_let_go(warm: Bench):
    assert warm.launcher.supports_check_run_worker_health
    run_id = warm.submit("hold")
    warm.started(run_id)
    monitor(warm)
    found = health(warm, run_id)
    pid = warm.record(run_id).process.pid
    assert (found.status, found.run_worker_id) == (WorkerStatus.RUNNING, str(pid))
    info = warm.launcher.get_run_worker_debug_info(warm.run(run_id))
    assert info is not None
    assert f"process {pid} lives" in info
    go_on(warm, run_id)
    until(
        lambda: (
            warm.launcher.get_run_worker_debug_info(warm.run(run_id)) == "The run has no process any more."
        )
    )


def test_nobody_left_to_say_how_it_ended(fresh):
    """Run, fork server and warden killed together: monitoring finds the run."""
    bench = fresh()
    run_id = bench.submit("hold")
    bench.started(run_id)
    processes = [bench.warden(), bench.server_process(), bench.record(run_id).process]
    for process in processes:
        process.signal(signal.SIGKILL)
    until(lambda: not any(process.alive() for process in processes))
    assert health(bench, run_id).status is WorkerStatus.FAILED
    monitor(bench)
    assert bench.run(run_id).status.value == "FAILURE"
    assert bench.said(run_id, "nobody was left to record how it ended")
    # The next launch is as good as the first, and does away with what was noted of the dead.
    assert bench.finished(bench.submit("count")) == "SUCCESS"


def test_a_run_beyond_its_time_is_ended(warm: Bench):
    run_id = warm.submit("resist", **{MAX_RUNTIME_SECONDS_TAG: "0.1"})
    warm.started(run_id)
    process = warm.record(run_id).process
    until(lambda: time.time() - (warm.instance.get_run_record_by_id(run_id).start_time or 0) > 0.2)
    monitor(warm)
    assert warm.finished(run_id) == "FAILURE"
    assert warm.said(run_id, "Exceeded maximum runtime")
    until(lambda: not process.alive())


def test_of_another_host_the_last_sign_of_life_counts(warm: Bench):
    run_id = warm.submit("hold")
    warm.started(run_id)
    now = int(time.time())
    for changes, tags, status, words in [
        ({"at": now}, {}, WorkerStatus.RUNNING, "Sign of life"),
        ({"at": now - 1000}, {}, WorkerStatus.FAILED, "No sign of life from another"),
        ({"at": now - 1000}, {ALIVE_TAG: str(now - 5)}, WorkerStatus.RUNNING, "from another"),
        ({"at": now - 1000}, {ALIVE_TAG: str(now - 4 * int(ALIVE_SECONDS))}, WorkerStatus.FAILED, "is gone"),
    ]:
        warm.place(run_id, host="another", **changes)
        warm.instance.add_run_tags(run_id, tags)
        found = health(warm, run_id)
        assert found.status is status
        assert words in (found.msg or "")
    info = warm.launcher.get_run_worker_debug_info(warm.run(run_id))
    assert info == "The run's process is on another host: another."
    go_on(warm, run_id)


def test_a_run_started_before_this_launcher_was_configured(warm: Bench, tmp_path):
    """Its tags name a code server, or nothing at all."""
    run = create_run_for_test(warm.instance, "old")
    assert warm.launcher.check_run_worker_health(run).status is WorkerStatus.RUNNING
    there = {GRPC_INFO_TAG: f'{{"host": "localhost", "socket": "{tmp_path}/gone"}}'}
    run = create_run_for_test(warm.instance, "old", tags=there)
    found = warm.launcher.check_run_worker_health(run)
    assert (found.status, found.msg) == (WorkerStatus.RUNNING, "Its code server does not answer now.")


def test_a_retried_run_is_judged_by_its_own_launch(warm: Bench):
    """Dagster gives it the tags of the run before it: of a code server, and of a life that was long ago."""
    before = {GRPC_INFO_TAG: '{"host": "localhost", "socket": "/nowhere"}', ALIVE_TAG: "1"}
    run_id = warm.submit("hold", **before)
    warm.started(run_id)
    found = warm.launcher.check_run_worker_health(warm.run(run_id))
    assert (found.status, found.run_worker_id) == (WorkerStatus.RUNNING, str(warm.record(run_id).process.pid))
    warm.place(run_id, host="another")
    assert warm.launcher.check_run_worker_health(warm.run(run_id)).status is WorkerStatus.RUNNING
    warm.place(run_id, host=warm.launcher._host)
    assert warm.launcher.terminate(run_id)
    assert warm.finished(run_id) == "CANCELED"


def test_a_code_server_that_has_no_such_process(warm: Bench):
    """It is asked; it was started anew and knows nothing of the run."""
    [location] = warm.workspace.code_locations
    there = {GRPC_INFO_TAG: f'{{"host": "localhost", "socket": "{location.client.socket}"}}'}
    run = create_run_for_test(warm.instance, "old", tags=there)
    assert warm.launcher.check_run_worker_health(run).status is WorkerStatus.FAILED


def test_a_run_that_does_not_say_where_its_code_is(warm: Bench):
    """It cannot be warmed; what the default launcher then says is what counts."""
    run = create_run_for_test(warm.instance, "nowhere")
    with pytest.raises(Exception, match="None"):
        warm.instance.launch_run(run.run_id, warm.workspace)
    assert warm.run(run.run_id).status.value == "FAILURE"
    assert warm.said(run.run_id, "the run does not say where its code is")
