"""The run-failure sensor on real runs of an instance: cause, link, owner, folding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
from pydantic import SecretStr

from quayside.foundation import alerts
from quayside.foundation.dagster import failure_sensor
from quayside.foundation.dagster.definitions import defs
from quayside.foundation.dagster.failure_sensor import run_failure_alert
from quayside.foundation.errors import InputError
from quayside.foundation.postgres import connect
from quayside.foundation.settings import Settings

pytestmark = pytest.mark.integration


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


@pytest.fixture(autouse=True)
def used(settings: Settings, slack_server: Any, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What the sensor loads: the test's database and the Slack stand-in."""
    found = settings.model_copy(
        update={
            "slack_webhook_url": SecretStr(slack_server.webhook),
            "dagster_webserver_url": "http://dagster.example/",
        }
    )
    monkeypatch.setattr(failure_sensor, "load_settings", lambda: found)
    monkeypatch.setattr(alerts, "_paused_until", 0.0)
    return found


def failing(message: str, name: str = "broken", wrap: bool = False) -> dg.JobDefinition:
    @dg.op(name="step")
    def step() -> None:
        try:
            raise InputError(message)
        except InputError as error:
            if wrap:
                raise RuntimeError("something above it") from error
            raise

    @dg.job(name=name, tags={"owner": "team:kycc"}, executor_def=dg.in_process_executor)
    def job() -> None:
        step()

    return job


def tick(job: dg.JobDefinition, instance: dg.DagsterInstance) -> dg.DagsterRun:
    """Run the job, let it fail, and evaluate the sensor on that failure."""
    result = job.execute_in_process(instance=instance, raise_on_error=False)
    assert not result.success
    context = dg.build_run_status_sensor_context(
        sensor_name="run_failure_alert",
        dagster_event=result.get_run_failure_event(),
        dagster_instance=instance,
        dagster_run=result.dagster_run,
    ).for_run_failure()
    run_failure_alert(context)
    return result.dagster_run


def rows(settings: Settings) -> list[tuple[Any, ...]]:
    with connect(settings) as connection:
        return connection.execute(
            "SELECT title, body, link, folded_count FROM ops.alerts ORDER BY id"
        ).fetchall()


def test_the_first_failure_goes_out_with_cause_owner_and_link(
    used: Settings, slack_server: Any, instance: dg.DagsterInstance
):
    run = tick(failing("File b1.json is truncated: generate it again."), instance)
    body = "step: InputError: File b1.json is truncated: generate it again.\nOwner: team:kycc"
    assert rows(used) == [("Job broken failed", body, f"http://dagster.example/runs/{run.run_id}", 0)]
    assert len(slack_server.messages) == 1


def test_the_innermost_cause_is_told(used: Settings, instance: dg.DagsterInstance):
    tick(failing("the reason", wrap=True), instance)
    assert rows(used)[0][1].splitlines()[0] == "step: InputError: the reason"


def test_repeats_are_folded_though_ids_and_numbers_differ(
    used: Settings, slack_server: Any, instance: dg.DagsterInstance
):
    for message in (
        "Batch 'b1' has 17 rows of 4f3a9c2e",
        "Batch 'b2' has 9 rows of 00aa11bb",
        "Batch 'b1' is empty",
    ):
        tick(failing(message), instance)
    tick(failing("Batch 'b1' has 17 rows of 4f3a9c2e", name="other"), instance)
    assert [(row[0], row[3]) for row in rows(used)] == [
        ("Job broken failed", 1),
        ("Job broken failed", 0),
        ("Job other failed", 0),
    ]
    assert len(slack_server.messages) == 3


def test_it_watches_every_location_and_ships_running():
    [sensor] = (defs.resolve_all_job_defs() and []) or defs.sensors or []
    assert sensor.name == "run_failure_alert"
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
