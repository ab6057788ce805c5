"""What KYCC's jobs send: the alert of `alert_job`, and the failure hook."""

from dataclasses import replace
from enum import Enum

import dagster as dg
from pydantic import Field

from quayside.foundation import alerts
from quayside.foundation.dagster.failure_sensor import cause, failure_alert
from quayside.foundation.settings import Settings, load_settings


class Severity(Enum):
    """How urgent it is; the names are those of `quayside.foundation.alerts`."""

    info = "info"
    warning = "warning"
    critical = "critical"


class AlertConfig(dg.Config):
    """Config of ``send_alert``."""

    message: str = Field(description="One sentence.")
    severity: Severity = Severity.warning


@dg.op
def send_alert(context: dg.OpExecutionContext, config: AlertConfig) -> None:
    """Send one alert to table, log and Slack."""
    settings = load_settings()
    alert = alerts.Alert(
        severity=config.severity.value,
        title=config.message,
        body=config.message if len(config.message) > alerts.TITLE_CHARACTERS else "",
        source="dagster:kycc_scoring",
        link=_run_link(settings, context.run_id),
        run_id=context.run_id,
    )
    context.log.info(f"The alert was {alerts.send(settings, alert)}.")


@dg.failure_hook
def notify_on_failure(context: dg.HookContext) -> None:
    """Send "Job … failed: …" to Slack when the first step of a run fails.

    It is the same alert that ``run_failure_alert`` sends of the run, so that with both on one goes out and the other only
    counts up its row.
    """
    failures = context.instance.get_records_for_run(
        context.run_id, of_type=dg.DagsterEventType.STEP_FAILURE
    ).records
    errors = [
        (event.step_key, event.step_failure_data.error)
        for record in failures
        if (event := record.event_log_entry.dagster_event) and event.step_failure_data.error
    ]
    run = context.instance.get_run_by_id(context.run_id)
    if run is None or not errors or errors[0][0] != context.step_key:
        return
    settings = load_settings()
    alert = failure_alert(settings, run, None, errors)
    alerts.send(settings, replace(alert, title=f"Job {context.job_name} failed: {cause(errors[0][1])}"))


def _run_link(settings: Settings, run_id: str) -> str:
    return f"{settings.dagster_webserver_url.rstrip('/')}/runs/{run_id}"
