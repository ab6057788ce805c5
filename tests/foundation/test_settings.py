"""The settings table: where a value comes from, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from quayside.foundation import settings as module
from quayside.foundation.errors import SettingsError
from quayside.foundation.settings import Settings, load_settings

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder of the test's own, and no variable of ours in the environment."""
    monkeypatch.setattr(module, "project_root", lambda: tmp_path)
    for variable in (*Settings.variables().values(), "QUAYSIDE_ENV_FILE"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


def test_the_environment_wins_over_the_file_which_wins_over_the_default(
    project: Path, monkeypatch: pytest.MonkeyPatch
):
    (project / ".env").write_text("BATCH_ID=file\nREDIS_PORT=7000\nREDIS_DB=\nUNKNOWN=1\n")
    monkeypatch.setenv("BATCH_ID", "environment")
    settings = load_settings()
    assert (settings.batch_id, settings.origin("batch_id")) == ("environment", "environment")
    assert (settings.redis_port, settings.origin("redis_port")) == (7000, ".env")
    assert (settings.redis_db, settings.origin("redis_db")) == (0, "default")


def test_paths_are_relative_to_the_project(project: Path, monkeypatch: pytest.MonkeyPatch):
    settings = load_settings()
    assert settings.home == project / ".quayside"
    assert settings.dagster_home_path == project / ".quayside" / "dagster"
    assert settings.lake_data_path == str(project / ".quayside" / "lake")
    monkeypatch.setenv("QUAYSIDE_HOME", "a/../b")
    monkeypatch.setenv("QUAYSIDE_LAKE_URL", "file:///data/lake/")
    monkeypatch.setenv("DAGSTER_HOME", "~/dh")
    settings = load_settings()
    assert settings.home == project / "b"
    assert settings.lake_data_path == "/data/lake"
    assert settings.dagster_home_path == Path.home() / "dh"


@pytest.mark.parametrize(
    "variable, value, told",
    [
        ("QUAYSIDE_DATABASE_URL", "mysql://me:hunter2@db/x", "must start with postgresql://"),
        ("QUAYSIDE_LAKE_URL", "gs://bucket", "must be a folder, file:///folder or s3://"),
        ("REDIS_PORT", "0", "greater than or equal to 1"),
        ("REDIS_PORT", "hunter2", "valid integer"),
        ("DAGSTER_ENVIRONMENT", "staging", "'npd' or 'prod'"),
        ("QUAYSIDE_MEMORY_LIMIT", "much", "match pattern"),
        ("QUAYSIDE_THREADS", "0", "greater than or equal to 1"),
    ],
)
def test_a_wrong_value_is_one_sentence_with_its_variable(
    variable: str, value: str, told: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as raised:
        load_settings()
    text = str(raised.value)
    assert variable in text
    assert told in text
    assert "\n" not in text
    assert "hunter2" not in text


def test_every_secret_is_hidden_from_print_and_repr(monkeypatch: pytest.MonkeyPatch):
    secret = [
        v for v in Settings.variables().values() if v.endswith(("PASSWORD", "TOKEN", "KEY", "WEBHOOK_URL"))
    ]
    assert len(secret) >= 6
    for variable in secret:
        monkeypatch.setenv(variable, "hunter2hunter2")
    monkeypatch.setenv("QUAYSIDE_DATABASE_URL", "postgresql://me:hunter2hunter2@db/x")
    settings = load_settings()
    assert "hunter2" not in f"{settings} {settings!r} {settings.model_dump()}"


def test_another_env_file(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / ".env").write_text("BATCH_ID=project\nDAILY_BATCH_ID=project\n")
    (project / "other.env").write_text("BATCH_ID=other\n")
    monkeypatch.setenv("QUAYSIDE_ENV_FILE", str(project / "other.env"))
    settings = load_settings()
    assert (settings.batch_id, settings.daily_batch_id) == ("other", None)
