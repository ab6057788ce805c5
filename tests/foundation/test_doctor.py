"""``quayside doctor``: what it shows, what it hides, what it finds, and that it starts nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from quayside.cli import doctor as module
from quayside.foundation.settings import Settings

pytestmark = pytest.mark.integration


def doctor(environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from quayside.cli.main import run; run()", "doctor", *arguments]
    return subprocess.run(command, env=dict(environment), capture_output=True, text=True)


def report(
    environment: Mapping[str, str],
) -> tuple[int, dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    done = doctor(environment, "--json")
    assert done.stderr == ""
    found = json.loads(done.stdout)
    settings = {row["variable"]: row for row in found["settings"]}
    return done.returncode, settings, {row["check"]: row for row in found["checks"]}


@pytest.mark.slow
def test_everything_answers(command_environment: dict[str, str], settings: Settings):
    code, shown, checks = report(command_environment | {"BATCH_ID": "b1"})
    states = {name: check["state"] for name, check in checks.items()}
    assert states.pop("valkey") == "later"  # this home has none running
    assert states.pop("home") == "later"
    assert (
        states.pop("lake") == states.pop("dagster storage") == "later"
    )  # nothing was done on this database yet
    assert set(states.values()) == {"ok"}, checks
    assert code == 0
    assert shown["BATCH_ID"] == {"variable": "BATCH_ID", "value": "b1", "origin": "environment"}
    assert shown["REDIS_PORT"]["origin"] == "default"
    assert list(shown) == list(Settings.variables().values())


def test_asking_starts_nothing_and_creates_nothing(tmp_path: Path):
    home = tmp_path / "home"
    code, _, checks = report(os.environ | {"QUAYSIDE_HOME": str(home)})
    assert code == 0
    assert checks["postgresql"]["detail"] == "embedded, not running; starts by itself on first use"
    assert checks["valkey"]["state"] == checks["lake"]["state"] == "later"
    assert not home.exists()


def test_a_database_that_does_not_answer_fails_it(tmp_path: Path):
    url = "postgresql://me:hunter2hunter2@127.0.0.1:1/x"
    code, _, checks = report(os.environ | {"QUAYSIDE_HOME": str(tmp_path), "QUAYSIDE_DATABASE_URL": url})
    assert code == 1
    assert {name for name, check in checks.items() if check["state"] == "failed"} == {
        "postgresql",
        "schemas",
        "lake",
        "dagster storage",
    }


@pytest.mark.slow
def test_an_old_schema_on_a_server_of_yours_says_what_to_do(empty_settings: Settings):
    assert empty_settings.database_url is not None
    url = empty_settings.database_url.get_secret_value()
    code, _, checks = report(
        os.environ | {"QUAYSIDE_HOME": str(empty_settings.home), "QUAYSIDE_DATABASE_URL": url}
    )
    assert code == 1
    assert checks["schemas"]["state"] == "failed"
    assert checks["schemas"]["detail"].endswith("run `quayside db migrate`")


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_no_secret_is_shown(arguments: list[str], tmp_path: Path):
    secret = "hunter2hunter2"
    variables = {
        v: secret for v in Settings.variables().values() if v.endswith(("PASSWORD", "TOKEN", "ACCESS_KEY"))
    }
    variables |= {
        "QUAYSIDE_HOME": str(tmp_path),
        "QUAYSIDE_DATABASE_URL": f"postgresql://me:{secret}@127.0.0.1:1/x?password={secret}",
        "SLACK_WEBHOOK_URL": f"http://example.com/{secret}",
        "AWS_ENDPOINT_URL": f"http://me:{secret}@127.0.0.1:1",
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": "1",
    }
    done = doctor(os.environ | variables, *arguments)
    assert done.returncode == 1
    assert secret not in done.stdout + done.stderr
    assert "postgresql://me:***@127.0.0.1:1/x" in done.stdout


def test_too_little_disk_and_a_strange_python_are_found(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MIN_FREE_GB", 1e9)
    monkeypatch.setattr(module, "PYTHON", ((3, 8), (3, 9)))
    monkeypatch.setattr(module, "EXTENSIONS", ("ducklake", "nonsense"))
    failed = {check.check: check.detail for check in module.run_checks(settings) if check.state == "failed"}
    assert set(failed) == {"disk", "python", "duckdb"}
    assert "nonsense none" in failed["duckdb"]
