"""The code location ``kycc_scoring``: assembly only."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from quayside.kycc.dagster.assets import ASSETS
from quayside.kycc.dagster.checks import CHECKS
from quayside.kycc.dagster.jobs import FEATURE_JOB, INGEST_JOB, SCORING_JOB
from quayside.kycc.dagster.resources import database_resource, scoring_service_resource


def build_definitions(resources: Mapping[str, Any] | None = None) -> dg.Definitions:
    """The location's definitions; `resources` replaces resources by key, for tests."""
    return dg.Definitions(
        assets=ASSETS,
        asset_checks=CHECKS,
        jobs=[INGEST_JOB, FEATURE_JOB, SCORING_JOB],
        resources={
            "database": database_resource,
            "scoring_service": scoring_service_resource,
            **(resources or {}),
        },
        # A step's own process would import everything again: seconds for a step that takes half a second.
        executor=dg.in_process_executor,
    )


defs = build_definitions()

# Resolved, so that what a reader imports can be executed: `scoring_job.execute_in_process(...)`.
ingest_job = defs.resolve_job_def("ingest_job")
feature_job = defs.resolve_job_def("feature_job")
scoring_job = defs.resolve_job_def("scoring_job")
