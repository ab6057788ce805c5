"""The pages: self-contained, escaped, and every figure they were given is on them."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest
from tests.kycc.monitoring.cases import CARD, january, march, snapshot

from quayside.kycc.monitoring import band_mix, characteristic_shifts, feature_stability, score_stability
from quayside.kycc.refinement import Refinement, refine
from quayside.kycc.report import (
    ScoreCounts,
    ScoringReport,
    TrainingReport,
    scoring_page,
    skipped_report,
    training_page,
    training_report,
)
from quayside.kycc.report.html import Html, h, join
from quayside.kycc.report.sources import joined_label
from quayside.kycc.report.training import verdict
from quayside.kycc.training.config import TrainingConfig
from quayside.kycc.training.model import Skipped, TrainedModel
from quayside.kycc.training.split import Parts, split
from quayside.kycc.training.train import train

pytestmark = pytest.mark.unit

NOW = datetime(2026, 7, 1, 9, 30, tzinfo=UTC)
NASTY = "<script>alert('&')</script>"


class Page(HTMLParser):
    """What a browser would see: tags that are opened and closed, addresses, text."""

    VOID = frozenset({"meta", "br", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self.addresses += [
            value or "" for name, value in attrs if name in {"src", "href", "action", "data", "srcset"}
        ]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def labelled(rows: int = 1500) -> pa.Table:
    """Parties of one population whose outcomes depend on age and activity."""
    population = snapshot("TRAIN", rows, 11, risk=0.1)
    rng = np.random.default_rng(12)
    odds = (
        1.5
        - 2.5 * population.features["recent_activity_flag"]
        - 0.1 * population.features["transaction_count_6m"] / 10
    )
    label = rng.random(rows) < 1 / (1 + np.exp(-odds))
    keys = {
        "batch_id": pa.array(["TRAIN"] * rows),
        "party_id": pa.array([f"P{i:05d}" for i in range(rows)]),
        "as_of": pa.array([NOW] * rows, pa.timestamp("us", "UTC")),
        "label": pa.array(label.astype(np.int8)),
        "label_source": pa.array(["observed"] * rows),
    }
    return pa.table(keys | {name: pa.array(values) for name, values in population.features.items()})


@pytest.fixture(scope="module")
def run() -> tuple[TrainedModel, Refinement, Parts]:
    table = labelled()
    model = train(table, TrainingConfig(), active=CARD)
    assert isinstance(model, TrainedModel)
    parts = split(table, model.config)
    return model, refine(CARD, model, 0.5, parts, version="v2"), parts


@pytest.fixture(scope="module")
def report(run: tuple[TrainedModel, Refinement, Parts]) -> TrainingReport:
    model, refinement, parts = run
    return training_report(model, refinement, CARD, parts, NOW)


def test_training_page_is_self_contained(report: TrainingReport) -> None:
    page = training_page(report)
    seen = Page(page)
    assert seen.addresses == []
    assert not {"script", "link", "iframe", "img"} & set(seen.tags)
    assert "url(" not in page
    assert "@import" not in page
    assert page.count("http") == page.count('xmlns="http://www.w3.org/2000/svg"')
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    assert seen.tags.count("svg") >= 5


def test_training_page_holds_the_figures(
    run: tuple[TrainedModel, Refinement, Parts], report: TrainingReport
) -> None:
    model, refinement, parts = run
    text = Page(training_page(report)).text
    assert report.proposed is not None
    assert report.active is not None
    assert report.difference is not None
    value, low, high = report.difference
    assert value == pytest.approx(report.proposed.metrics.auc - report.active.metrics.auc)
    assert low < value < high
    for ranked in (report.proposed, report.active):
        for value in (ranked.metrics.auc, ranked.metrics.gini, ranked.metrics.ks, ranked.metrics.pr_auc):
            assert f"{value:.3f}" in text
        counted = ranked.scores.goods.sum() + ranked.scores.bads.sum()
        assert counted == parts.holdout.num_rows == ranked.metrics.rows
    for gate in refinement.gates:
        assert gate.sentence in text
        assert f"{gate.value:.3f}" in text
    assert parts.fingerprint in text
    assert CARD.content_hash in text
    assert refinement.card.content_hash in text
    assert "2026-07-01 09:30:00 UTC" in text
    for item in model.characteristics:
        assert item.feature in text


def test_bins_of_the_page_hold_every_training_row(
    run: tuple[TrainedModel, Refinement, Parts], report: TrainingReport
) -> None:
    parts = run[2]
    assert {item.label for item in report.characteristics} >= {item.label for item in CARD.characteristics}
    for item in report.characteristics:
        for rows in (item.bins, item.every or item.bins):
            assert sum(row.rows for row in rows) == parts.train.num_rows
            assert sum(row.bads for row in rows) == run[0].data.train_bads
    assert sum(item.weight for item in report.characteristics) == pytest.approx(1)
    (activity,) = (item for item in report.characteristics if item.label == "Active in the last 30 days")
    assert [row.base for row in activity.bins if row.label in {"no", "yes"}] == [(0, 0), (91, 91)]


def test_verdict_says_what_the_interval_allows(report: TrainingReport) -> None:
    for difference, words in (
        ((0.03, 0.01, 0.05), "better than v1"),
        ((-0.03, -0.05, -0.01), "worse than v1"),
        ((0.01, -0.01, 0.03), "no differently, beyond chance, from v1"),
    ):
        assert words in verdict(dataclasses.replace(report, difference=difference))
    passed = dataclasses.replace(
        report, gates=tuple(dataclasses.replace(gate, passed=True) for gate in report.gates)
    )
    assert "All 5 gates passed; a person has to activate it." in verdict(passed)
    failed = (dataclasses.replace(report.gates[0], passed=False, name="rank_correlation"), *passed.gates[1:])
    assert "rejected by the gate rank correlation." in verdict(dataclasses.replace(report, gates=failed))


def test_simulated_labels_are_called_circular(report: TrainingReport) -> None:
    assert "circular" not in Page(training_page(report)).text
    page = Page(training_page(dataclasses.replace(report, circular=True)))
    assert "circular" in page.text


def test_skipped_training_has_a_page_with_its_reason() -> None:
    report = skipped_report(Skipped("There are 12 labelled rows; training needs 100.", 12, 3), CARD, NOW)
    text = Page(training_page(report)).text
    assert "Nothing was trained. There are 12 labelled rows; training needs 100." in text
    assert "skipped" in text


def scoring(reference: bool) -> ScoringReport:
    before, after = january(), march()
    checks = {
        "score_stability": score_stability(before, after),
        "feature_stability": feature_stability(before, after),
        "band_mix": band_mix(before, after),
    }
    return ScoringReport(
        NASTY,
        "v1",
        identity=(("source", NASTY),),
        mean=float(after.scores.mean()),
        scores=np.bincount(after.scores.astype(np.int64) - 300, minlength=601),
        bands={"excellent": 100, "good": 900, "fair": 1000, "poor": 700, "very_poor": 300},
        decisions={"approve": 1000, "review": 1700, "decline": 300},
        reasons=((NASTY, 1234), ("Tax id on file", 77)),
        rules=((NASTY, 321),),
        findings=checks if reference else {},
        shifts=tuple(characteristic_shifts(CARD, before, after)) if reference else (),
        reference=NASTY if reference else "",
    )


@pytest.mark.parametrize("reference", [True, False])
def test_scoring_page_is_self_contained_and_escaped(reference: bool) -> None:
    page = scoring_page(scoring(reference))
    seen = Page(page)
    assert seen.addresses == []
    assert NASTY not in page
    assert NASTY in seen.text
    assert not {"script", "link", "iframe", "img"} & set(seen.tags)
    assert "1,234" in seen.text
    assert "321" in seen.text
    assert ("nothing to compare it with" in seen.text) is not reference


def test_a_batch_without_a_score_has_a_page() -> None:
    nothing = snapshot("EMPTY", 0, 1)
    report = dataclasses.replace(
        scoring(reference=True),
        scores=np.zeros(601, np.int64),
        bands=dict.fromkeys(scoring(reference=True).bands, 0),
        findings={"feature_stability": feature_stability(january(), nothing)},
        shifts=(),
    )
    assert "too few" in Page(scoring_page(report)).text


def test_scoring_page_names_the_problems_and_the_shift_in_points() -> None:
    report = scoring(reference=True)
    text = Page(scoring_page(report)).text
    for found in report.findings.values():
        for problem in found.problems:
            assert problem in text
    assert "3 of 3 monitoring checks" in text
    for shift in report.shifts:
        assert f"{shift.points_shift:+.1f}" in text


@pytest.mark.parametrize(
    ("first", "last", "joined"),
    [
        ("1 to under 2", "1 to under 2", "1 to under 2"),
        ("1 to under 2", "7 to under 9.5", "1 to under 9.5"),
        ("under 1", "1 to under 2", "under 2"),
        ("3 to under 4", "9 or more", "3 or more"),
        ("under 1", "1 or more", "any value"),
        ("no", "yes", "no … yes"),
        ("retailer", "8 or more", "retailer … 8 or more"),
    ],
)
def test_labels_of_joined_bins(first: str, last: str, joined: str) -> None:
    assert joined_label(first, last) == joined


def test_text_is_escaped_and_markup_is_not() -> None:
    assert h("p", NASTY, h("b", "x"), class_='"') == (
        '<p class="&quot;">&lt;script&gt;alert(&#x27;&amp;&#x27;)&lt;/script&gt;<b>x</b></p>'
    )
    assert join([None, "<", Html("<br>")]) == "&lt;<br>"


def test_counts_per_score_cover_the_ends_of_the_scale() -> None:
    counts = ScoreCounts.of(np.array([300, 900, 900]), np.array([1, 0, 0]))
    assert (counts.bads[0], counts.goods[-1], counts.goods.sum()) == (1, 2, 2)
