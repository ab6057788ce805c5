"""`alert_job` and the failure hook: what reaches the table and Slack, and that one failure is one alert."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
from tests.kycc.dagster.conftest import Slack, alerts_of

from quayside.foundation.dagster.failure_sensor import run_failure_alert
from quayside.foundation.settings import Settings
from quayside.kycc.dagster.definitions import (
    alert_job,
    build_definitions,
    full_scoring_job_with_hooks,
    notify_on_failure,
)

pytestmark = pytest.mark.integration


@pytest.fixture
def ephemeral() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def alert_config(message: str, **more: Any) -> dict[str, Any]:
    return {"ops": {"send_alert": {"config": {"message": message, **more}}}}


def test_alert_job_sends_its_message(by_slack: Slack, platform: Settings, ephemeral: dg.DagsterInstance):
    config = alert_config("Low average score: 480", severity="warning")
    assert alert_job.execute_in_process(run_config=config, instance=ephemeral).success
    assert by_slack.titles == ["⚠️ Low average score: 480"]
    assert alerts_of(platform) == [("warning", "Low average score: 480", 0)]
    long = "x" * 300
    assert alert_job.execute_in_process(run_config=alert_config(long), instance=ephemeral).success
    assert by_slack.messages[-1]["blocks"][1]["text"]["text"] == long


@pytest.mark.parametrize("config", [{"message": "x", "severity": "fatal"}, {}])
def test_an_alert_without_message_or_of_no_known_severity_is_refused(
    config: dict[str, str], ephemeral: dg.DagsterInstance
):
    with pytest.raises(dg.DagsterInvalidConfigError):
        alert_job.execute_in_process(
            run_config={"ops": {"send_alert": {"config": config}}}, instance=ephemeral
        )


def test_a_failed_run_alerts_once_by_the_hook_and_the_sensor_together(
    by_slack: Slack, platform: Settings, ephemeral: dg.DagsterInstance
):
    missing = {"ops": {"ingest_synthetic_batch": {"config": {"file_path": "/nowhere/B1.json"}}}}
    job = full_scoring_job_with_hooks
    result = job.execute_in_process(run_config=missing, instance=ephemeral, raise_on_error=False)
    assert not result.success
    title = "Job full_scoring_job_with_hooks failed: NotFoundError: '/nowhere/B1.json' does not exist: give another path, or make a batch with `quayside kycc generate --out FILE`."
    assert alerts_of(platform) == [("critical", title[:139] + "…", 0)]
    context = dg.build_run_status_sensor_context(
        "run_failure_alert",
        result.get_run_failure_event(),
        ephemeral,
        result.dagster_run,
    ).for_run_failure()
    run_failure_alert(context)
    assert alerts_of(platform) == [("critical", title[:139] + "…", 1)]
    assert len(by_slack.messages) == 1


def test_a_run_in_which_several_steps_fail_alerts_once(
    by_slack: Slack, platform: Settings, ephemeral: dg.DagsterInstance
):
    @dg.op
    def one() -> None:
        raise ValueError("first")

    @dg.op
    def two() -> None:
        raise ValueError("second")

    @dg.job(hooks={notify_on_failure})
    def both() -> None:
        one()
        two()

    both.execute_in_process(instance=ephemeral, raise_on_error=False)
    assert len(by_slack.titles) == 1
    assert by_slack.titles[0].startswith("🔴 Job both failed: ValueError: ")
    assert [folded for _, _, folded in alerts_of(platform)] == [0]


def test_a_job_that_succeeds_alerts_nobody(
    by_slack: Slack, platform: Settings, ephemeral: dg.DagsterInstance
):
    @dg.op
    def fine() -> None: ...

    @dg.job(hooks={notify_on_failure})
    def quiet() -> None:
        fine()

    assert quiet.execute_in_process(instance=ephemeral).success
    assert alerts_of(platform) == []
    assert by_slack.messages == []


def test_resources_can_be_replaced():
    defs = build_definitions(resources={"database": "mine"})
    assert defs.resources is not None
    assert defs.resources["database"] == "mine"
