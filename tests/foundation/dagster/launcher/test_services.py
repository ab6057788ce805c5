"""The launcher under real services: code server, webserver and daemon as three processes, and `dagster dev`."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster import DagsterRunStatus, RunsFilter
from tests.foundation.dagster.launcher.bench import (
    LOCATION,
    Bench,
    children,
    make_project,
    open_instance,
    until,
    with_token,
    write_config,
)
from tests.foundation.dagster.launcher.conftest import standing

from quayside.foundation.dagster.launcher.launcher import WORKER_TAG
from quayside.foundation.dagster.launcher.processes import Process, Record, Records

pytestmark = [pytest.mark.integration, pytest.mark.slow]

LAUNCH = """
mutation ($job: String!, $tags: [ExecutionTag!]) { done: launchRun(executionParams: {
    selector: {repositoryLocationName: "project", repositoryName: "__repository__", jobName: $job},
    runConfigData: {}, executionMetadata: {tags: $tags}})
  { __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }
"""
TERMINATE = """
mutation ($run: String!, $policy: TerminateRunPolicy) { done: terminateRun(runId: $run, terminatePolicy: $policy)
  { __typename ... on TerminateRunFailure { message } ... on PythonError { message } } }
"""
READY = "{ done: repositoriesOrError { __typename ... on RepositoryConnection { nodes { name } } } }"


@dataclass
class Services:
    """Processes on one DAGSTER_HOME, and what the UI would ask them."""

    home: Path
    port: int
    bench: Bench
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, *command: str, **variables: str) -> subprocess.Popen[bytes]:
        with (self.home / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", *command],
                env=os.environ | {"DAGSTER_HOME": str(self.home), "WARM_FOLDER": str(self.home)} | variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.home,
                # A shell's background job ignores Ctrl-C, and so would all that it starts.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        return self.running[name]

    def start_daemon(self) -> None:
        self.start("daemon", "dagster._daemon", "run", "-w", str(self.home / "workspace.yaml"))

    def log(self, name: str) -> str:
        return (self.home / f"{name}.log").read_text()

    def end(self) -> None:
        for process in reversed(self.running.values()):
            process.send_signal(signal.SIGTERM)
        for process in self.running.values():
            process.wait(240)

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/graphql",
            data=json.dumps({"query": query, "variables": variables}).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer
        return answer["data"]["done"]

    def ready(self) -> bool:
        try:
            return bool(self.ask(READY).get("nodes"))
        except OSError:
            return False

    def submit(self, job: str, **tags: str) -> str:
        """Launch it as the UI does: it goes to the queue."""
        tags = {"folder": str(self.bench.folder), **tags}
        listed = [{"key": key, "value": value} for key, value in tags.items()]
        done = self.ask(LAUNCH, job=f"{job}_job", tags=listed)
        assert done["__typename"] == "LaunchRunSuccess", done
        return done["run"]["runId"]

    def terminate(self, run_id: str, policy: str = "SAFE_TERMINATE") -> None:
        assert self.ask(TERMINATE, run=run_id, policy=policy)["__typename"] == "TerminateRunSuccess"

    def standing(self) -> set[int]:
        """What may be there while no run is going."""
        found = {process.pid for process in self.running.values()}
        found |= {
            pid
            for pid, line in with_token().items()
            if "dagster api grpc" in line or "resource_tracker" in line
        }
        found |= {pid for process in self.running.values() for pid in children(process.pid)}
        runs = {record.process.pid for record in self.records()}
        return found | {pid for server in self.servers() for pid in children(server) - runs}

    def servers(self) -> set[int]:
        """The warm servers: the daemon's children."""
        found = children(self.running["daemon"].pid) if "daemon" in self.running else set()
        return {pid for pid in found if "launcher.serve" in with_token().get(pid, "")}

    def records(self) -> list[Record]:
        records = Records(self.home / f"dagster-warm-{os.getuid()}" / "runs")
        found = [records.find(path.name) for path in records.folder.glob("[!.]*")]
        return [record for record in found if record]

    def record(self, run_id: str) -> Process:
        place = json.loads(self.bench.run(run_id).tags[WORKER_TAG])
        return until(lambda: Records(Path(place["folder"]) / "runs").find(run_id)).process


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def _three(token: str, session_settings: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    from quayside.foundation.postgres import connect, database_url

    name = f"services_{secrets.token_hex(4)}"
    with connect(session_settings, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    url = database_url(session_settings).replace("/quayside?", f"/{name}?")
    root = tmp_path_factory.mktemp("three")
    project = make_project(root / "project", greeting="hello")
    home = write_config(
        root / "home",
        url.replace("postgresql://", "postgresql+psycopg2://"),
        {"base_folder": {"env": "WARM_FOLDER"}, "grace_seconds": 5.0},
        run_queue={
            "max_concurrent_runs": 3,
            "tag_concurrency_limits": [{"key": "one at a time", "limit": 1}],
            "dequeue_interval_seconds": 1,
        },
        run_retries={"enabled": True, "max_retries": 0},
        run_monitoring={"enabled": True, "poll_interval_seconds": 2},
    )
    code = str(home / "code.sock")
    (home / "workspace.yaml").write_text(
        yaml.safe_dump({"load_from": [{"grpc_server": {"socket": code, "location_name": LOCATION}}]})
    )
    os.environ["WARM_FOLDER"] = str(home)
    with open_instance(home) as instance:
        services = Services(home, free_port(), Bench(instance, project, root))
        standing.append(services)
        command = ["dagster", "code-server", "start", "--socket", code, "--location-name", LOCATION]
        command += ["-f", str(project / "defs.py"), "-a", "defs", "-d", str(project)]
        services.start("code", *command)
        until(lambda: Path(code).exists(), what="the code server listens")
        # In a container of its own the webserver has no folder in common with the daemon.
        web = ["dagster_webserver", "-h", "127.0.0.1", "-p", str(services.port), "-w", "workspace.yaml"]
        services.start("web", *web, WARM_FOLDER=str(root))
        services.start_daemon()
        until(services.ready, what="the webserver serves the location")
        yield services
        services.end()
        standing.remove(services)
    del os.environ["WARM_FOLDER"]
    until(lambda: not any(str(home) in line for line in with_token().values()))


@pytest.fixture
def three(_three: Services, tmp_path: Path) -> Services:
    """Code server on a socket, webserver and daemon, which share the database alone."""
    return replace(_three, bench=replace(_three.bench, folder=tmp_path))


def finished(services: Services, run_id: str) -> str:
    return services.bench.finished(run_id)


def test_a_run_from_the_ui(three: Services):
    run_id = three.submit("look", owner="me")
    assert finished(three, run_id) == "SUCCESS"
    assert three.bench.warm(run_id), three.bench.texts(run_id)
    assert three.bench.run(run_id).tags["owner"] == "me"


def test_canceled_in_the_ui(three: Services):
    run_id = three.submit("hold")
    three.bench.started(run_id)
    three.terminate(run_id)
    assert finished(three, run_id) == "CANCELED"
    assert (three.bench.folder / f"{run_id}.interrupted").exists()


def test_force_canceled_in_the_ui(three: Services):
    run_id = three.submit("resist")
    three.bench.started(run_id)
    process = three.record(run_id)
    three.terminate(run_id, "MARK_AS_CANCELED_IMMEDIATELY")
    assert three.bench.run(run_id).status is DagsterRunStatus.CANCELED
    until(lambda: not process.alive())


def test_canceled_from_a_webserver_elsewhere(three: Services):
    run_id = three.submit("hold")
    three.bench.started(run_id)
    three.bench.place(run_id, host="the daemon's")
    three.terminate(run_id)
    assert finished(three, run_id) == "CANCELED"
    assert (three.bench.folder / f"{run_id}.interrupted").exists()


def test_limits_of_the_queue(three: Services):
    """Three at once, of those with the tag one."""
    tagged = [three.submit("hold", **{"one at a time": "yes"}) for _ in range(2)]
    others = [three.submit("hold") for _ in range(3)]
    begun = lambda runs: [r for r in runs if (three.bench.folder / f"{r}.started").exists()]  # noqa: E731
    until(lambda: len(begun([*tagged, *others])) == 3, what="three runs begin")
    queued = three.bench.instance.get_runs(RunsFilter(statuses=[DagsterRunStatus.QUEUED]))
    assert len(queued) == 2
    assert len(begun(tagged)) == 1
    (three.bench.folder / "go").touch()
    assert {finished(three, run_id) for run_id in [*tagged, *others]} == {"SUCCESS"}
    spans = sorted(
        (record.start_time, record.end_time)
        for run_id in tagged
        if (record := three.bench.instance.get_run_record_by_id(run_id))
    )
    assert spans[0][1] <= spans[1][0]


def test_a_crashed_run_is_retried_by_the_daemon(three: Services):
    run_id = three.submit("second_time", **{"dagster/max_retries": "1"})
    assert finished(three, run_id) == "FAILURE"

    def retried() -> list[Any]:
        return [r for r in three.bench.instance.get_runs() if r.parent_run_id == run_id]

    [retry] = until(retried, what="the daemon retries")
    assert finished(three, retry.run_id) == "SUCCESS"
    assert three.bench.warm(retry.run_id)


def test_monitoring_finds_a_run_that_nobody_watches(three: Services):
    run_id = three.submit("hold")
    three.bench.started(run_id)
    process = three.record(run_id)
    servers = three.servers()
    wardens = {pid for server in servers for pid in children(server)} - {process.pid}
    for pid in [*wardens, *servers, process.pid]:
        os.kill(pid, signal.SIGKILL)
    assert finished(three, run_id) == "FAILURE"
    assert three.bench.said(run_id, "Detected run worker status FAILED")


def test_runs_outlive_the_daemon(three: Services):
    """Killed while runs go: one finishes, one that crashes meanwhile is reported, what is queued comes later."""
    held, crashing = three.submit("hold"), three.submit("hold")
    for run_id in (held, crashing):
        three.bench.started(run_id)
    processes = [three.record(run_id) for run_id in (held, crashing)]
    daemon = three.running["daemon"]
    old = three.servers()
    daemon.kill()
    daemon.wait()
    queued = three.submit("count")
    processes[1].signal(signal.SIGKILL)
    assert finished(three, crashing) == "FAILURE"
    three.start_daemon()
    assert finished(three, queued) == "SUCCESS"
    assert processes[0].alive()
    (three.bench.folder / "go").touch()
    assert finished(three, held) == "SUCCESS"
    assert three.bench.events(held).count("PIPELINE_START") == 1
    until(lambda: not old & set(with_token()), what="the servers of the daemon that was killed end")


def test_dagster_dev_ends_its_runs_on_ctrl_c(token: str, tmp_path: Path):
    """On SQLite, with nothing in ``dagster.yaml`` but the launcher. `no_orphan` looks for what is left."""
    project = make_project(tmp_path / "project", greeting="hello")
    home = write_config(tmp_path / "home", None, {})
    with open_instance(home) as instance:
        services = Services(home, free_port(), Bench(instance, project, tmp_path))
        (home / "workspace.yaml").write_text(
            yaml.safe_dump(
                {
                    "load_from": [
                        {
                            "python_file": {
                                "relative_path": str(project / "defs.py"),
                                "attribute": "defs",
                                "working_directory": str(project),
                                "location_name": LOCATION,
                            }
                        }
                    ]
                }
            )
        )
        command = ["dagster", "dev", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(services.port)]
        process = services.start("dev", *command)
        until(services.ready, what="dagster dev serves")
        run_id = services.submit("hold")
        services.bench.started(run_id)
        assert services.bench.warm(run_id)
        process.send_signal(signal.SIGINT)
        process.wait(240)
        assert services.bench.finished(run_id) in {"FAILURE", "CANCELED"}
        assert (tmp_path / f"{run_id}.interrupted").exists()
