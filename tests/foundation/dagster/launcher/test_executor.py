"""The executor that forks steps from a run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.foundation.dagster.launcher.bench import Bench, open_instance, until, write_config
from tests.foundation.dagster.launcher.conftest import standing

pytestmark = [pytest.mark.integration, pytest.mark.slow]

DEFS = """
import json, os, threading, time
from pathlib import Path
import dagster as dg
import numpy as np
from quayside.foundation.dagster.launcher.executor import forking_executor

def note(context, **facts):
    path = Path(context.run.tags["folder"]) / f"{context.op.name}.json"
    path.with_suffix(".new").write_text(json.dumps({"pid": os.getpid(), "parent": os.getppid(), **facts}))
    path.with_suffix(".new").rename(path)

def step(name):
    @dg.op(name=name)
    def body(context):
        threads = len(os.listdir("/proc/self/task"))
        note(context, random=float(np.random.random()), threads=threads)
        print("output of", name)
        if context.run.tags.get("crash") == name:
            os._exit(5)
        if context.run.tags.get("hold"):
            time.sleep(600)
    return body

@dg.logger
def threaded(_):
    import logging
    threading.Thread(target=time.sleep, args=(600,), daemon=True, name="of a logger").start()
    return logging.getLogger("threaded")

a, b, c = (step(name) for name in "abc")

@dg.job(executor_def=forking_executor, config={"execution": {"config": {"max_concurrent": 2}}})
def steps_job():
    a(); b(); c()

@dg.job(executor_def=dg.multiprocess_executor, config={"execution": {"config": {"max_concurrent": 2}}})
def spawned_job():
    a(); b(); c()

@dg.job(executor_def=forking_executor, logger_defs={"threaded": threaded}, config={"loggers": {"threaded": {}}})
def threaded_job():
    a()

defs = dg.Definitions(jobs=[steps_job, spawned_job, threaded_job])
"""


@pytest.fixture(scope="module")
def _bench(token: str, postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("steps")
    (folder / "project").mkdir()
    (folder / "project" / "defs.py").write_text(DEFS)
    with open_instance(write_config(folder / "home", postgres_url, {})) as instance:
        bench = Bench(instance, folder / "project", folder)
        standing.append(bench)
        yield bench
        standing.remove(bench)


@pytest.fixture
def bench(_bench: Bench, tmp_path: Path) -> Bench:
    """A location with these jobs that the tests of this module share."""
    return replace(_bench, folder=tmp_path, launched=[])


def saw(bench: Bench, op: str) -> dict[str, object]:
    return json.loads((bench.folder / f"{op}.json").read_text())


def test_each_step_is_a_fork_of_the_run(bench: Bench) -> None:
    run_id = bench.submit("steps")
    assert bench.finished(run_id) == "SUCCESS", bench.texts(run_id)
    found = [saw(bench, op) for op in "abc"]
    parents = {f["parent"] for f in found}
    assert len(parents) == 1
    assert bench.said(run_id, f"Started process for run (pid: {parents.pop()}), forked from a warm server")
    assert len({f["pid"] for f in found}) == len({f["random"] for f in found}) == 3
    keys = [
        e.dagster_event.logs_captured_data
        for e in bench.instance.all_logs(run_id)
        if e.dagster_event and e.dagster_event.event_type_value == "LOGS_CAPTURED"
    ]
    outputs = []
    for data in keys:
        logs = bench.instance.compute_log_manager.get_log_data([run_id, "compute_logs", data.file_key])
        outputs.append((logs.stdout or b"").decode().strip())
    assert sorted(outputs) == ["output of a", "output of b", "output of c"]

    # The same events as when Dagster starts an interpreter for each.
    spawned = bench.submit("spawned")
    assert bench.finished(spawned) == "SUCCESS"
    assert sorted(bench.events(run_id)) == sorted(bench.events(spawned))


def test_a_step_that_dies_fails_alone(bench: Bench) -> None:
    run_id = bench.submit("steps", crash="b")
    assert bench.finished(run_id) == "FAILURE"
    assert bench.said(run_id, "unexpectedly exited with code 5")
    events = bench.events(run_id)
    assert (events.count("STEP_SUCCESS"), events.count("STEP_FAILURE")) == (2, 1)


def test_steps_end_with_a_run_that_is_canceled(bench: Bench) -> None:
    run_id = bench.submit("steps", hold="yes")
    for op in "ab":
        until((bench.folder / f"{op}.json").exists)
    assert bench.launcher.terminate(run_id)
    assert bench.finished(run_id) == "CANCELED"


def test_a_run_with_a_thread_spawns_its_steps_and_says_why(bench: Bench) -> None:
    run_id = bench.submit("threaded")
    assert bench.finished(run_id) == "SUCCESS", bench.texts(run_id)
    assert bench.said(
        run_id, "Steps get fresh interpreters, because a fork would break what the run has open: 1 thread"
    )
