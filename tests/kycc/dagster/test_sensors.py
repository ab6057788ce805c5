"""Sensors and schedules on instances with real run records, and `low_score_sensor` on a real database."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from tests.kycc.dagster.conftest import MOMENT

from quayside.foundation.postgres import connect, engine
from quayside.foundation.settings import Settings
from quayside.kycc.dagster import incoming, schedules, sensors
from quayside.kycc.dagster.definitions import (
    create_run_request,
    default_config,
    defs,
    full_scoring_job,
    ml_training_job,
)
from quayside.kycc.dagster.partitions import BATCH_TAG, BATCHES_NAME
from quayside.kycc.dagster.schedules import daily_scoring_schedule, weekly_ml_schedule
from quayside.kycc.dagster.sensors import low_score_sensor, new_data_sensor_of

pytestmark = pytest.mark.integration


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose files settle at once."""
    monkeypatch.setattr(incoming, "SETTLE_SECONDS", -1)
    found = tmp_path / "incoming"
    found.mkdir()
    return found


@pytest.fixture
def ephemeral() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


class Ticks:
    """Ticks of `new_data_sensor`, whose requests become runs as the daemon makes them."""

    def __init__(self, instance: dg.DagsterInstance, folder: Path) -> None:
        self.instance, self.folder, self.cursor = instance, folder, None
        self.used: set[str] = set()

    def __call__(self, status: dg.DagsterRunStatus = dg.DagsterRunStatus.SUCCESS) -> list[dg.RunRequest]:
        """One tick; requests whose run key is new."""
        sensor = new_data_sensor_of(lambda: self.folder)
        context = dg.build_sensor_context(self.instance, cursor=self.cursor, definitions=defs)
        result = sensor(context)
        assert isinstance(result, dg.SensorResult)
        self.result, self.cursor = result, result.cursor
        for request in self.result.dynamic_partitions_requests or ():
            self.instance.add_dynamic_partitions(request.partitions_def_name, list(request.partition_keys))
        new = [r for r in self.result.run_requests or () if r.run_key not in self.used]
        for request in new:
            assert request.run_key is not None
            self.used.add(request.run_key)
            job = full_scoring_job if request.job_name == "full_scoring_job" else ml_training_job
            tags = {**request.tags, "dagster/run_key": request.run_key}
            self.instance.create_run_for_job(job, run_config=request.run_config, tags=tags, status=status)
        return new

    @property
    def reason(self) -> str:
        reason = self.result.skip_reason
        return reason.skip_message or "" if isinstance(reason, dg.SkipReason) else reason or ""


@pytest.fixture
def tick(ephemeral: dg.DagsterInstance, folder: Path) -> Ticks:
    return Ticks(ephemeral, folder)


def test_a_file_becomes_a_run_of_its_batch(tick: Ticks, folder: Path):
    (folder / "B1.json").write_text("{}")
    (request,) = tick()
    assert request.job_name == "full_scoring_job"
    assert request.partition_key == request.tags[BATCH_TAG] == "B1"
    assert request.run_config["ops"] == {
        "ingest_synthetic_batch": {"config": {"batch_id": "B1", "file_path": str(folder / "B1.json")}}
    }
    assert re.fullmatch(r"B1:[0-9a-f]{64}", request.run_key or "")
    assert tick.instance.get_dynamic_partitions(BATCHES_NAME) == ["B1"]
    assert dg.validate_run_config(full_scoring_job, dict(request.run_config))
    assert tick() == []
    assert tick.reason == f"Nothing new in {folder} (JSON files: 1, not complete yet: 0)."


def test_a_corrected_file_runs_again_and_so_does_one_that_is_corrected_back(tick: Ticks, folder: Path):
    path = folder / "B1.json"
    keys = []
    for content in ("{}", "[]", "[]", "{}", "[]"):
        path.write_text(content)
        keys += [request.run_key for request in tick()]
    first, second = keys[:2]
    assert keys == [first, second, f"{first}:2", f"{second}:2"]


