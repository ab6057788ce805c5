"""The page of a training run: what is proposed, whether it is better, and everything a committee may ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from quayside.foundation.plots import Area, Axis, Line, Mark, chart
from quayside.kycc.bands import BANDS, SCORE_MAX, SCORE_MIN
from quayside.kycc.charts import calibration_chart, roc_chart
from quayside.kycc.report.html import (
    Html,
    chip,
    figure,
    figures,
    h,
    join,
    page,
    section,
    svg,
    table,
    tile,
    tiles,
)
from quayside.kycc.report.parts import identity_section, score_axis, stability_table
from quayside.kycc.training.metrics import Z95, wilson

if TYPE_CHECKING:
    import numpy.typing as npt

    from quayside.kycc.refinement.gates import Gate
    from quayside.kycc.report.content import BinRow, CharacteristicBins, Ranked, TrainingReport
    from quayside.kycc.training.metrics import Metrics

#: Width of a bar in the score distributions, in points.
STEP: Final = 25

#: Share of the model below which a feature is named but gets no bar.
LEAST: Final = 0.0005


def training_page(report: TrainingReport) -> str:
    """One self-contained HTML document."""
    kinds = {"draft": "good", "rejected": "bad", "skipped": "warn"}
    proposed, active = report.proposed, report.active
    return page(
        f"Scorecard {report.version}: model report",
        h("h1", f"Scorecard {report.version} "),
        h("p", chip(report.status, kinds[report.status]), f" proposed in place of {report.base_version}"),
        h("p", verdict(report), class_="verdict"),
        _circular() if report.circular else None,
        _headline(report) if proposed else None,
        _gates(report.gates) if report.gates else None,
        _ranking(proposed, active, report.model) if proposed else None,
        _calibration(proposed) if proposed else None,
        _importance(report) if report.importance else None,
        _characteristics(report) if report.characteristics else None,
        _stability(report) if report.stability else None,
        identity_section(report.identity),
    )


def verdict(report: TrainingReport) -> str:
    """The outcome in one or two sentences, the same the run's log may show."""
    if report.status == "skipped" or report.proposed is None:
        return f"Nothing was trained. {report.reason}".strip()
    new = report.proposed.metrics
    on = f"on {new.rows:,} parties held out, {new.bads:,} of which defaulted"
    ranks = f"The proposed card ranks defaults with an AUC of {new.auc:.3f} {on}."
    if report.active is not None and report.difference is not None:
        value, low, high = report.difference
        word = (
            "better than" if low > 0 else "worse than" if high < 0 else "no differently, beyond chance, from"
        )
        ranks = (
            f"The proposed card ranks defaults {word} {report.active.name}: AUC {new.auc:.3f} against "
            f"{report.active.metrics.auc:.3f} {on}; difference {value:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}."
        )
    failed = [gate.name.replace("_", " ") for gate in report.gates if not gate.passed]
    if failed:
        which = f"gate {failed[0]}" if len(failed) == 1 else f"gates {', '.join(failed)}"
        return f"{ranks} It was rejected by the {which}."
    return f"{ranks} All {len(report.gates)} gates passed; a person has to activate it."


def _circular() -> Html:
    return h(
        "div",
        h("strong", "Simulated labels. "),
        "The labels were computed from the score itself, so every figure of ranking below is circular: it shows that the "
        "pipeline works and says nothing about real defaults.",
        class_="banner",
    )


def _headline(report: TrainingReport) -> Html:
    assert report.proposed is not None
    new, old = report.proposed.metrics, report.active.metrics if report.active else None
    beside = report.active.name if report.active else ""

    def one(name: str, value: float, before: float | None, note: str) -> Html:
        return tile(name, f"{value:.3f}", *([] if before is None else [f"{beside} {before:.3f}"]), note)

    spread = report.cross_validated
    return tiles(
        one("AUC", new.auc, old and old.auc, f"95 % interval ± {Z95 * new.auc_error:.3f}"),
        one("Gini", new.gini, old and old.gini, "2·AUC − 1"),
        one("KS", new.ks, old and old.ks, "largest distance"),
        one("PR-AUC", new.pr_auc, old and old.pr_auc, f"chance {new.bads / new.rows:.3f}"),
        one("Brier", new.brier, old and old.brier, "lower is better"),
        tile("Cross-validated AUC", f"{spread[0]:.3f}", f"sd over folds {spread[1]:.3f}")
        if spread
        else Html(),
        tile("Held out", f"{new.rows:,}", f"{new.bads:,} defaults, {new.bads / new.rows:.1%}"),
    )


