"""Fills the reports: from a training run's results, and from the lake. The one module that knows their insides."""

from __future__ import annotations

import json
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from quayside.kycc.bands import BANDS, DECISIONS, SCORE_MAX, SCORE_MIN
from quayside.kycc.monitoring import (
    characteristic_shifts,
    previous_batch,
    read_snapshot,
    stability_index,
    watch,
)
from quayside.kycc.report.content import (
    BinRow,
    CharacteristicBins,
    Identity,
    Ranked,
    ScoreCounts,
    ScoringReport,
    Stability,
    TrainingReport,
)
from quayside.kycc.scorecard import evaluate
from quayside.kycc.training.metrics import compare_auc
from quayside.kycc.training.model import Skipped
from quayside.kycc.training.split import labels_of
from quayside.kycc.training.train import measure_card

if TYPE_CHECKING:
    from datetime import datetime

    import duckdb

    from quayside.kycc.monitoring import StabilityIndex
    from quayside.kycc.refinement import BinComparison, Refinement
    from quayside.kycc.scorecard import Scorecard
    from quayside.kycc.training.model import TrainedModel
    from quayside.kycc.training.split import Parts


#: A characteristic with no more bins than this, the missing one included, is shown bin by bin.
FEW_BINS: Final = 10


def skipped_report(skipped: Skipped, base: Scorecard, created_at: datetime) -> TrainingReport:
    """Report of a training that did not take place."""
    return TrainingReport(
        base.version,
        base.version,
        "skipped",
        identity=(
            ("labelled rows", f"{skipped.rows:,}, {skipped.bads:,} bad"),
            ("scorecard in use", f"{base.version}, content {base.content_hash}"),
            ("made", _moment(created_at)),
        ),
        reason=skipped.reason,
    )


def training_report(
    model: TrainedModel, refinement: Refinement, base: Scorecard, parts: Parts, created_at: datetime
) -> TrainingReport:
    """Report of a training run and the card it proposes.

    Args:
        base: the card in use, which `refinement` started from.
        parts: of the labelled table, by the model's own configuration.
    """
    card = refinement.card
    label = labels_of(parts.holdout)
    scores = {
        item.version: evaluate(
            item, {name: parts.holdout[name] for name in item.required_features}
        ).total_score
        for item in (base, card)
    }

    def ranked(item: Scorecard) -> Ranked:
        return Ranked(item.version, measure_card(item, parts), ScoreCounts.of(scores[item.version], label))

    pair = compare_auc(label, -scores[base.version], -scores[card.version])
    return TrainingReport(
        card.version,
        base.version,
        refinement.status,
        identity=_training_identity(model, refinement, base, created_at),
        circular=model.circular,
        proposed=ranked(card),
        active=ranked(base),
        difference=(pair.difference, *pair.interval),
        cross_validated=(model.cross_validation.mean, model.cross_validation.spread),
        model=model.holdout,
        importance=tuple((item.feature, item.importance) for item in model.characteristics),
        left_out=tuple(model.dropped.items()),
        gates=refinement.gates,
        characteristics=_characteristics(refinement),
        stability=_stability(model, card, parts),
    )


def scoring_report(
    con: duckdb.DuckDBPyConnection,
    card: Scorecard,
    batch_id: str,
    created_at: datetime,
    reference: str | None = None,
) -> ScoringReport:
    """Report of a batch scored by that card, compared with the batch before it (or `reference`).

    Raises:
        NotFoundError: the batch, or the reference, has no scores by the card's version.
    """
    current = read_snapshot(con, batch_id, card.version)
    reference = reference or previous_batch(con, batch_id, card.version)
    shifts = (
        characteristic_shifts(card, read_snapshot(con, reference, card.version), current) if reference else []
    )
    where, keys = (
        "FROM kycc.scores WHERE batch_id = ? AND scorecard_version = ?",
        [batch_id, card.version],
    )

    def counted(column: str) -> dict[str, int]:
        sql = f"SELECT item, count(*) FROM (SELECT {column} AS item {where}) GROUP BY 1"  # noqa: S608 - fixed texts
        return dict(con.execute(sql, keys).fetchall())

    bands, decisions = counted("band"), counted("decision")
    reasons, rules = counted("unnest(reasons)"), counted("unnest(rules)")
    labels = {item.feature: item.label for item in card.characteristics}
    counts = np.bincount(current.scores.astype(np.int64) - SCORE_MIN, minlength=SCORE_MAX - SCORE_MIN + 1)
    return ScoringReport(
        batch_id,
        card.version,
        identity=_batch_identity(con, card, batch_id, created_at),
        mean=float(current.scores.mean()) if len(current.scores) else float("nan"),
        scores=counts,
        bands={band: bands.get(band, 0) for band, _ in BANDS},
        decisions={name: decisions.get(name, 0) for name in dict.fromkeys(DECISIONS.values())},
        reasons=tuple(
            (labels.get(name, name), n)
            for name, n in sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
        ),
        rules=tuple((rule.text, rules[rule.id]) for rule in card.ordered_rules if rule.id in rules),
        findings=watch(con, card, batch_id, reference),
        shifts=tuple(shifts),
        reference=reference or "",
    )


def _characteristics(refinement: Refinement) -> tuple[CharacteristicBins, ...]:
    """Bins of the union of both cards; where they are many, neighbours that the model gives equal points are put together."""
    weights = {item.feature: item.max_points - item.min_points for item in refinement.card.characteristics}
    total = sum(weights.values()) or 1
    found = []
    for feature, rows in groupby(refinement.comparison, key=lambda row: row.feature):
        missing, *known = rows
        head = [_bin([missing])] if _counts(missing) else []
        every = (*head, *(_bin([row]) for row in known))
        groups = [list(group) for _, group in groupby(known, key=lambda row: row.model)]
        short = (*head, *map(_bin, groups)) if len(every) > FEW_BINS else every
        found.append(
            CharacteristicBins(
                missing.label,
                weights.get(feature, 0) / total,
                short,
                every if len(short) < len(every) else (),
            )
        )
    return tuple(sorted(found, key=lambda item: -item.weight))


