"""The code location ``kycc_scoring``: assembly only."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from quayside.kycc.dagster.alerting import notify_on_failure
from quayside.kycc.dagster.assets import ASSETS
from quayside.kycc.dagster.checks import CHECKS
from quayside.kycc.dagster.jobs import JOBS, create_run_request, default_config
from quayside.kycc.dagster.learning_assets import LEARNING_ASSETS
from quayside.kycc.dagster.partitions import incoming_folder
from quayside.kycc.dagster.resources import database_resource, scoring_service_resource
from quayside.kycc.dagster.schedules import daily_scoring_schedule, weekly_ml_schedule
from quayside.kycc.dagster.sensors import low_score_sensor, new_data_sensor_of

__all__ = [
    "alert_job",
    "build_definitions",
    "create_run_request",
    "default_config",
    "defs",
    "feature_job",
    "full_scoring_job",
    "full_scoring_job_with_hooks",
    "ingest_job",
    "ml_training_job",
    "notify_on_failure",
    "scoring_job",
]


def build_definitions(
    resources: Mapping[str, Any] | None = None, incoming: Callable[[], Path] = incoming_folder
) -> dg.Definitions:
    """The location's definitions; for tests `resources` replaces resources by key, `incoming` the folder files arrive in."""
    return dg.Definitions(
        assets=[*ASSETS, *LEARNING_ASSETS],
        asset_checks=CHECKS,
        jobs=JOBS,
        schedules=[daily_scoring_schedule, weekly_ml_schedule],
        sensors=[new_data_sensor_of(incoming), low_score_sensor],
        resources={
            "database": database_resource,
            "scoring_service": scoring_service_resource,
            **(resources or {}),
        },
        # A step's own process would import everything again: seconds for a step that takes half a second.
        executor=dg.in_process_executor,
    )


defs = build_definitions()

# Resolved, so that what a reader imports can be executed: `full_scoring_job.execute_in_process(...)`.
full_scoring_job = defs.resolve_job_def("full_scoring_job")
full_scoring_job_with_hooks = defs.resolve_job_def("full_scoring_job_with_hooks")
ingest_job = defs.resolve_job_def("ingest_job")
feature_job = defs.resolve_job_def("feature_job")
scoring_job = defs.resolve_job_def("scoring_job")
ml_training_job = defs.resolve_job_def("ml_training_job")
alert_job = defs.resolve_job_def("alert_job")
