"""KYCC's assets: each reads its config, calls one verb of `ScoringService` and reports what came out."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from quayside.foundation.dagster.steps import domain_call
from quayside.foundation.plots import as_markdown, bars, histogram
from quayside.foundation.settings import project_root
from quayside.kycc.dagster.config import BATCH_TAG, BatchConfig, IngestConfig, ScoreConfig, batch_of
from quayside.kycc.service import Group, ScoringService

if TYPE_CHECKING:
    from quayside.kycc.features import Extraction

OWNERS = ["team:kycc"]


def _table(records: list[dict[str, object]]) -> dg.TableMetadataValue:
    return dg.MetadataValue.table([dg.TableRecord(dict(r)) for r in records])  # pyright: ignore[reportArgumentType]


@dg.asset(group_name="data_ingestion", kinds={"duckdb", "parquet"}, owners=OWNERS)
def ingest_synthetic_batch(
    context: dg.AssetExecutionContext, config: IngestConfig, scoring_service: dg.ResourceParam[ScoringService]
) -> dg.MaterializeResult:
    """One batch of parties, accounts, transactions and relationships, validated into the lake.

    Rows that cannot be used are quarantined with their reason; loading a batch again changes only what differs.
    """
    source = config.file_path
    if not source.startswith("lake:"):
        source = str(project_root() / Path(source).expanduser())
    with domain_call(context):
        result = scoring_service.ingest(
            source,
            config.batch_id or scoring_service.settings.batch_id,
            max_reject_ratio=config.max_reject_ratio,
            replace=config.replace,
            base_currency=config.base_currency,
        )
    context.instance.add_run_tags(context.run.run_id, {BATCH_TAG: result.batch_id})
    for warning in result.warnings:
        context.log.warning(warning)
    return dg.MaterializeResult(
        metadata={
            "batch_id": result.batch_id,
            "as_of": result.as_of.isoformat(),
            "already_loaded": result.already_loaded,
            "rows": _table([{"table": name, **counts} for name, counts in result.counts().items()]),
            "rows_quarantined": sum(result.rows_quarantined.values()),
            "warnings": dg.MetadataValue.md("\n".join(f"- {w}" for w in result.warnings) or "none"),
            "seconds": dict(result.seconds),
        }
    )


def _feature_metadata(result: "Extraction") -> dict[str, Any]:
    return {
        "rows": result.rows,
        "changed": result.changed,
        "seconds": round(result.seconds, 3),
        "coverage": _table(
            [
                {
                    "feature": name,
                    "present": round(d.present, 4),
                    "informative": round(d.informative, 4),
                    "min": _short(d.minimum),
                    "mean": _short(d.mean),
                    "max": _short(d.maximum),
                }
                for name, d in result.distributions.items()
            ]
        ),
        "distributions": dg.MetadataValue.md(
            as_markdown(
                *(histogram(d.edges, d.counts, name) for name, d in result.distributions.items() if d.counts)
            )
        ),
    }


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
        return dg.MaterializeResult(metadata=_feature_metadata(results[group]))

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
    return dg.MaterializeResult(metadata=_feature_metadata(result))


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
    summary, written = result.summary, result.written
    return dg.MaterializeResult(
        metadata={
            "batch_id": result.batch.batch_id,
            "as_of": _iso(result.batch.as_of),
            "scorecard_version": result.version,
            "parties_scored": summary.parties,
            "avg_score": round(summary.mean, 2),
            "processing_time_seconds": round(result.seconds, 3),
            "rows_added": written.added,
            "rows_changed": written.changed,
            "rows_removed": written.removed,
            "band_mix": _table(
                [
                    {"band": band, "parties": n, "share": round(n / summary.parties, 4)}
                    for band, n in summary.bands.items()
                ]
            ),
            "decisions": dict(summary.decisions),
            "histogram": dg.MetadataValue.md(
                as_markdown(
                    bars(
                        [str(edge) for edge in summary.histogram],
                        list(summary.histogram.values()),
                        "total_score",
                    ),
                    bars(list(summary.bands), list(summary.bands.values()), "band"),
                )
            ),
        }
    )


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def _iso(moment: datetime) -> str:
    return moment.isoformat()


ASSETS = [
    ingest_synthetic_batch,
    extract_kyc_features,
    extract_txn_features,
    extract_network_features,
    extract_features,
    score_batch,
]
