"""The real thing: webserver and daemon as ``quayside up --automate`` starts them, files dropped, nobody there."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.kycc.dagster.conftest import BATCH, MOMENT, Slack, alerts_of

from quayside.foundation.postgres import connect
from quayside.foundation.settings import Settings

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800)]

#: Everything of the location but the folder files arrive in.
LOCATION = """
from pathlib import Path
from quayside.kycc.dagster.definitions import build_definitions

defs = build_definitions(incoming=lambda: Path({folder!r}))
"""


def until(condition: Callable[[], Any], what: str, seconds: float = 480) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.2)
    return found


@pytest.fixture
def incoming(batch_folder: Path, tmp_path: Path) -> Path:
    """A batch with its outcomes, and a file that calls itself another batch than its name says."""
    folder = tmp_path / "incoming"
    folder.mkdir()
    for path in batch_folder.iterdir():
        shutil.copy(path, folder)
    shutil.copy(batch_folder / f"{BATCH}.json", folder / "MISNAMED.json")
    (folder / "HALF.json").write_text('{"batch_id": "HALF", "parties": [')
    return folder


@pytest.fixture
def running(
    command_environment: dict[str, str], slack: Slack, incoming: Path, tmp_path: Path
) -> Iterator[Path]:
    """`quayside up --automate` on that folder; its output."""
    (tmp_path / "location_of_test.py").write_text(LOCATION.format(folder=str(incoming)))
    module = {"location_name": "kycc_scoring", "module_name": "location_of_test", "attribute": "defs"}
    platform = {"location_name": "platform", "module_name": "quayside.foundation.dagster.definitions"}
    workspace, output = tmp_path / "workspace.yaml", tmp_path / "up.txt"
    workspace.write_text(
        yaml.safe_dump(
            {"load_from": [{"python_module": platform | {"attribute": "defs"}}, {"python_module": module}]}
        )
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", "from quayside.cli.main import run; run()", "up", "--automate"]
    with output.open("w") as file:
        process = subprocess.Popen(
            [*command, "--port", str(port), "--workspace", str(workspace)],
            env=command_environment
            | {"PYTHONPATH": str(tmp_path), "SLACK_WEBHOOK_URL": slack.url, "PYTHONUNBUFFERED": "1"},
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=tmp_path,
        )
    try:
        until(lambda: "Switched on" in output.read_text() or process.poll() is not None, "quayside up")
        assert process.poll() is None, output.read_text()
        yield output
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(300)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test_from_a_dropped_file_to_a_draft_and_a_failing_run_alerts_once(
    settings: Settings, slack: Slack, incoming: Path, running: Path
) -> None:
    with connect(settings) as connection:
        connection.execute(
            b"INSERT INTO kycc.score_requests SELECT 'P-' || n, 'ELSEWHERE', 'v1', %s, 300, 300, 'very_poor', 'decline', "
            b"'{}', '{}', %s FROM generate_series(1, 5000) n",
            (MOMENT, datetime.now(UTC)),
        )

    def drafts() -> list[tuple[Any, ...]]:
        with connect(settings) as connection:
            return connection.execute(
                "SELECT version, status, base_version, created_by, (details->>'circular')::boolean "
                "FROM kycc.scorecard_versions WHERE version <> 'v1'"
            ).fetchall()

    ((version, status, base, actor, circular),) = until(drafts, "a draft")
    assert (version, status, base, circular) == ("v2", "draft", "v1", False)
    assert actor.startswith("dagster:run:")
    assert (settings.home / "reports" / "scores" / f"{BATCH}.v1.html").stat().st_size > 10_000

    def failed_and_low() -> bool:
        return len(alerts_of(settings)) >= 2 and len(slack.messages) >= 2

    until(failed_and_low, "two alerts")
    time.sleep(17)  # another round of the failure sensor and of both of ours
    (low,) = [alert for alert in alerts_of(settings) if alert[1].startswith("Low average score: ")]
    assert low[0] == "warning"
    assert sorted(alerts_of(settings)) == sorted(
        [("critical", "Job full_scoring_job failed", 0), ("warning", low[1], 0)]
    )
    assert sorted(title.split(" ", 1)[1] for title in slack.titles) == sorted(
        ["Job full_scoring_job failed", low[1]]
    )
    (cause,) = [
        m["blocks"][1]["text"]["text"] for m in slack.messages if "failed" in m["blocks"][0]["text"]["text"]
    ]
    assert f"MISNAMED.json' is batch {BATCH}, not batch MISNAMED as asked for" in cause
    assert drafts() == [(version, status, base, actor, circular)]
    assert (incoming / "HALF.json").exists()
