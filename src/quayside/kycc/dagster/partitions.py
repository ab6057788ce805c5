"""Batches as partitions, the tags by which the steps of a run tell one another what they work on, and where files arrive."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import dagster as dg

from quayside.foundation.settings import project_root

#: One partition per batch; ingesting a batch adds its own, so does the sensor that sees its file.
BATCHES_NAME: Final = "kycc_batches"
BATCHES: Final = dg.DynamicPartitionsDefinition(name=BATCHES_NAME)

#: Put on a run by the step that knows, read by the steps after it; the UI shows them and finds runs by them.
BATCH_TAG: Final = "quayside/batch_id"
VERSION_TAG: Final = "quayside/scorecard_version"
WINDOW_TAG: Final = "quayside/observation_window_days"
TRAINING_TAG: Final = "quayside/training_id"

Context = dg.AssetExecutionContext | dg.AssetCheckExecutionContext


def incoming_folder() -> Path:
    """Where files of batches and of their outcomes arrive: ``data/incoming`` in the project."""
    return project_root() / "data" / "incoming"


def tag(context: Context, name: str) -> str | None:
    """A tag of the run as it is now: steps before this one may have added it."""
    run = context.instance.get_run_by_id(context.run.run_id)
    return run.tags.get(name) if run else None


def set_tag(context: Context, name: str, value: object) -> None:
    """Put a tag on the run."""
    context.instance.add_run_tags(context.run.run_id, {name: str(value)})


def partition(context: Context) -> str | None:
    """The run's partition, which is a batch id; None for a run without one."""
    return context.run.tags.get("dagster/partition")
