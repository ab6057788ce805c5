"""The main line as three Dagster runs on the platform's instance, recorded like any other run."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from quayside.foundation.dagster.failure_sensor import cause
from quayside.foundation.errors import QuaysideError
from quayside.foundation.progress import step
from quayside.kycc.dagster.definitions import feature_job, ingest_job, scoring_job

#: The run's own log is in the UI; the terminal shows the steps.
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True)
class Ran:
    """One finished run."""

    job: str
    run_id: str
    seconds: float


def run_line(instance: dg.DagsterInstance, file_path: Path, batch_id: str) -> Iterator[Ran]:
    """Ingest a file, compute its features, score it: one run each, yielded as it ends.

    Raises:
        QuaysideError: the sentence of the step that failed.
    """
    batch = {"config": {"batch_id": batch_id}}
    source = {"config": {"batch_id": batch_id, "file_path": str(file_path)}}
    for job, ops in (
        (ingest_job, {"ingest_synthetic_batch": source}),
        (feature_job, dict.fromkeys(_assets(feature_job), batch)),
        (scoring_job, dict.fromkeys(_assets(scoring_job), batch)),
    ):
        yield _run(instance, job, ops)


def _run(instance: dg.DagsterInstance, job: dg.JobDefinition, ops: dict[str, Any]) -> Ran:
    with step(job.name) as timed:
        result = job.execute_in_process(
            run_config={"ops": ops, **QUIET}, instance=instance, raise_on_error=False
        )
        timed.note = f"run {result.run_id[:8]}"
    for event in result.all_events:
        if event.is_step_failure and (error := event.step_failure_data.error):
            raise QuaysideError(f"{job.name} failed in {event.step_key}: {cause(error)}")
    for check in result.get_asset_check_evaluations():
        if not check.passed and check.severity is dg.AssetCheckSeverity.ERROR:
            raise QuaysideError(f"{job.name}: check {check.check_name} does not hold: {check.description}")
    return Ran(job.name, result.run_id, timed.seconds)


def _assets(job: dg.JobDefinition) -> list[str]:
    return [key.to_user_string() for key in job.asset_layer.executable_asset_keys]
