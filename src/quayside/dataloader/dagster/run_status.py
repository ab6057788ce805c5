"""What happens to rows when their run ends badly without a word of the worker: it was cancelled while it waited, could not be
started, was killed."""

from typing import Any

import dagster as dg

from quayside.dataloader.control.client import LakebaseClient
from quayside.dataloader.dagster.environment import named
from quayside.dataloader.dagster.jobs import JOBS
from quayside.dataloader.dagster.resources import LakebaseResource
from quayside.dataloader.dagster.runs import attempts_of
from quayside.dataloader.errors import FencedError


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.CANCELED,
    name=named("run_canceled_sensor"),
    monitored_jobs=JOBS,
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="A load's run was canceled: its rows become Failed, unless they are Succeeded or Failed already.",
)
def run_canceled_sensor(context: dg.RunStatusSensorContext, lakebase: LakebaseResource) -> None:
    """See its description."""
    with lakebase.get_client() as client:
        close_rows(context, client, "Cancelled - its run was cancelled", "Cancelled")


@dg.run_failure_sensor(
    name=named("run_failed_sensor"),
    monitored_jobs=JOBS,
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="A load's run failed: its rows become Failed, unless they are Succeeded or Failed already.",
)
def run_failed_sensor(context: dg.RunFailureSensorContext, lakebase: LakebaseResource) -> None:
    """See its description."""
    with lakebase.get_client() as client:
        close_rows(context, client, f"Its run failed: {context.failure_event.message}", "Failed")


RUN_STATUS_SENSORS = [run_canceled_sensor, run_failed_sensor]


def close_rows(
    context: dg.RunStatusSensorContext, client: LakebaseClient, message: str, outcome: Any
) -> None:
    """Close what a run left open: the attempts that its tags or config name, else those whose row names the run."""
    run = context.dagster_run
    keys = attempts_of(run) or [(a.config_id, a.attempt) for a in client.running() if a.run_id == run.run_id]
    for config_id, attempt in keys:
        try:
            client.give_up(config_id, attempt, message, outcome)
        except FencedError as error:  # the usual case: the worker has written the outcome
            context.log.debug(str(error))
