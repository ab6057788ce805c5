"""The run queue that is looked at again as soon as short runs have ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import PythonFileTarget
from tests.foundation.dagster.launcher.bench import (
    LOCATION,
    Bench,
    make_project,
    open_instance,
    until,
    write_config,
)

from quayside.foundation.dagster.launcher.coordinator import PromptRunCoordinator

QUEUE = {
    "module": "quayside.foundation.dagster.launcher.coordinator",
    "class": "PromptRunCoordinator",
    "config": {"max_concurrent_runs": 2},
}


@pytest.mark.unit
def test_it_takes_the_settings_of_the_queue_it_stands_for() -> None:
    known = PromptRunCoordinator.config_type()
    assert isinstance(known, dict)
    assert {"max_concurrent_runs", "tag_concurrency_limits", "dequeue_num_workers"} <= set(known)
    assert not {"dequeue_interval_seconds", "dequeue_use_threads"} & set(known)
    queue = PromptRunCoordinator(max_concurrent_runs=3)
    assert queue.get_run_queue_config().max_concurrent_runs == 3
    assert (queue.dequeue_use_threads, queue.dequeue_num_workers) == (True, 8)
    assert 0 < queue.dequeue_interval_seconds < 0.5
    assert PromptRunCoordinator(dequeue_num_workers=2).dequeue_num_workers == 2


@pytest.mark.integration
@pytest.mark.slow
def test_a_launch_waits_for_the_end_of_a_short_run_and_no_longer(
    fresh: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = fresh()
    bench.saw()  # the server is there
    monkeypatch.setattr(type(bench.instance), "run_coordinator", PromptRunCoordinator())
    # A launch that did not notice the end would hang.
    monkeypatch.setattr(PromptRunCoordinator, "linger_seconds", 3000.0)
    short = bench.submit("count")
    assert bench.records.find(short) is None, "its process has ended"
    assert bench.run(short).is_finished
    monkeypatch.setattr(PromptRunCoordinator, "linger_seconds", 0.2)
    began = time.monotonic()
    long = bench.submit("hold")
    assert time.monotonic() - began >= 0.2
    assert not bench.run(long).is_finished
    (bench.folder / "go").touch()
    assert bench.finished(long) == "SUCCESS"


@pytest.mark.integration
@pytest.mark.slow
def test_the_limit_holds_and_a_burst_is_executed_once(
    token: str, own_postgres_url: str, tmp_path: Path
) -> None:
    project = make_project(tmp_path / "project", greeting="hello")
    home = write_config(tmp_path / "home", own_postgres_url, {}, run_coordinator=QUEUE)
    workspace = {
        "python_file": {
            "relative_path": str(project / "defs.py"),
            "attribute": "defs",
            "location_name": LOCATION,
            "working_directory": str(project),
        }
    }
    (home / "workspace.yaml").write_text(yaml.safe_dump({"load_from": [workspace]}))
    with (
        open_instance(home) as instance,
        WorkspaceProcessContext(
            instance, PythonFileTarget(str(project / "defs.py"), "defs", str(project), LOCATION)
        ) as context,
    ):
        bench = Bench(instance, project, tmp_path, context.create_request_context())
        mine = {"prompt": "yes"}

        def enqueue(job: str) -> str:
            run_id = bench.create(job, **mine)
            instance.submit_run(run_id, bench.workspace)
            return run_id

        held = [enqueue("hold") for _ in range(4)]
        with (home / "daemon.log").open("wb") as log:
            daemon = subprocess.Popen(
                [sys.executable, "-m", "dagster._daemon", "run", "-w", str(home / "workspace.yaml")],
                env=os.environ | {"DAGSTER_HOME": str(home)},
                cwd=home,
                stdout=log,
                stderr=log,
            )
        try:
            until(lambda: len(list(tmp_path.glob("*.started"))) == 2, what="two runs go on")
            time.sleep(2)  # several looks at the queue
            states = [bench.run(run_id).status for run_id in held]
            assert states.count(dg.DagsterRunStatus.QUEUED) == 2, states
            (tmp_path / "go").touch()
            for run_id in held:
                assert bench.finished(run_id) == "SUCCESS"

            burst = [enqueue("count") for _ in range(12)]
            for run_id in burst:
                assert bench.finished(run_id) == "SUCCESS"
            executed = (tmp_path / "executions").read_text().split()
            assert sorted(executed) == sorted(burst)
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(240)
