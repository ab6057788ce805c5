"""The main line as three Dagster runs on the platform's instance, recorded like any other run."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

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
    for job, ops in (
        (ingest_job, {"ingest_synthetic_batch": {"config": {"batch_id": batch_id, "file_path": str(file_path)}}}),
        (feature_job, {asset: batch for asset in _assets(feature_job)}),
        (scoring_job, {asset: batch for asset in _assets(scoring_job)}),
    ):
        with step(job.name) as timed:
            result = job.execute_in_process(
                run_config={"ops": ops, **QUIET}, instance=instance, raise_on_error=False
            )
            timed.note = f"run {result.run_id[:8]}"
        if not result.success:
            failed = result.get_run_failure_event() if not result.all_events else result.filter_events(lambda e: e.is_step_failure)
            causes = [e.event_specific_data.error for e in failed] if isinstance(failed, list) else []
            message = causes[0].cause.message if causes and causes[0].cause else "see the run's log"
            raise QuaysideError(f"{job.name} failed: {message.strip()}")
        yield Ran(job.name, result.run_id, timed.seconds)


def _assets(job: dg.JobDefinition) -> list[str]:
    return [key.to_user_string() for key in job.asset_layer.executable_asset_keys]
