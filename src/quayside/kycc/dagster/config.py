"""Run config of KYCC's assets, and how an asset learns which batch it works on."""

from datetime import UTC, datetime

import dagster as dg
from pydantic import Field

from quayside.foundation.errors import UsageError

#: Tag that the ingesting asset puts on its run, so that the assets after it work on that batch and the UI shows it.
BATCH_TAG = "quayside/batch_id"


class IngestConfig(dg.Config):
    """Config of ``ingest_synthetic_batch``."""

    file_path: str = Field(
        "data/synthetic_profiles.json",
        description="JSON file, folder of Parquet files, or lake:SCHEMA. Relative to the project.",
    )
    batch_id: str | None = Field(
        None, description="Left out: BATCH_ID of the environment, else the file's own."
    )
    max_reject_ratio: float = Field(0.01, ge=0, le=1, description="Share of a table that may be quarantined.")
    base_currency: str | None = Field(
        None, description="Amounts are converted to it. Left out: the currency most transactions are in."
    )
    replace: bool = Field(False, description="Remove rows of the batch that this file no longer has.")


class BatchConfig(dg.Config):
    """Config of every asset that starts from a batch already loaded."""

    batch_id: str | None = Field(
        None, description="Left out: the batch this run ingested, else the last that has what is needed."
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

    scorecard_version: str = Field("v1", description="Scorecard to score with.")


def batch_of(
    context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext, config: BatchConfig | None
) -> str | None:
    """Batch id of config, else of the run's partition, else of the ingest of this run; None for the last one."""
    if config is not None and config.batch_id:
        return config.batch_id
    run = context.instance.get_run_by_id(context.run.run_id)
    tags = run.tags if run else {}
    return tags.get("dagster/partition") or tags.get(BATCH_TAG)
