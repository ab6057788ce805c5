"""Run config of KYCC's assets, and how an asset learns which batch it works on."""

from datetime import UTC, datetime

import dagster as dg
from pydantic import Field

from quayside.foundation.errors import UsageError
from quayside.kycc.dagster.partitions import BATCH_TAG, Context, partition, tag

DEFAULT_FILE = "data/synthetic_profiles.json"


class IngestConfig(dg.Config):
    """Config of ``ingest_synthetic_batch``."""

    file_path: str = Field(
        DEFAULT_FILE,
        description="JSON file, folder of Parquet files, or lake:SCHEMA. Relative to the project. Left at its default in a "
        "run of a partition: the file of that name in data/incoming, where there is one.",
    )
    batch_id: str | None = Field(
        None,
        description="Left out: the run's partition, else BATCH_ID of the environment, else the file's own.",
    )
    max_reject_ratio: float = Field(0.01, ge=0, le=1, description="Share of a table that may be quarantined.")
    base_currency: str | None = Field(
        None, description="Amounts are converted to it. Left out: the currency most transactions are in."
    )
    replace: bool = Field(False, description="Remove rows of the batch that this file no longer has.")


class BatchConfig(dg.Config):
    """Config of every asset that starts from a batch already loaded."""

    batch_id: str | None = Field(
        None,
        description="Left out: the run's partition, else the batch this run ingested, else the last that has what is needed.",
    )
    as_of: str | None = Field(
        None, description="Moment of the features, ISO 8601. Left out: the batch's own."
    )

    def moment(self) -> datetime | None:
        """`as_of` as a time in UTC; a time without a zone is UTC."""
        if self.as_of is None:
            return None
        try:
            moment = datetime.fromisoformat(self.as_of)
        except ValueError:
            raise UsageError(
                f"as_of {self.as_of!r} is not an ISO 8601 time; write for example 2026-06-30T00:00:00Z."
            ) from None
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


class ScoreConfig(BatchConfig):
    """Config of ``score_batch``."""

    scorecard_version: str = Field("v1", description="Scorecard to score with; active for the one in use.")


class ScoreCheckConfig(BatchConfig):
    """Config of the checks on scores."""

    scorecard_version: str | None = Field(
        None, description="Left out: the one this run scored with, else v1."
    )


class LabelConfig(BatchConfig):
    """Config of ``generate_scorecard_labels``."""

    observation_window_days: int = Field(
        180, ge=1, description="Days after the moment in which an event makes a party bad."
    )
    default_rate: float = Field(
        0.15,
        gt=0,
        lt=1,
        description="Share of bad labels, where there are no outcomes and they are simulated.",
    )
    outcomes_path: str | None = Field(
        None, description="Outcome file of the batch that is loaded first. Relative to the project."
    )


class TrainConfig(dg.Config):
    """Config of ``train_model_asset``."""

    min_samples: int = Field(
        100, ge=1, description="Fewer labelled parties than this, and training is skipped."
    )
    test_size: float = Field(0.2, ge=0.01, le=0.9, description="Share held out.")
    batch_ids: list[str] | None = Field(
        None, description="Batches to train on. Left out: all that have labels."
    )
    observation_window_days: int | None = Field(
        None, ge=1, description="Left out: that of the labels this run made, else 180."
    )


class RefineConfig(dg.Config):
    """Config of ``refine_scorecard``."""

    blend_factor: float = Field(0.5, ge=0, le=1, description="0: the base version's points, 1: the model's.")
    base_version: str = Field("v1", description="Version that is refined; active for the one in use.")
    training_id: str | None = Field(None, description="Left out: the training of this run, else the latest.")


def named_batch(context: Context, config: BatchConfig | IngestConfig) -> str | None:
    """Batch id of config, else of the run's partition.

    Raises:
        UsageError: they name two batches.
    """
    key = partition(context)
    if key and config.batch_id and key != config.batch_id:
        raise UsageError(
            f"The run is of partition {key}, its config names batch {config.batch_id}: leave batch_id out."
        )
    return config.batch_id or key


def batch_of(context: Context, config: BatchConfig) -> str | None:
    """The batch that is named, else that of the steps of this run before; None for the last one that has what is needed."""
    return named_batch(context, config) or tag(context, BATCH_TAG)