def _gates(gates: tuple[Gate, ...]) -> Html:
    return section(
        "Gates",
        table(
            ["gate", "result", "figure", "threshold"],
            [
                [
                    h(
                        "span",
                        gate.name.replace("_", " "),
                        h("div", gate.sentence, class_="under") if gate.sentence else None,
                    ),
                    chip("passed" if gate.passed else "failed", "good" if gate.passed else "bad"),
                    f"{gate.value:.3f}",
                    f"{gate.threshold:.3f}",
                ]
                for gate in gates
            ],
            text=2,
        ),
        lead="All have to hold before the card is offered as a draft.",
    )


def _ranking(proposed: Ranked, active: Ranked | None, model: Metrics | None) -> Html:
    cards = [card for card in (proposed, active) if card is not None]
    most = max(_shares(side).max() for card in cards for side in (card.scores.goods, card.scores.bads))
    curves = {card.name: card.metrics for card in cards} | ({} if model is None else {"model": model})
    heights = Axis("share of the class", 0, float(most) * 1.08, ".0%")
    return section(
        "How it ranks",
        figures(
            *(
                figure(
                    _distribution(card, heights),
                    f"Scores by {card.name}: good and bad parties, each class as 100 %. The less they overlap, the better.",
                )
                for card in cards
            ),
            figure(
                roc_chart(curves),
                "ROC: share of bads caught against share of goods refused, as the cut-off rises. The diagonal is chance.",
            ),
            figure(
                _ks(proposed),
                f"KS of {proposed.name}: share of each class at or below a score. The dotted line is the largest distance.",
            ),
        ),
    )


def _distribution(card: Ranked, heights: Axis) -> str:
    edges = [*range(SCORE_MIN, SCORE_MAX, STEP), SCORE_MAX]
    sides = (("good", card.scores.goods, 0), ("bad", card.scores.bads, 1))
    areas = [Area(name, edges, _shares(counts).tolist(), colour) for name, counts, colour in sides]
    return chart(areas, score_axis(), heights, f"Score distribution by {card.name}")


