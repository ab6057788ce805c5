"""``quayside up`` for real: every location asked by GraphQL, and nothing left when it ends, however it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from quayside.foundation.dagster.graphql import Webserver, _location
from quayside.foundation.dagster.services import TOKEN, prepare_dagster_home, read_workspace
from quayside.foundation.errors import ServiceUnavailableError, SettingsError
from quayside.foundation.postgres import connect
from quayside.foundation.settings import Settings, project_root

COMMAND = [sys.executable, "-c", "from quayside.cli.main import run; run()", "up"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(condition: Callable[[], Any], seconds: float = 300, what: str = "") -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what or condition}"
        time.sleep(0.1)
    return found


@dataclass
class Up:
    """One `quayside up` and everything it started, known by a variable they all inherit."""

    process: subprocess.Popen[str]
    marker: str
    output: Path
    webserver: Webserver

    def family(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if (
                    process.environ().get("TEST_OF_UP") == self.marker
                    and process.status() != psutil.STATUS_ZOMBIE
                ):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def ready(self) -> str:
        until(
            lambda: "Dagster is at" in self.output.read_text() or self.process.poll() is not None,
            what="ready",
        )
        text = self.output.read_text()
        assert self.process.poll() is None, text
        return text

    def ask(self, query: str, **variables: Any) -> Any:
        request = urllib.request.Request(
            f"{self.webserver.url}/graphql",
            data=json.dumps({"query": query, "variables": variables}).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as response:
            return json.load(response)["data"]


@pytest.fixture
def start(command_environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Up]]:
    """Starts `quayside up` on the test's own database; whatever is left of it is killed afterwards."""
    started: list[Up] = []
    environment = command_environment.copy()

    def run(*arguments: str, background: bool = False, **variables: str) -> Up:
        port, marker, output = free_port(), os.urandom(8).hex(), tmp_path / f"up{len(started)}.txt"
        with output.open("w") as file:
            process = subprocess.Popen(
                [*COMMAND, "--port", str(port), *arguments],
                env=environment | {"TEST_OF_UP": marker, "PYTHONUNBUFFERED": "1"} | variables,
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
                # What a shell does to a script's `command &`.
                preexec_fn=(lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if background else None,
            )
        started.append(Up(process, marker, output, Webserver(f"http://127.0.0.1:{port}")))
        return started[-1]

    yield run
    for up in started:
        for process in up.family():
            process.kill()
        up.process.wait()


LAUNCH = """
mutation ($config: RunConfigData!) { launchRun(executionParams: {runConfigData: $config,
    selector: {repositoryLocationName: "kycc_scoring", repositoryName: "__repository__", jobName: "ingest_job"}})
  { __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }
"""


def ingest_of(path: Path) -> dict[str, Any]:
    return {"ops": {"ingest_synthetic_batch": {"config": {"file_path": str(path)}}}}


@pytest.mark.integration
@pytest.mark.slow
def test_up_loads_every_location_alerts_on_a_failure_and_leaves_nothing(
    start: Callable[..., Up], settings: Settings, tmp_path: Path
):
    up = start("--automate")
    text = up.ready()
    listed = [
        entry["python_module"]["location_name"] for entry in read_workspace(project_root() / "workspace.yaml")
    ]
    assert f"Loaded: {', '.join(listed)}\n" in text
    assert {location.name: location.loaded for location in up.webserver.locations()} == dict.fromkeys(
        listed, True
    )

    # A second one on the same state would fight over the schedules.
    other = start()
    assert other.process.wait(300) == 2
    assert "`quayside up` runs already" in other.output.read_text()

    # Once the sensor has had its first look, a run that fails becomes an alert with cause and link.
    log = settings.home / "logs" / "daemon.log"
    until(lambda: "Sensor run_failure_alert skipped" in log.read_text(), what="first tick of the sensor")
    launched = up.ask(LAUNCH, config=ingest_of(tmp_path / "missing.json"))["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched

    def alert() -> Any:
        with connect(settings) as connection:
            return connection.execute("SELECT title, body, link, run_id FROM ops.alerts").fetchone()

    title, body, link, run_id = until(alert, what="alert")
    assert (title, run_id) == ("Job ingest_job failed", launched["run"]["runId"])
    assert "missing.json" in body
    assert link == f"http://localhost:{up.webserver.url.rpartition(':')[2]}/runs/{run_id}"

    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(300) == 0, up.output.read_text()
    assert up.output.read_text().endswith("Stopped.\n")
    assert up.family() == []


LOCATION = """
import time
import dagster as dg

@dg.op
def sleep():
    open({marker!r}, "w").close()
    time.sleep(600)

@dg.job(executor_def=dg.in_process_executor)
def long_job():
    sleep()

@dg.schedule(cron_schedule="0 0 1 1 *", job=long_job)
def yearly():
    return dg.SkipReason("never")

@dg.sensor(job=long_job)
def watcher():
    yield dg.SkipReason("nothing")

defs = dg.Definitions(jobs=[long_job], schedules=[yearly], sensors=[watcher])
"""


def write_workspace(tmp_path: Path, *names: str) -> Path:
    """A workspace of ``lasting``, with a job that lasts, a schedule and a sensor, or ``broken``, which cannot be loaded."""
    code = tmp_path / "code"
    code.mkdir()
    (code / "lasting_location.py").write_text(LOCATION.format(marker=str(tmp_path / "running")))
    (code / "broken_location.py").write_text("raise ImportError('the reason it broke')")
    entries = [
        {"python_module": {"module_name": f"{name}_location", "location_name": name}} for name in names
    ]
    path = tmp_path / "workspace.yaml"
    path.write_text(yaml.safe_dump({"load_from": entries}))
    return path


@pytest.mark.integration
@pytest.mark.slow
def test_a_run_in_flight_is_canceled_and_a_broken_location_does_not_stop_the_rest(
    start: Callable[..., Up], settings: Settings, tmp_path: Path
):
    workspace = write_workspace(tmp_path, "lasting", "broken")
    up = start(
        "--workspace", str(workspace), "--automate", background=True, PYTHONPATH=str(tmp_path / "code")
    )
    text = up.ready()
    assert "Location broken did not load: ImportError: the reason it broke\n" in text
    assert "Loaded: lasting\n" in text
    text = until(lambda: "Switched on" in up.output.read_text() and up.output.read_text())
    assert "Switched on: lasting/yearly, lasting/watcher\n" in text

    launch = LAUNCH.replace("kycc_scoring", "lasting").replace("ingest_job", "long_job")
    run_id = up.ask(launch, config={})["launchRun"]["run"]["runId"]
    until((tmp_path / "running").exists, what="the run is in its step")
    up.process.send_signal(signal.SIGTERM)
    assert up.process.wait(300) == 0, up.output.read_text()
    assert "Stopping 1 run(s) in flight: long_job" in up.output.read_text()
    # Each ended by itself instead of being killed.
    assert "Daemon threads shut down" in (settings.home / "logs" / "daemon.log").read_text()
    assert "Code proxy server was interrupted" in (settings.home / "logs" / "code-lasting.log").read_text()
    assert up.family() == []
    with connect(settings) as connection:
        row = connection.execute("SELECT status FROM dagster.runs WHERE run_id = %s", [run_id]).fetchone()
    assert row == ("CANCELED",)


@pytest.mark.integration
@pytest.mark.slow
def test_check_starts_and_stops_and_fails_for_a_broken_location(start: Callable[..., Up], tmp_path: Path):
    workspace = write_workspace(tmp_path, "broken")
    up = start("--workspace", str(workspace), "--check", PYTHONPATH=str(tmp_path / "code"))
    assert up.process.wait(300) == 1
    assert "Location broken did not load" in up.output.read_text()
    assert up.family() == []


@pytest.mark.integration
@pytest.mark.slow
def test_killed_outright_its_children_end_too(start: Callable[..., Up], tmp_path: Path):
    workspace = write_workspace(tmp_path, "lasting")
    up = start("--workspace", str(workspace), PYTHONPATH=str(tmp_path / "code"))
    up.ready()
    assert len(up.family()) >= 5
    up.process.kill()
    # The code servers' own children follow within Dagster's heartbeat of 30 seconds.
    until(lambda: not up.family(), what="children of a killed `quayside up` end")


@pytest.mark.integration
def test_a_used_port_is_one_sentence(start: Callable[..., Up]):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        up = start("--port", str(taken.getsockname()[1]))
        assert up.process.wait(300) == 2
    text = up.output.read_text()
    assert text.startswith("quayside: Port ")
    assert "cannot be used: Address already in use. Choose another one with --port." in text
    assert text.count("\n") == 1


@pytest.mark.unit
def test_a_location_that_did_not_load_is_told_by_its_innermost_cause():
    error = {
        "__typename": "PythonError",
        "message": "dagster.DagsterUserCodeLoadError: importing failed\nStack",
        "causes": [
            {"message": "RuntimeError: above\n"},
            {"message": "ModuleNotFoundError: No module named 'x'\n"},
        ],
    }
    location = _location({"name": "a", "loadStatus": "LOADED", "locationOrLoadError": error})
    assert (location.loaded, location.error) == (False, "ModuleNotFoundError: No module named 'x'")
    assert _location({"name": "a", "loadStatus": "LOADING", "locationOrLoadError": None}).loading
    good = {"name": "a", "loadStatus": "LOADED", "locationOrLoadError": {"__typename": "RepositoryLocation"}}
    assert _location(good).loaded


@pytest.mark.unit
def test_a_webserver_that_is_not_there_is_one_sentence():
    with pytest.raises(ServiceUnavailableError, match=r"http://127\.0\.0\.1:1 does not answer: "):
        Webserver("http://127.0.0.1:1").locations()


@pytest.mark.unit
@pytest.mark.parametrize("content", ["", "a: 1", "load_from: x", "load_from: [1]", "{", None])
def test_a_workspace_that_is_none(content: str | None, tmp_path: Path):
    path = tmp_path / "workspace.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingsError, match="workspace"):
        read_workspace(path)


@pytest.mark.unit
def test_dagster_home_follows_our_file_but_keeps_theirs(tmp_path: Path):
    home = tmp_path / "dagster home"
    settings = Settings(_env_file=None, QUAYSIDE_HOME=str(tmp_path), DAGSTER_HOME=str(home))  # pyright: ignore[reportCallIssue]
    shipped = project_root() / "dagster.yaml"
    assert prepare_dagster_home(settings) is None
    assert (home / "dagster.yaml").resolve() == shipped.resolve()
    assert prepare_dagster_home(settings) is None  # again changes nothing

    (home / "dagster.yaml").unlink()
    (home / "dagster.yaml").symlink_to(tmp_path / "gone" / "dagster.yaml")  # of a checkout that was moved
    assert prepare_dagster_home(settings) is None
    assert (home / "dagster.yaml").resolve() == shipped.resolve()

    (home / "dagster.yaml").unlink()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    notice = prepare_dagster_home(settings)
    assert notice is not None
    assert "is used as it is" in notice
    assert yaml.safe_load((home / "dagster.yaml").read_text()) == {"telemetry": {"enabled": False}}
    assert TOKEN not in os.environ
