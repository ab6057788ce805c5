"""Asset checks: what must hold of a batch's rows, features and scores after each step."""

import dagster as dg

from quayside.kycc import checks
from quayside.kycc.dagster.assets import extract_features, ingest_synthetic_batch, score_batch
from quayside.kycc.dagster.config import BatchConfig, ScoreConfig, batch_of
from quayside.kycc.service import ScoringService


def _result(found: checks.Findings) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=found.passed, description=found.sentence, metadata=found.figures)


@dg.asset_check(asset=ingest_synthetic_batch)
def batch_counts(
    context: dg.AssetCheckExecutionContext,
    config: BatchConfig,
    scoring_service: dg.ResourceParam[ScoringService],
) -> dg.AssetCheckResult:
    """The batch has parties, no key twice, and no row that points to a party that is not there."""
    with scoring_service.connection() as con:
        batch = scoring_service.resolve("loaded", batch_of(context, config), None, con)
        return _result(checks.counts(con, batch.batch_id))


@dg.asset_check(asset=extract_features)
def feature_ranges(
    context: dg.AssetCheckExecutionContext,
    config: BatchConfig,
    scoring_service: dg.ResourceParam[ScoringService],
) -> dg.AssetCheckResult:
    """Every feature lies in the range its definition states, for every party."""
    with scoring_service.connection() as con:
        batch = scoring_service.resolve("features", batch_of(context, config), config.moment(), con)
        return _result(checks.feature_ranges(con, batch.batch_id, batch.as_of))


@dg.asset_check(asset=score_batch)
def score_ranges(
    context: dg.AssetCheckExecutionContext,
    config: ScoreConfig,
    scoring_service: dg.ResourceParam[ScoringService],
) -> dg.AssetCheckResult:
    """Every party with features has one score, on the scale and in its band, in the lake and in PostgreSQL."""
    from quayside.foundation.postgres import connect

    with scoring_service.connection() as con, connect(scoring_service.settings) as postgres:
        batch = scoring_service.resolve("scores", batch_of(context, config), None, con)
        return _result(checks.scores(con, postgres, batch.batch_id, config.scorecard_version))


CHECKS = [batch_counts, feature_ranges, score_ranges]
