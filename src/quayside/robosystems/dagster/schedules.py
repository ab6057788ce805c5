"""When RoboSystems' jobs start by the clock, in UTC. What moves credits ships STOPPED unless BILLING_SCHEDULES_ENABLED is true; what
only measures, tidies and watches ships RUNNING."""

import os

import dagster as dg
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from quayside.foundation.settings import project_root
from quayside.robosystems.dagster.jobs.billing import (
    daily_storage_billing_job,
    hourly_usage_collection_job,
    monthly_credit_allocation_job,
    monthly_usage_report_job,
    period_of,
)
from quayside.robosystems.dagster.jobs.health import weekly_health_check_job
from quayside.robosystems.dagster.jobs.infrastructure import hourly_auth_cleanup_job


class _Switch(BaseSettings):
    """The one setting that decides here. It is read while the location is imported, without the others: one of those may be
    wrong, and the location has to load and say so when something runs."""

    model_config = SettingsConfigDict(extra="ignore", case_sensitive=True, env_ignore_empty=True)

    enabled: bool = Field(False, validation_alias="BILLING_SCHEDULES_ENABLED")


def billing_status() -> dg.DefaultScheduleStatus:
    """STOPPED, unless BILLING_SCHEDULES_ENABLED is true in the environment or in ``.env``."""
    switch = _Switch(_env_file=os.environ.get("QUAYSIDE_ENV_FILE") or project_root() / ".env")  # pyright: ignore[reportCallIssue] - pydantic's own argument
    return dg.DefaultScheduleStatus.RUNNING if switch.enabled else dg.DefaultScheduleStatus.STOPPED


def schedule(
    job: dg.JobDefinition, cron: str, status: dg.DefaultScheduleStatus, description: str
) -> dg.ScheduleDefinition:
    """``<job>_schedule``, whose runs have the period of their scheduled moment in their config."""

    @dg.schedule(
        name=f"{job.name}_schedule",
        job=job,
        cron_schedule=cron,
        execution_timezone="UTC",
        default_status=status,
        description=description,
    )
    def scheduled(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        moment = context.scheduled_execution_time
        return dg.RunRequest(run_key=moment.isoformat(), run_config=period_of(job.name, moment))

    return scheduled


_BILLING = billing_status()
_RUNNING = dg.DefaultScheduleStatus.RUNNING

SCHEDULES = [
    schedule(
        monthly_credit_allocation_job,
        "0 0 1 * *",
        _BILLING,
        "Invoices last month's debts, gives this month's allowances.",
    ),
    schedule(daily_storage_billing_job, "0 2 * * *", _BILLING, "Bills yesterday's storage."),
    schedule(hourly_usage_collection_job, "5 * * * *", _RUNNING, "Measures graphs, charges usage events."),
    schedule(
        hourly_auth_cleanup_job,
        "0 * * * *",
        _RUNNING,
        "Deactivates keys that have expired, deletes old ones.",
    ),
    schedule(monthly_usage_report_job, "0 6 2 * *", _BILLING, "Makes last month's usage report."),
    schedule(weekly_health_check_job, "0 3 * * 1", _RUNNING, "Checks the books and what surrounds them."),
]