def _shares(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Share of a class per `STEP` points; the score 900 belongs to the last step."""
    merged = counts[:-1].reshape(-1, STEP).sum(axis=1)
    merged[-1] += counts[-1]
    return merged / max(int(merged.sum()), 1)


def _ks(card: Ranked) -> str:
    goods, bads = (
        np.cumsum(side) / max(int(side.sum()), 1) for side in (card.scores.goods, card.scores.bads)
    )
    at = int(np.argmax(bads - goods))
    scores = range(SCORE_MIN, SCORE_MAX + 1)
    shapes = [
        Line("bad", list(zip(scores, bads.tolist(), strict=True)), 1),
        Line("good", list(zip(scores, goods.tolist(), strict=True)), 0),
        Mark(
            f"KS {bads[at] - goods[at]:.3f} at {SCORE_MIN + at}",
            SCORE_MIN + at,
            float(goods[at]),
            float(bads[at]),
        ),
    ]
    return chart(shapes, score_axis(), Axis("share at or below", 0, 1, ".0%"), "KS")


def _calibration(card: Ranked) -> Html:
    groups = card.metrics.calibration
    outside = sum(not g.low <= g.predicted <= g.high for g in groups)
    rows = [
        [
            f"{g.predicted:.1%}",
            f"{g.observed:.1%}",
            f"{g.low:.1%} to {g.high:.1%}",
            f"{g.rows:,}",
        ]
        for g in groups
    ]
    return section(
        "Calibration",
        figures(
            figure(
                calibration_chart(card.metrics),
                f"In {len(groups) - outside} of {len(groups)} groups the prediction lies within the interval of what was observed.",
            ),
            table(["predicted", "observed", "95 % interval", "parties"], rows, text=0),
        ),
        _by_band(card),
        lead=f"Scores of {card.name} read as default rates, by a logistic curve fitted on the training part, in groups of about "
        "equal size. Intervals are Wilson's.",
    )


def _by_band(card: Ranked) -> Html:
    goods, bads = card.scores.goods, card.scores.bads
    rows, ceiling = [], SCORE_MAX + 1
    for band, floor in BANDS:
        part = slice(floor - SCORE_MIN, ceiling - SCORE_MIN)
        bad, n = int(bads[part].sum()), int(bads[part].sum() + goods[part].sum())
        low, high = wilson(bad, n) if n else (0.0, 1.0)
        share = f"{bad / n:.1%}" if n else "–"
        rows.append([band, f"{n:,}", f"{bad:,}", share, f"{low:.1%} to {high:.1%}" if n else "–"])
        ceiling = floor
    return join(
        [
            h("h3", f"Default rate by band of {card.name}"),
            table(["band", "parties", "defaults", "default rate", "95 % interval"], rows),
        ]
    )


def _importance(report: TrainingReport) -> Html:
    longest = max(share for _, share in report.importance) or 1.0
    rows = [
        [name, svg(_bar(share / longest)), f"{share:.1%}"]
        for name, share in report.importance
        if share >= LEAST
    ]
    return section(
        "What the model rests on",
        table(["feature", "", "share"], rows, text=2),
        h("h3", "Left out") if report.left_out else None,
        *(h("p", f"{why} {', '.join(names)}.") for why, names in _by_reason(report.left_out)),
    )


def _by_reason(left_out: tuple[tuple[str, str], ...]) -> list[tuple[str, list[str]]]:
    reasons = dict.fromkeys(why for _, why in left_out)
    return [(f"{why.rstrip('.')}:", [name for name, given in left_out if given == why]) for why in reasons]


def _bar(share: float) -> str:
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="220" height="11" viewBox="0 0 220 11" aria-hidden="true">'
        f'<rect width="{220 * share:.1f}" height="11" fill="var(--series-1)"/></svg>'
    )


def _characteristics(report: TrainingReport) -> Html:
    return section(
        "Bins and points",
        *(_bins(item, report) for item in report.characteristics),
        lead="Points of the card in use, of the model alone, and of the proposed card, which blends the two. More points are "
        "safer. Bins are the model's; where one spans several of a card, its lowest and highest points stand. Parties and "
        "defaults are those of the training part.",
    )


def _bins(item: CharacteristicBins, report: TrainingReport) -> Html:
    head = ["bin", "parties", "defaults", "default rate", report.base_version, "model", "proposed"]

    def shown(rows: tuple[BinRow, ...]) -> Html:
        cells = [
            [
                row.label,
                f"{row.rows:,}",
                f"{row.bads:,}",
                "–" if row.bad_rate is None else f"{row.bad_rate:.1%}",
                _points(row.base),
                _points(row.model),
                h("strong", _points(row.proposed)),
            ]
            for row in rows
        ]
        return table(head, cells, class_="even")

    every = (
        h("details", h("summary", f"all {len(item.every)} bins"), shown(item.every)) if item.every else None
    )
    return join([h("h3", f"{item.label} · {item.weight:.0%} of the points"), shown(item.bins), every])


def _points(span: tuple[int, int]) -> str:
    return str(span[0]) if span[0] == span[1] else f"{span[0]}–{span[1]}"


def _stability(report: TrainingReport) -> Html:
    return section(
        "Stability",
        stability_table(report.stability),
        lead="Population stability index from the training part to the holdout. Noise is what sampling alone explains at "
        "these sizes; only an index above both 0.25 and the noise is a shift.",
    )
