"""KYCC's assets from scores to a draft scorecard. What cannot be learned is a status with its reason, not a failure."""

from dataclasses import asdict
from pathlib import Path

import dagster as dg

from quayside.foundation.dagster.steps import domain_call
from quayside.foundation.settings import project_root
from quayside.kycc.dagster import metadata
from quayside.kycc.dagster.assets import (
    OWNERS,
    extract_kyc_features,
    extract_network_features,
    extract_txn_features,
    score_batch,
)
from quayside.kycc.dagster.config import LabelConfig, RefineConfig, TrainConfig, batch_of
from quayside.kycc.dagster.partitions import BATCH_TAG, TRAINING_TAG, WINDOW_TAG, set_tag, tag
from quayside.kycc.dagster.reports import write_skipped_page, write_training_page
from quayside.kycc.learning import WINDOW_DAYS
from quayside.kycc.service import ScoringService


@dg.asset(
    group_name="ml_pipeline",
    kinds={"duckdb"},
    owners=OWNERS,
    deps=[score_batch, extract_kyc_features, extract_txn_features, extract_network_features],
)
def generate_scorecard_labels(
    context: dg.AssetExecutionContext, config: LabelConfig, scoring_service: dg.ResourceParam[ScoringService]
) -> dg.MaterializeResult:
    """Good or bad of every party of the batch: observed where there are outcomes, simulated only where there are none."""
    with domain_call(context):
        batch_id = batch_of(context, config)
        if config.outcomes_path:
            path = project_root() / Path(config.outcomes_path).expanduser()
            for warning in scoring_service.load_outcomes(path, batch_id).warnings:
                context.log.warning(warning)
        result = scoring_service.labels(
            batch_id, config.observation_window_days, config.default_rate, config.moment()
        )
    set_tag(context, BATCH_TAG, result.batch_id)
    set_tag(context, WINDOW_TAG, result.observation_window_days)
    if result.circular:
        context.log.warning(
            "No outcomes are loaded; labels are simulated from scores, and training on them is circular."
        )
    through = result.observed_through
    return dg.MaterializeResult(
        metadata={
            "batch_id": result.batch_id,
            "as_of": result.as_of.isoformat(),
            "observation_window_days": result.observation_window_days,
            "label_source": result.source,
            "circular": result.circular,
            "observed_through": through.isoformat() if through else "no outcomes",
            "labels": metadata.table(
                {
                    "source": source,
                    **asdict(n),
                    "bad_rate": None if n.bad_rate is None else round(n.bad_rate, 4),
                }
                for source, n in result.counts.items()
            ),
            "rows_added": result.added,
            "rows_changed": result.changed,
            "rows_removed": result.removed,
        }
    )


@dg.asset(group_name="ml_pipeline", kinds={"python"}, owners=OWNERS, deps=[generate_scorecard_labels])
def train_model_asset(
    context: dg.AssetExecutionContext, config: TrainConfig, scoring_service: dg.ResourceParam[ScoringService]
) -> dg.MaterializeResult:
    """A model on the labelled parties of every batch, with its figures beside those of the scorecard in use."""
    from quayside.kycc.training import Skipped

    days = config.observation_window_days or int(tag(context, WINDOW_TAG) or WINDOW_DAYS)
    with domain_call(context):
        result = scoring_service.train(
            config.batch_ids, days, min_samples=config.min_samples, test_size=config.test_size
        )
        outcome = result.outcome
        page = (
            write_skipped_page(scoring_service, result.training_id, outcome)
            if isinstance(outcome, Skipped)
            else None
        )
    set_tag(context, TRAINING_TAG, result.training_id)
    shown = {"status": result.status, "training_id": result.training_id, "observation_window_days": days}
    if isinstance(outcome, Skipped):
        context.log.warning(f"Training was skipped: {outcome.reason}")
        counts = {"reason": outcome.reason, "rows": outcome.rows, "bads": outcome.bads}
        return dg.MaterializeResult(metadata=shown | counts | {"report": dg.MetadataValue.path(page or "")})
    rankings = {"model": outcome.holdout}
    if outcome.active is not None:
        rankings[f"scorecard {outcome.active_version}"] = outcome.active
    folds, data = outcome.cross_validation, outcome.data
    return dg.MaterializeResult(
        metadata=shown
        | {
            "circular": outcome.circular,
            "rows": data.train_rows + data.holdout_rows,
            "bads": data.train_bads + data.holdout_bads,
            "batches": ", ".join(data.batches),
            "label_sources": data.sources,
            "split": data.method,
            "auc": round(outcome.holdout.auc, 4),
            "holdout": metadata.measured(rankings),
            "training_part": metadata.measured({"model": outcome.training}),
            "cross_validated_auc": round(folds.mean, 4) if folds.auc else "none",
            "cross_validated_spread": round(folds.spread, 4) if len(folds.auc) > 1 else "none",
            "psi": round(outcome.stability, 4),
            "importance": metadata.table(
                {"feature": item.feature, "share": round(item.importance, 4), "psi": round(item.stability, 4)}
                for item in outcome.characteristics
            ),
            "plots": metadata.ranking_plots(rankings),
        }
    )


@dg.asset(group_name="ml_pipeline", kinds={"python", "postgres"}, owners=OWNERS, deps=[train_model_asset])
def refine_scorecard(
    context: dg.AssetExecutionContext, config: RefineConfig, scoring_service: dg.ResourceParam[ScoringService]
) -> dg.MaterializeResult:
    """A draft scorecard between base version and model, or a rejected one with the gates it failed. A person activates it."""
    from quayside.kycc.refinement import BinComparison
    from quayside.kycc.training import TrainedModel

    with domain_call(context):
        result = scoring_service.refine(
            config.training_id or tag(context, TRAINING_TAG), config.blend_factor, config.base_version
        )
        version, page = result.version, None
        if version is not None:
            stored = scoring_service.versions.training(result.training_id)
            page = write_training_page(scoring_service, version, TrainedModel.from_json(stored.model or ""))
    shown = {"status": result.status, "training_id": result.training_id, "reason": result.reason or "none"}
    if version is None:
        context.log.warning(f"Refinement was skipped: {result.reason}")
        return dg.MaterializeResult(metadata=shown)
    comparison = [BinComparison(**row) for row in version.details["comparison"]]
    return dg.MaterializeResult(
        metadata=shown
        | {
            "version": version.version,
            "base_version": version.base_version or "",
            "blend_factor": config.blend_factor,
            "known_before": result.known_before,
            "circular": bool(version.details["circular"]),
            "gates": metadata.table(version.gates),
            "weights": metadata.weights(comparison),
            "bins": metadata.table(asdict(row) for row in comparison),
        }
        | ({"report": dg.MetadataValue.path(page)} if page else {})
    )


LEARNING_ASSETS = [generate_scorecard_labels, train_model_asset, refine_scorecard]
