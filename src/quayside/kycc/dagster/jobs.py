"""KYCC's jobs, by the assets they materialize. `definitions` resolves them into executable jobs.

Batches are partitions of the jobs, not of the assets: a step of a partitioned asset cannot run without a partition key, and
every job here also runs without one, on the batch its config names or on the last that has what is needed.
"""

from pathlib import Path
from typing import Any

import dagster as dg

from quayside.kycc.dagster.alerting import notify_on_failure, send_alert
from quayside.kycc.dagster.config import (
    BatchConfig,
    IngestConfig,
    LabelConfig,
    RefineConfig,
    ScoreConfig,
    TrainConfig,
)
from quayside.kycc.dagster.partitions import BATCH_TAG, BATCHES, incoming_folder

#: Who looks after these jobs; alerts name it.
OWNER = {"owner": "team:kycc"}

EXTRACTORS = ("extract_kyc_features", "extract_txn_features", "extract_network_features", "extract_features")
LEARNING = ("generate_scorecard_labels", "train_model_asset", "refine_scorecard")

#: Config of `full_scoring_job` with every default written out.
default_config = dg.RunConfig(
    ops={
        "ingest_synthetic_batch": IngestConfig(),  # pyright: ignore[reportCallIssue] - every field has a default
        **{name: BatchConfig() for name in EXTRACTORS},  # pyright: ignore[reportCallIssue] - the same
        "score_batch": ScoreConfig(),  # pyright: ignore[reportCallIssue] - the same
        "generate_scorecard_labels": LabelConfig(),  # pyright: ignore[reportCallIssue] - the same
        "train_model_asset": TrainConfig(),  # pyright: ignore[reportCallIssue] - the same
        "refine_scorecard": RefineConfig(),  # pyright: ignore[reportCallIssue] - the same
    }
)

#: A run of a partition works on that batch (`batch_of`), with the defaults of everything else.
BY_BATCH = dg.PartitionedConfig(partitions_def=BATCHES, run_config_for_partition_key_fn=lambda batch_id: {})
_ALL_BY_BATCH = dg.PartitionedConfig(
    partitions_def=BATCHES,
    run_config_for_partition_key_fn=lambda batch_id: {"ops": default_config.to_config_dict()["ops"]},
)

INGEST_JOB = dg.define_asset_job(
    "ingest_job",
    selection=dg.AssetSelection.assets("ingest_synthetic_batch"),
    description="Load one batch from a file into the lake.",
    tags=OWNER,
    config=BY_BATCH,
)

FEATURE_JOB = dg.define_asset_job(
    "feature_job",
    selection=dg.AssetSelection.assets(*EXTRACTORS),
    description="Compute the features of a batch: the one named, else the last one loaded.",
    tags=OWNER,
    config=BY_BATCH,
)

SCORING_JOB = dg.define_asset_job(
    "scoring_job",
    selection=dg.AssetSelection.assets("score_batch"),
    description="Score a batch: the one named, else the last one that has features.",
    tags=OWNER,
    config=BY_BATCH,
)

ML_TRAINING_JOB = dg.define_asset_job(
    "ml_training_job",
    selection=dg.AssetSelection.assets(*LEARNING),
    description="Label a batch (the one named, else the last one that has features), train on all that is labelled, and "
    "make a draft scorecard.",
    tags=OWNER,
    config=BY_BATCH,
)

_EVERYTHING = dg.AssetSelection.assets("ingest_synthetic_batch", *EXTRACTORS, "score_batch", *LEARNING)

FULL_SCORING_JOB = dg.define_asset_job(
    "full_scoring_job",
    selection=_EVERYTHING,
    description="From a file to scores and a draft scorecard.",
    tags=OWNER,
    config=_ALL_BY_BATCH,
)

FULL_SCORING_JOB_WITH_HOOKS = dg.define_asset_job(
    "full_scoring_job_with_hooks",
    selection=_EVERYTHING,
    hooks={notify_on_failure},
    description="full_scoring_job that alerts by itself when it fails, for a Dagster where run_failure_alert is off.",
    tags=OWNER,
    config=_ALL_BY_BATCH,
)


@dg.job(description="Send one alert, as low_score_sensor asks for.", tags=OWNER)
def alert_job() -> None:
    """Send one alert."""
    send_alert()


JOBS = [
    FULL_SCORING_JOB,
    FULL_SCORING_JOB_WITH_HOOKS,
    INGEST_JOB,
    FEATURE_JOB,
    SCORING_JOB,
    ML_TRAINING_JOB,
    alert_job,
]


def create_run_request(
    batch_id: str,
    file_path: Path | str | None = None,
    *,
    outcomes_path: Path | str | None = None,
    run_key: str | None = None,
    partition_key: str | None = None,
) -> dg.RunRequest:
    """A run of ``full_scoring_job`` on one batch.

    Args:
        file_path: ``<batch_id>.json`` in data/incoming when left out.
        outcomes_path: outcome file to label from, where there is one already.
        partition_key: the batch as partition, which has to exist by the time the run starts.
    """
    source = file_path or incoming_folder() / f"{batch_id}.json"
    ops: dict[str, Any] = {
        "ingest_synthetic_batch": {"config": {"batch_id": batch_id, "file_path": str(source)}}
    }
    if outcomes_path is not None:
        ops["generate_scorecard_labels"] = {"config": {"outcomes_path": str(outcomes_path)}}
    return dg.RunRequest(
        run_key=run_key,
        job_name=FULL_SCORING_JOB.name,
        run_config={"ops": ops},
        tags={BATCH_TAG: batch_id},
        partition_key=partition_key,
    )