def test_a_failed_run_is_not_repeated_for_the_same_content(tick: Ticks, folder: Path):
    (folder / "B1.json").write_text("{}")
    assert len(tick(dg.DagsterRunStatus.FAILURE)) == 1
    os.utime(folder / "B1.json")
    assert tick() == []


def test_a_lost_cursor_runs_nothing_twice(tick: Ticks, folder: Path):
    for name in ("B1", "B2"):
        (folder / f"{name}.json").write_text("{}")
    assert len(tick()) == 2
    tick.cursor = None
    assert tick() == []


def test_outcomes_are_learned_from_once_no_run_of_their_batch_is_left(tick: Ticks, folder: Path):
    (folder / "B1.json").write_text("{}")
    (folder / "B1_outcomes.json").write_text("{}")
    path = str(folder / "B1_outcomes.json")
    (request,) = tick(dg.DagsterRunStatus.STARTED)
    labels = request.run_config["ops"]["generate_scorecard_labels"]
    assert labels == {"config": {"outcomes_path": path}}
    assert tick() == []
    (folder / "B1_outcomes.json").write_text("[]")
    assert tick() == []
    assert "not complete yet: 1" in tick.reason
    (run,) = tick.instance.get_runs()
    tick.instance.report_run_failed(run)
    (learn,) = tick()
    assert learn.job_name == "ml_training_job"
    assert learn.run_config["ops"] == {
        "generate_scorecard_labels": {"config": {"batch_id": "B1", "outcomes_path": path}}
    }
    assert dg.validate_run_config(ml_training_job, dict(learn.run_config))
    assert learn.run_key != request.run_key
    # Both come again, the outcomes alone with something new.
    (folder / "B1_outcomes.json").write_text("[2]")
    (folder / "B1.json").write_text("{}")
    (both,) = tick()
    assert (both.job_name, both.run_key in {request.run_key, learn.run_key}) == ("full_scoring_job", False)


def test_a_name_that_can_be_no_batchs_gets_a_run_that_says_so(tick: Ticks, folder: Path):
    (folder / "my batch.json").write_text("{}")
    (request,) = tick()
    assert (request.partition_key, request.tags[BATCH_TAG]) == (None, "my batch")


def test_a_vanished_folder_is_a_skip_with_its_reason(tick: Ticks, folder: Path):
    (folder / "B1.json").write_text("{}")
    tick()
    cursor = tick.cursor
    shutil.rmtree(folder)
    assert tick() == []
    assert tick.reason == f"{folder} does not exist: make it, and put batch files there."
    assert tick.cursor == cursor


