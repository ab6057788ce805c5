"""Asset checks: what must hold of a batch's rows, features and scores after each step, and what a person should look at.

A broken rule is an error. What `quayside.kycc.monitoring` finds is a warning: a population that moved is no failure.
"""

from collections.abc import Iterator

import dagster as dg

from quayside.kycc import checks
from quayside.kycc.dagster import metadata
from quayside.kycc.dagster.assets import extract_features, ingest_synthetic_batch, score_batch
from quayside.kycc.dagster.config import BatchConfig, ScoreCheckConfig, batch_of
from quayside.kycc.dagster.learning_assets import generate_scorecard_labels
from quayside.kycc.dagster.partitions import VERSION_TAG, WINDOW_TAG, tag
from quayside.kycc.learning import WINDOW_DAYS
from quayside.kycc.service import ScoringService

ERROR, WARN = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN

#: Comparisons with the batch scored before, all from one reading of both.
STABILITY = {
    "score_stability": "PSI of the total score against the batch before.",
    "feature_stability": "PSI of every feature against the batch before.",
    "characteristic_stability": "Shift of every characteristic against the batch before, in points.",
    "band_mix": "Share of every band against the batch before.",
    "coverage": "Every party has features and a score; no feature tells about fewer parties than in the batch before.",
}


def _result(
    found: checks.Findings, severity: dg.AssetCheckSeverity = ERROR, name: str | None = None
) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=found.passed,
        severity=severity,
        check_name=name,
        description=found.sentence,
        metadata=metadata.figures(found.figures),
    )


def _version(
    context: dg.AssetCheckExecutionContext, config: ScoreCheckConfig, service: ScoringService
) -> str:
    return service.versions.card(config.scorecard_version or tag(context, VERSION_TAG) or "v1").version


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
    config: ScoreCheckConfig,
    scoring_service: dg.ResourceParam[ScoringService],
) -> dg.AssetCheckResult:
    """Every party with features has one score, on the scale and in its band, in the lake and in PostgreSQL."""
    from quayside.foundation.postgres import connect

    version = _version(context, config, scoring_service)
    with scoring_service.connection() as con, connect(scoring_service.settings) as postgres:
        batch = scoring_service.resolve("scores", batch_of(context, config), None, con)
        return _result(checks.scores(con, postgres, batch.batch_id, version))


@dg.multi_asset_check(
    specs=[dg.AssetCheckSpec(name, asset=score_batch, description=what) for name, what in STABILITY.items()],
)
def stability(
    context: dg.AssetCheckExecutionContext,
    config: ScoreCheckConfig,
    scoring_service: dg.ResourceParam[ScoringService],
) -> Iterator[dg.AssetCheckResult]:
    """The scored batch against the one scored before it."""
    from quayside.kycc.monitoring import watch

    card = scoring_service.versions.card(_version(context, config, scoring_service))
    with scoring_service.connection() as con:
        batch = scoring_service.resolve("scores", batch_of(context, config), None, con)
        for name, found in watch(con, card, batch.batch_id).items():
            yield _result(found, WARN, name)


@dg.asset_check(asset=generate_scorecard_labels)
def label_balance(
    context: dg.AssetCheckExecutionContext,
    config: BatchConfig,
    scoring_service: dg.ResourceParam[ScoringService],
) -> dg.AssetCheckResult:
    """Good and bad labels are there in number, and the default rate is plausible and where it was in the batch before."""
    from quayside.kycc.monitoring import label_balance as balance
    from quayside.kycc.monitoring import label_counts, previous_batch

    days = int(tag(context, WINDOW_TAG) or WINDOW_DAYS)
    with scoring_service.connection() as con:
        batch = scoring_service.resolve("labels", batch_of(context, config), None, con)
        counts = label_counts(con, batch.batch_id, days)
        # Observed labels decide as soon as there are any, as they do in training.
        source = "observed" if "observed" in counts else "simulated"
        version = scoring_service.versions.get().version
        before = previous_batch(con, batch.batch_id, version)
        reference = label_counts(con, before, days).get(source) if before else None
    if source not in counts:
        sentence = f"Batch {batch.batch_id} has no labels over a window of {days} days."
        return _result(checks.Findings({"batch": batch.batch_id}, [sentence]), WARN)
    return _result(balance(counts[source], reference), WARN)


CHECKS = [batch_counts, feature_ranges, score_ranges, stability, label_balance]
