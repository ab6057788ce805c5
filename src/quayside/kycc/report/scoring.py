"""The page of a scored batch: how it scored, what was decided, why, and whether the population has moved."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

import numpy as np

from quayside.foundation.plots import Area, Axis, Mark, chart, split_bar
from quayside.kycc.bands import BANDS, SCORE_MAX, SCORE_MIN
from quayside.kycc.report.content import Stability
from quayside.kycc.report.html import (
    Html,
    chip,
    figure,
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

if TYPE_CHECKING:
    from quayside.kycc.report.content import ScoringReport

#: Width of a bar of the histogram, in points.
STEP: Final = 20

#: One colour per band, best first: a blue-to-orange scale that keeps its order in grey print.
BAND_COLOURS: Final[dict[str, str]] = dict(
    zip(
        (band for band, _ in BANDS),
        ("#1f4f82", "#3f7ab5", "#6e7f91", "#b9692a", "#8f3f12"),
        strict=True,
    )
)


def scoring_page(report: ScoringReport) -> str:
    """One self-contained HTML document."""
    return page(
        f"Batch {report.batch_id}: scores by {report.version}",
        h("h1", f"Batch {report.batch_id}"),
        h("p", f"{report.parties:,} parties scored by scorecard {report.version}"),
        h("p", verdict(report), class_="verdict"),
        _headline(report),
        _distribution(report),
        _bands(report),
        _reasons(report) if report.reasons else None,
        _rules(report) if report.rules else None,
        _monitoring(report) if report.findings else None,
        _shifts(report) if report.shifts else None,
        identity_section(report.identity),
    )


def verdict(report: ScoringReport) -> str:
    """The state of the batch in one sentence."""
    red = [name for name, found in report.findings.items() if not found.passed]
    against = f" against batch {report.reference}" if report.reference else ""
    if red:
        return f"{len(red)} of {len(report.findings)} monitoring checks{against} found a problem: {', '.join(map(_words, red))}."
    if not report.reference:
        return "This is the first batch of this scorecard; there is nothing to compare it with yet."
    return f"All {len(report.findings)} monitoring checks{against} hold."


def _headline(report: ScoringReport) -> Html:
    at = np.cumsum(report.scores)
    median = SCORE_MIN + int(np.searchsorted(at, (report.parties + 1) // 2))
    return tiles(
        tile("Parties", f"{report.parties:,}"),
        tile("Mean score", f"{report.mean:.0f}", f"median {median}"),
        *(
            tile(decision.capitalize(), f"{n / max(report.parties, 1):.1%}", f"{n:,} parties")
            for decision, n in report.decisions.items()
        ),
    )


def _distribution(report: ScoringReport) -> Html:
    counts = report.scores[:-1].reshape(-1, STEP).sum(axis=1)
    counts[-1] += report.scores[-1]
    edges = [*range(SCORE_MIN, SCORE_MAX, STEP), SCORE_MAX]
    marks = [Mark(band, floor) for band, floor in BANDS if floor > SCORE_MIN]
    plot = chart(
        [Area("", edges, counts.tolist()), *marks],
        score_axis(),
        Axis("parties", 0, max(float(counts.max()), 1) * 1.12, ",.0f"),
        "Score distribution",
        width=980,
        height=280,
    )
    return section(
        "Scores", figure(plot, f"Parties per {STEP} points; dotted lines are the floors of the bands.")
    )


def _bands(report: ScoringReport) -> Html:
    total = max(report.parties, 1)
    bar = split_bar(
        [(band, n / total, BAND_COLOURS[band]) for band, n in report.bands.items()], width=980, height=30
    )
    moved = {
        row["band"]: row["reference_share"]
        for row in (
            report.findings["band_mix"].figures.get("bands", ()) if "band_mix" in report.findings else ()
        )
    }
    head = ["band", "from", "parties", "share", *(["share then", "moved by"] if moved else [])]
    floors: dict[str, int] = dict(BANDS)
    rows = []
    for band, n in report.bands.items():
        share = n / total
        then = moved.get(band)
        beside = [f"{then:.1%}", f"{100 * (share - then):+.1f} pp"] if then is not None else []
        name = h("span", svg(_swatch(BAND_COLOURS[band])), f" {band}")
        rows.append([name, str(floors[band]), f"{n:,}", f"{share:.1%}", *beside])
    return section("Bands", svg(bar), table(head, rows))


def _swatch(colour: str) -> str:
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10" style="display:inline" aria-hidden="true">'
        f'<rect width="10" height="10" fill="{colour}"/></svg>'
    )


def _reasons(report: ScoringReport) -> Html:
    return section(
        "Strongest reasons against",
        table(
            ["reason", "parties", "share"],
            [[text, f"{n:,}", f"{n / max(report.parties, 1):.1%}"] for text, n in report.reasons],
        ),
        lead="A party has up to four: the characteristics that lost it most points.",
    )


def _rules(report: ScoringReport) -> Html:
    return section(
        "Decision rules",
        table(
            ["rule", "parties", "share"],
            [[text, f"{n:,}", f"{n / max(report.parties, 1):.1%}"] for text, n in report.rules],
        ),
    )


def _monitoring(report: ScoringReport) -> Html:
    rows = [
        [
            _words(name),
            chip("holds", "good") if found.passed else chip("problem", "bad"),
            join(h("div", problem) for problem in found.problems)
            if found.problems
            else str(found.figures.get("status", "")),
        ]
        for name, found in report.findings.items()
    ]
    lead = (
        f"Compared with batch {report.reference}."
        if report.reference
        else "There is no earlier batch to compare with."
    )
    return section(
        "Monitoring", table(["check", "result", "finding"], rows, text=3), _features(report), lead=lead
    )


def _features(report: ScoringReport) -> Html | None:
    found = report.findings.get("feature_stability")
    rows = found.figures.get("features", ()) if found else ()
    if not rows:
        return None
    lines = [
        Stability(
            row["feature"],
            row["psi"],
            inf if row["noise"] is None else row["noise"],
            row["reference_rows"],
            row["current_rows"],
            row["status"],
        )
        for row in rows
    ]
    return join([h("h3", "Features"), stability_table(lines)])


def _shifts(report: ScoringReport) -> Html:
    total = sum(shift.points_shift for shift in report.shifts)
    rows = [
        Stability(
            shift.label,
            shift.index.psi,
            shift.index.noise,
            shift.index.reference_rows,
            shift.index.current_rows,
            shift.index.status,
            shift.points_shift,
        )
        for shift in report.shifts
    ]
    return section(
        "Characteristics, in points",
        stability_table(rows),
        lead=f"What moved the mean score, before rules: the points add up to {total:+.1f} against batch {report.reference}.",
    )


def _words(name: str) -> str:
    return name.replace("_", " ")