def test_requests_of_one_tick_are_bounded(tick: Ticks, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(incoming, "MAX_ARRIVALS", 3)
    for n in range(4):
        (folder / f"B{n}.json").write_text("{}")
    assert [len(tick()), len(tick()), len(tick())] == [3, 1, 0]


# -- low scores --------------------------------------------------------------------------------------------------


def put_scores(settings: Settings, batch_id: str, score: int, created_at: datetime, rows: int = 10) -> None:
    with connect(settings) as connection:
        connection.execute(
            b"INSERT INTO kycc.score_requests SELECT 'P-' || n, %s, 'v1', %s, %s, %s, 'fair', 'review', '{}', '{}', %s "
            b"FROM generate_series(1, %s) n",
            (batch_id, MOMENT, score, score, created_at, rows),
        )


def low(settings: Settings, instance: dg.DagsterInstance) -> dg.RunRequest | str:
    from sqlalchemy.orm import Session

    with Session(engine(settings)) as session:
        context = dg.build_sensor_context(instance, resources={"database": session}, definitions=defs)
        result = low_score_sensor.evaluate_tick(context)
    return result.run_requests[0] if result.run_requests else result.skip_message or ""


def test_low_scores_alert_with_their_mean_once_an_hour(
    settings: Settings, ephemeral: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
):
    now = datetime(2026, 7, 1, 10, 30, tzinfo=UTC)

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return now

    monkeypatch.setattr(sensors, "datetime", Clock)
    assert low(settings, ephemeral) == "Nothing was scored in the last hour."
    put_scores(settings, "OLD", 300, now - timedelta(minutes=61), rows=1000)
    put_scores(settings, "GOOD", 500, now - timedelta(minutes=59))
    assert low(settings, ephemeral) == "The mean of the 10 scores of the last hour is 500."
    put_scores(settings, "BAD", 497, now - timedelta(minutes=1))
    request = low(settings, ephemeral)
    assert isinstance(request, dg.RunRequest)
    assert request.run_key == "low_score_alert_2026070110"
    assert request.run_config == {
        "ops": {"send_alert": {"config": {"message": "Low average score: 498", "severity": "warning"}}}
    }
    assert dg.validate_run_config(defs.resolve_job_def("alert_job"), dict(request.run_config))
    put_scores(settings, "WORSE", 300, now - timedelta(minutes=1))
    again = low(settings, ephemeral)
    assert isinstance(again, dg.RunRequest)
    assert again.run_key == request.run_key
    now += timedelta(minutes=30)
    assert low(settings, ephemeral).run_key == "low_score_alert_2026070111"  # pyright: ignore[reportAttributeAccessIssue]


# -- schedules ---------------------------------------------------------------------------------------------------


def at(instance: dg.DagsterInstance, schedule: dg.ScheduleDefinition) -> dg.RunRequest | str:
    context = dg.build_schedule_context(
        instance, scheduled_execution_time=datetime(2026, 7, 1, 2, tzinfo=UTC)
    )
    result = schedule(context)
    return result.skip_message or "" if isinstance(result, dg.SkipReason) else result


def test_the_daily_run_takes_the_file_of_the_batch_it_is_told(
    instance: dg.DagsterInstance, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(schedules, "incoming_folder", lambda: folder)
    monkeypatch.delenv("DAILY_BATCH_ID", raising=False)
    assert at(instance, daily_scoring_schedule) == "DAILY_BATCH_ID is not set: it names the batch to score."
    monkeypatch.setenv("DAILY_BATCH_ID", "D1")
    path = folder / "D1.json"
    assert at(instance, daily_scoring_schedule) == f"{path} is not there: put the file of batch D1 in it."
    path.write_text("{}")
    request = at(instance, daily_scoring_schedule)
    assert isinstance(request, dg.RunRequest)
    assert (request.partition_key, request.run_config) == ("D1", create_run_request("D1", path).run_config)
    assert instance.has_dynamic_partition(BATCHES_NAME, "D1")


def test_the_weekly_training_needs_five_hundred_parties(instance: dg.DagsterInstance):
    request = at(instance, weekly_ml_schedule)
    assert isinstance(request, dg.RunRequest)
    assert request.partition_key is None
    assert request.run_config == {"ops": {"train_model_asset": {"config": {"min_samples": 500}}}}
    assert dg.validate_run_config(ml_training_job, dict(request.run_config))


def test_a_run_request_by_name_alone_takes_the_file_that_arrived():
    request = create_run_request("B1")
    path = request.run_config["ops"]["ingest_synthetic_batch"]["config"]["file_path"]
    assert path.endswith("/data/incoming/B1.json")


def test_the_default_config_is_that_of_the_table():
    config = dg.validate_run_config(full_scoring_job, default_config.to_config_dict())
    assert config is not None
    said = {name: op["config"] for name, op in config["ops"].items() if "config" in op}
    wanted = {
        "ingest_synthetic_batch": {"file_path": "data/synthetic_profiles.json"},
        "score_batch": {"scorecard_version": "v1"},
        "generate_scorecard_labels": {"observation_window_days": 180, "default_rate": 0.15},
        "train_model_asset": {"min_samples": 100, "test_size": 0.2},
        "refine_scorecard": {"blend_factor": 0.5, "base_version": "v1"},
    }
    for name, fields in wanted.items():
        assert fields.items() <= said[name].items()
