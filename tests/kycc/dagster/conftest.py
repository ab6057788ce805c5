"""A platform that runs find through the environment, an instance, files of a batch, and a loopback stand-in for Slack."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from quayside.foundation.postgres import connect
from quayside.foundation.settings import Settings
from quayside.kycc.generate import generate, write_json, write_outcomes

#: Far enough back that the windows of the outcomes are over.
MOMENT = datetime(2025, 12, 31, tzinfo=UTC)
BATCH = "JOB_TEST"


@pytest.fixture(scope="session")
def batch_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``JOB_TEST.json`` with 300 parties, and its outcomes beside it."""
    folder = tmp_path_factory.mktemp("batch")
    batch = generate(BATCH, 300, generated_at=MOMENT)
    write_json(batch, folder / f"{BATCH}.json")
    write_outcomes(batch, folder / f"{BATCH}_outcomes.json")
    return folder


@pytest.fixture
def platform(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The platform that a run finds through the environment, as runs do."""
    assert settings.database_url is not None
    monkeypatch.setenv("QUAYSIDE_HOME", str(settings.home))
    monkeypatch.setenv("QUAYSIDE_DATABASE_URL", settings.database_url.get_secret_value())
    return settings


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        yield instance


@dataclass
class Slack:
    """What a webhook received."""

    url: str = ""
    messages: list[dict[str, Any]] = field(default_factory=list)

    @property
    def titles(self) -> list[str]:
        return [message["blocks"][0]["text"]["text"] for message in self.messages]


@pytest.fixture
def slack() -> Iterator[Slack]:
    """A webhook on the loopback address."""
    slack = Slack()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            slack.messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    slack.url = f"http://127.0.0.1:{server.server_port}/hook"
    yield slack
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def by_slack(platform: Settings, slack: Slack, monkeypatch: pytest.MonkeyPatch) -> Slack:
    """The platform posts its alerts there."""
    monkeypatch.setenv("SLACK_WEBHOOK_URL", slack.url)
    return slack


def alerts_of(settings: Settings) -> list[tuple[str, str, int]]:
    """Severity, title and repeats of every alert."""
    with connect(settings) as connection:
        return connection.execute(
            "SELECT severity, title, folded_count FROM ops.alerts ORDER BY id"
        ).fetchall()


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    """Metadata of an asset's one materialization as plain values."""
    (event,) = [e for e in result.get_asset_materialization_events() if e.asset_key == dg.AssetKey(asset)]
    return {
        name: [record.data for record in value.records]
        if isinstance(value, dg.TableMetadataValue)
        else value.value
        for name, value in event.materialization.metadata.items()
    }


def ingest_config(path: Path, **more: Any) -> dict[str, Any]:
    """Run config with this file to ingest."""
    return {"ops": {"ingest_synthetic_batch": {"config": {"file_path": str(path), **more}}}}