def _counts(missing: BinComparison) -> bool:
    """Whether the bin of missing values is worth a line: it holds parties, or earns points."""
    return bool(missing.rows or missing.base or missing.model or missing.refined)


def _bin(group: list[BinComparison]) -> BinRow:
    def span(values: list[int]) -> tuple[int, int]:
        return min(values), max(values)

    return BinRow(
        joined_label(group[0].bin, group[-1].bin),
        sum(row.rows for row in group),
        sum(row.bads for row in group),
        span([row.base for row in group]),
        span([row.model for row in group]),
        span([row.refined for row in group]),
    )


def joined_label(first: str, last: str) -> str:
    """What the bins from `first` to `last` are called together."""
    if first == last:
        return first
    start, between, _ = first.partition(" to under ")
    if not between:
        start = "" if first.startswith("under ") else None
    if last.endswith(" or more"):
        end = ""
    else:
        _, between, end = last.partition(" to under ")
        end = end if between else None
    if start is None or end is None:  # labels of the card's own making
        return f"{first} … {last}"
    if start and end:
        return f"{start} to under {end}"
    return f"under {end}" if end else f"{start} or more" if start else "any value"


def _stability(model: TrainedModel, card: Scorecard, parts: Parts) -> tuple[Stability, ...]:
    """Score and characteristics, training part against holdout."""
    both = (parts.train, parts.holdout)
    scores = [
        evaluate(card, {name: part[name] for name in card.required_features}).total_score for part in both
    ]
    comparisons = len(model.characteristics) + 1
    deciles = np.unique(np.quantile(scores[0], np.arange(1, 10) / 10))
    counts = [
        np.bincount(np.searchsorted(deciles, side, side="right"), minlength=len(deciles) + 1)
        for side in scores
    ]
    found = [_stable("score", stability_index(*counts, comparisons=comparisons))]
    for item in model.characteristics:
        size = len(item.bins.rows)
        binned = [np.bincount(item.bins.encode(part[item.feature]), minlength=size) for part in both]
        found.append(_stable(item.feature, stability_index(*binned, comparisons=comparisons)))
    return tuple(found)


def _stable(name: str, index: StabilityIndex) -> Stability:
    return Stability(name, index.psi, index.noise, index.reference_rows, index.current_rows, index.status)


def _training_identity(
    model: TrainedModel, refinement: Refinement, base: Scorecard, created_at: datetime
) -> Identity:
    data, card = model.data, refinement.card
    scaling = card.scaling
    odds = (
        f"{scaling.base_score:g} points are odds of {scaling.base_odds:.3g} good to 1 bad; "
        f"{scaling.points_to_double_odds:.3g} points double them"
        if scaling
        else "not stated"
    )
    method = {"time": "the latest dates are held out", "stratified": "parties drawn, classes in proportion"}
    config = model.config
    return (
        ("proposed version", f"{card.version}, content {card.content_hash}"),
        ("in use", f"{base.version}, content {base.content_hash}"),
        ("blend factor", f"{refinement.blend_factor:g} of the model, the rest of {base.version}"),
        ("scale of the points", odds),
        ("batches", ", ".join(data.batches)),
        ("moments", " to ".join(dict.fromkeys((data.first_as_of, data.last_as_of)))),
        ("labels", ", ".join(f"{source} {n:,}" for source, n in data.sources.items())),
        ("training part", f"{data.train_rows:,} parties, {data.train_bads:,} defaults"),
        ("holdout", f"{data.holdout_rows:,} parties, {data.holdout_bads:,} defaults; {method[data.method]}"),
        ("data fingerprint", data.fingerprint),
        (
            "settings",
            f"min_samples {config.min_samples}, test_size {config.test_size:g}, seed {config.seed}, folds {config.folds}",
        ),
        ("made", _moment(created_at)),
    )


def _batch_identity(
    con: duckdb.DuckDBPyConnection, card: Scorecard, batch_id: str, created_at: datetime
) -> Identity:
    cursor = con.execute(
        "SELECT * FROM kycc.batches WHERE batch_id = ? ORDER BY loaded_at DESC LIMIT 1", [batch_id]
    )
    names = [column[0] for column in cursor.description or ()]
    loaded: dict[str, Any] = dict(zip(names, cursor.fetchone() or (), strict=False))
    stage = con.execute(
        "SELECT as_of, fingerprint, completed_at FROM kycc.stages "
        "WHERE stage = 'scores' AND batch_id = ? AND scorecard_version = ?",
        [batch_id, card.version],
    ).fetchone()
    as_of, fingerprint, scored_at = stage or (None, "", None)
    kept = json.loads(loaded["rows_kept"]) if loaded else {}
    return (
        ("batch", batch_id),
        ("scorecard", f"{card.version}, content {card.content_hash}"),
        ("features as of", _moment(as_of)),
        ("source", loaded.get("source", "")),
        ("content", loaded.get("content_sha256", "")),
        ("rows", ", ".join(f"{name} {n:,}" for name, n in kept.items())),
        ("base currency", loaded.get("base_currency", "")),
        ("loaded", _moment(loaded.get("loaded_at"))),
        ("scored", _moment(scored_at)),
        ("scores fingerprint", fingerprint),
        ("made", _moment(created_at)),
    )


def _moment(moment: datetime | None) -> str:
    from datetime import UTC

    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if moment else ""
