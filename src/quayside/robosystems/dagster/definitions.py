"""The code location ``robosystems``: assembly only."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from quayside.robosystems.dagster.assets.discovery import ADAPTER_ASSETS, with_custom
from quayside.robosystems.dagster.jobs.billing import BILLING_JOBS
from quayside.robosystems.dagster.jobs.health import weekly_health_check_job
from quayside.robosystems.dagster.jobs.infrastructure import INFRASTRUCTURE_JOBS
from quayside.robosystems.dagster.resources import DatabaseResource, GraphResource, S3Resource
from quayside.robosystems.dagster.schedules import SCHEDULES
from quayside.robosystems.dagster.sensors.provisioning import SENSORS


def build_definitions(resources: Mapping[str, Any] | None = None) -> dg.Definitions:
    """The location's definitions; for tests `resources` replaces resources by key."""
    ours = dg.Definitions(
        assets=ADAPTER_ASSETS,
        jobs=[*BILLING_JOBS, weekly_health_check_job, *INFRASTRUCTURE_JOBS],
        schedules=SCHEDULES,
        sensors=SENSORS,
        resources={
            "db": DatabaseResource(),
            "s3": S3Resource(),
            "graph": GraphResource(),
            **(resources or {}),
        },
        # A step's own process would import everything again: seconds for a step that takes half a second.
        executor=dg.in_process_executor,
    )
    return with_custom(ours)


defs = build_definitions()
