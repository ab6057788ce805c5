"""The code location ``dataloader``: assembly only."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from quayside.dataloader.dagster.assets import batch_load, table_load
from quayside.dataloader.dagster.jobs import JOBS
from quayside.dataloader.dagster.monitors import MONITORS
from quayside.dataloader.dagster.plane import LocalPlane
from quayside.dataloader.dagster.resources import LakebaseResource
from quayside.dataloader.dagster.run_status import RUN_STATUS_SENSORS
from quayside.dataloader.dagster.sensors import master_sensor
from quayside.dataloader.request import STRATEGIES

#: What a load imports when it comes to need it, imported by the warm launcher's server before it forks runs (docs/launcher.md).
PRELOADED = [
    "quayside.dataloader.dataloader_pipe",
    "quayside.dataloader.together",
    "quayside.dataloader.destinations.ducklake",
    "quayside.dataloader.sources.embedded",
    "quayside.dataloader.sources.files",
    "quayside.dataloader.sources.mysql",
    "quayside.dataloader.sources.postgresql",
    *(f"quayside.dataloader.strategies.{name}" for name in STRATEGIES),
]


def build_definitions(resources: Mapping[str, Any] | None = None) -> dg.Definitions:
    """The location's definitions; for tests `resources` replaces resources by key."""
    return dg.Definitions(
        assets=[table_load, batch_load],
        jobs=JOBS,
        sensors=[master_sensor, *MONITORS, *RUN_STATUS_SENSORS],
        resources={
            "lakebase": LakebaseResource(),
            "execution_plane": LocalPlane(),
            **(resources or {}),
        },
        # The load itself is a process of its own; a step's process would only import everything once more.
        executor=dg.in_process_executor,
        metadata={"warm_launcher/preload": PRELOADED},
    )


defs = build_definitions()

# Resolved, so that what a reader imports can be executed.
dataloader_table_load = defs.resolve_job_def("dataloader_table_load")
dataloader_batch_load = defs.resolve_job_def("dataloader_batch_load")
