"""KYCC's assets from a file to scores: each reads its config, calls one verb of `ScoringService` and reports what came out."""

from pathlib import Path

import dagster as dg

from quayside.foundation.dagster.steps import domain_call
from quayside.foundation.settings import project_root
from quayside.kycc.dagster import metadata
from quayside.kycc.dagster.config import (
    DEFAULT_FILE,
    BatchConfig,
    IngestConfig,
    ScoreConfig,
    batch_of,
    named_batch,
)
from quayside.kycc.dagster.partitions import (
    BATCH_TAG,
    BATCHES_NAME,
    VERSION_TAG,
    Context,
    incoming_folder,
    partition,
    set_tag,
)
from quayside.kycc.dagster.reports import write_scoring_page
from quayside.kycc.service import Group, ScoringService

OWNERS = ["team:kycc"]


@dg.asset(group_name="data_ingestion", kinds={"duckdb", "parquet"}, owners=OWNERS)
def ingest_synthetic_batch(
    context: dg.AssetExecutionContext, config: IngestConfig, scoring_service: dg.ResourceParam[ScoringService]
) -> dg.MaterializeResult:
    """One batch of parties, accounts, transactions and relationships, validated into the lake.

    Rows that cannot be used are quarantined with their reason; loading a batch again changes only what differs.
    """
    with domain_call(context):
        result = scoring_service.ingest(
            _source(context, config),
            named_batch(context, config) or scoring_service.settings.batch_id,
            max_reject_ratio=config.max_reject_ratio,
            replace=config.replace,
            base_currency=config.base_currency,
        )
    context.instance.add_dynamic_partitions(BATCHES_NAME, [result.batch_id])
    set_tag(context, BATCH_TAG, result.batch_id)
    for warning in result.warnings:
        context.log.warning(warning)
    return dg.MaterializeResult(
        metadata={
            "batch_id": result.batch_id,
            "as_of": result.as_of.isoformat(),
            "already_loaded": result.already_loaded,
            "rows": metadata.table({"table": name, **counts} for name, counts in result.counts().items()),
            "rows_quarantined": sum(result.rows_quarantined.values()),
            "warnings": dg.MetadataValue.md("\n".join(f"- {w}" for w in result.warnings) or "none"),
            "seconds": dict(result.seconds),
        }
    )


def _source(context: Context, config: IngestConfig) -> str:
    """What is read: for a partition left to itself, its file among those that arrived, where there is one."""
    key = partition(context)
    if key and config.file_path == DEFAULT_FILE and (arrived := incoming_folder() / f"{key}.json").exists():
        return str(arrived)
    if config.file_path.startswith("lake:"):
        return config.file_path
    return str(project_root() / Path(config.file_path).expanduser())


def _extractor(name: str, group: Group, what: str) -> dg.AssetsDefinition:
    @dg.asset(
        name=name,
        group_name="feature_extraction",
        kinds={"duckdb"},
        owners=OWNERS,
        deps=[ingest_synthetic_batch],
        description=what,
    )
    def extractor(
        context: dg.AssetExecutionContext,
        config: BatchConfig,
        scoring_service: dg.ResourceParam[ScoringService],
    ) -> dg.MaterializeResult:
        with domain_call(context):
            results = scoring_service.extract(batch_of(context, config), config.moment(), groups=(group,))
        return dg.MaterializeResult(metadata=metadata.extraction(results[group]))

    return extractor


extract_kyc_features = _extractor(
    "extract_kyc_features",
    "kyc",
    "What is known of each party itself: verification, tax id, age, type, contacts.",
)
extract_txn_features = _extractor(
    "extract_txn_features", "transaction", "How each party trades in the 180 days before the batch's moment."
)
extract_network_features = _extractor(
    "extract_network_features",
    "network",
    "Where each party stands in the network of suppliers and customers.",
)


@dg.asset(
    group_name="feature_extraction",
    kinds={"duckdb"},
    owners=OWNERS,
    deps=[extract_kyc_features, extract_txn_features, extract_network_features],
)
def extract_features(
    context: dg.AssetExecutionContext, config: BatchConfig, scoring_service: dg.ResourceParam[ScoringService]
) -> dg.MaterializeResult:
    """The wide feature table: one row per party of the batch, every feature a column, as of one moment."""
    with domain_call(context):
        result = scoring_service.join(batch_of(context, config), config.moment())
    return dg.MaterializeResult(metadata=metadata.extraction(result))


@dg.asset(
    group_name="scoring",
    kinds={"duckdb", "postgres"},
    owners=OWNERS,
    deps=[extract_features],
    retry_policy=dg.RetryPolicy(max_retries=3, delay=30),
)
def score_batch(
    context: dg.AssetExecutionContext, config: ScoreConfig, scoring_service: dg.ResourceParam[ScoringService]
) -> dg.MaterializeResult:
    """Score, band, decision and reasons of every party of the batch, in the lake and in ``kycc.score_requests``."""
    with domain_call(context):
        result = scoring_service.score(batch_of(context, config), config.moment(), config.scorecard_version)
        # Drafts score the same parties, so that they can be compared; nothing is decided by them.
        shadow = scoring_service.shadow(result.batch.batch_id, result.batch.as_of)
        page = write_scoring_page(scoring_service, result.batch.batch_id, result.version)
    set_tag(context, BATCH_TAG, result.batch.batch_id)
    set_tag(context, VERSION_TAG, result.version)
    written = result.written
    return dg.MaterializeResult(
        metadata={
            "batch_id": result.batch.batch_id,
            "as_of": result.batch.as_of.isoformat(),
            "scorecard_version": result.version,
            "processing_time_seconds": round(result.seconds, 3),
            "rows_added": written.added,
            "rows_changed": written.changed,
            "rows_removed": written.removed,
            "shadow_versions": ", ".join(shadow) or "no draft",
            "report": dg.MetadataValue.path(page),
            **metadata.scores(result.summary),
        }
    )


ASSETS = [
    ingest_synthetic_batch,
    extract_kyc_features,
    extract_txn_features,
    extract_network_features,
    extract_features,
    score_batch,
]
