from __future__ import annotations

import json
from dataclasses import replace

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from tests.kycc.training.observed import labelled_batch

from quayside.foundation.errors import InputError, UsageError
from quayside.kycc.refinement import model_card, refine
from quayside.kycc.scorecard import Scorecard, evaluate, load_scorecard, score, to_sql
from quayside.kycc.training import Parts, TrainedModel, split, train
from quayside.kycc.training.directions import direction_of, expected_directions
from quayside.kycc.training.metrics import auc
from quayside.kycc.training.split import labels_of

pytestmark = pytest.mark.unit

V1 = load_scorecard("v1")


@pytest.fixture(scope="module")
def observed() -> pa.Table:
    return labelled_batch(7, 1_000)


@pytest.fixture(scope="module")
def model(observed: pa.Table) -> TrainedModel:
    return trained(observed)


@pytest.fixture(scope="module")
def parts(observed: pa.Table, model: TrainedModel) -> Parts:
    return split(observed, model.config)


def trained(table: pa.Table) -> TrainedModel:
    found = train(table, active=V1)
    assert isinstance(found, TrainedModel)
    return found


def columns(card: Scorecard, table: pa.Table) -> dict[str, pa.ChunkedArray]:
    return {name: table[name] for name in card.required_features}


def ranking(card: Scorecard, table: pa.Table) -> float:
    return auc(labels_of(table), -evaluate(card, columns(card, table)).total_score)


def flipped(table: pa.Table) -> pa.Table:
    place = table.column_names.index("label")
    return table.set_column(place, "label", pa.array(1 - labels_of(table)))


def test_blend_0_is_the_base_card_and_1_the_models_own(model: TrainedModel, parts: Parts) -> None:
    nothing = refine(V1, model, 0, parts, version="x")
    assert nothing.card.to_dict() == {**V1.to_dict(), "version": "x"}
    assert nothing.status == "draft"
    everything = refine(V1, model, 1, parts, version="x")
    own = model_card(model, V1, parts.train, "x")
    assert everything.card.characteristics == own.characteristics
    assert everything.card.rules == V1.rules
    assert {item.feature: item.cuts for item in own.characteristics} == {
        item.feature: item.bins.cuts for item in model.characteristics if item.feature in own.features
    }


@pytest.mark.parametrize("factor", [0.05, 0.3, 0.5, 0.75, 1])
def test_a_refined_card_is_a_scorecard_in_whole_points_and_in_order(
    factor: float, model: TrainedModel, parts: Parts
) -> None:
    made = refine(V1, model, factor, parts)
    card, expected = made.card, expected_directions(V1)
    assert Scorecard.from_dict(json.loads(json.dumps(card.to_dict()))) == card
    assert card.base + sum(item.max_points for item in card.characteristics) <= 900
    for item in card.characteristics:
        direction = direction_of(item)
        assert direction != 0, item.feature
        assert expected.get(item.feature, direction) == direction, item.feature
    assert card.scaling is not None
    assert 20 < card.scaling.points_to_double_odds < 200
    assert ranking(card, parts.holdout) > ranking(V1, parts.holdout) - 0.01
    with duckdb.connect() as con:
        con.register("features", parts.holdout)
        in_sql = con.execute(f"SELECT {to_sql(card, 'duckdb')} AS s FROM features").fetchnumpy()["s"]
    assert np.array_equal(in_sql, score(card, columns(card, parts.holdout)).raw_score)


def test_points_between_the_two_cards_are_their_weighted_sum(model: TrainedModel, parts: Parts) -> None:
    own = model_card(model, V1, parts.train, "x")
    raw = [score(card, columns(card, parts.holdout)).raw_score for card in (V1, own)]
    made = refine(V1, model, 0.5, parts).card
    found = score(made, columns(made, parts.holdout)).raw_score
    # half a point of rounding for each characteristic at most
    assert np.abs(found - (raw[0] + raw[1].astype(float)) / 2).max() <= len(made.characteristics) / 2


def test_bins_and_points_stand_side_by_side(model: TrainedModel, parts: Parts) -> None:
    made = refine(V1, model, 0.5, parts)
    features = list(dict.fromkeys(row.feature for row in made.comparison))
    assert features[:13] == list(V1.features)
    assert set(features) == set(V1.features) | set(made.card.features)
    label = labels_of(parts.train)
    for feature in features:
        rows = [row for row in made.comparison if row.feature == feature]
        assert sum(row.rows for row in rows) == len(label)
        assert sum(row.bads for row in rows) == label.sum()
        assert max(row.base for row in rows) == (
            V1.characteristic(feature).max_points if feature in V1.features else 0
        )
        for row in rows:
            assert abs(row.refined - (row.base + row.model) / 2) <= 1.5, row
    json.dumps(made.to_dict())


def test_the_gates_state_figure_threshold_and_sentence(model: TrainedModel, parts: Parts) -> None:
    made = refine(V1, model, 0.5, parts)
    assert [gate.name for gate in made.gates] == [
        "direction",
        "auc",
        "rank_correlation",
        "band_share",
        "monotone",
    ]
    assert made.status == "draft"
    assert made.failed == ()
    assert all(gate.sentence.endswith(".") for gate in made.gates)


def test_a_model_of_sign_flipped_labels_is_rejected(observed: pa.Table, parts: Parts) -> None:
    wrong = trained(flipped(observed))
    own = split(flipped(observed), wrong.config)
    for factor in (0.05, 0.5, 1.0):
        by_its_own_labels = refine(V1, wrong, factor, own)
        assert by_its_own_labels.status == "rejected"
        assert "direction" in by_its_own_labels.failed
        if factor >= 0.5:
            assert refine(V1, wrong, factor, parts).status == "rejected"


def turned(model: TrainedModel, feature: str | None = None) -> TrainedModel:
    """The model with every weight of evidence of a feature, or of all, turned round."""
    items = [
        replace(item, bins=replace(item.bins, woe=tuple(-w for w in item.bins.woe)))
        if feature in (None, item.feature)
        else item
        for item in model.characteristics
    ]
    return replace(model, characteristics=tuple(items))


def test_turned_points_are_rejected_by_every_gate_that_sees_them(model: TrainedModel, parts: Parts) -> None:
    made = refine(V1, turned(model), 1, parts)
    assert made.status == "rejected"
    assert set(made.failed) >= {"direction", "auc", "rank_correlation", "monotone"}
    assert ranking(made.card, parts.holdout) < 0.5


def test_one_turned_characteristic_is_named(model: TrainedModel, parts: Parts) -> None:
    feature = next(item.feature for item in model.characteristics if item.feature in expected_directions(V1))
    made = refine(V1, turned(model, feature), 1, parts)
    gate = next(gate for gate in made.gates if gate.name == "monotone")
    assert (gate.passed, gate.value) == (False, 1)
    assert feature in gate.sentence


def test_a_card_that_moves_the_bands_is_rejected(model: TrainedModel, parts: Parts) -> None:
    def worse_by(card: Scorecard, points: int) -> Scorecard:
        """The same card with less for everyone: every bin of the largest characteristic at its least points."""
        items = sorted(card.characteristics, key=lambda item: -item.max_points)
        taken = {item.feature for item in items[:points]}
        flat = tuple(
            replace(item, points=(item.min_points,) * len(item.points)) if item.feature in taken else item
            for item in card.characteristics
        )
        return replace(card, characteristics=flat)

    # against a base whose bands lie far lower, the same refinement moves them
    made = refine(worse_by(V1, 3), model, 0.0, parts)
    assert made.status == "draft"
    from quayside.kycc.refinement.gates import gates

    before, after = (evaluate(card, columns(card, parts.holdout)) for card in (V1, worse_by(V1, 3)))
    found = {
        gate.name: gate for gate in gates(before, after, labels_of(parts.holdout), expected_directions(V1))
    }
    assert not found["band_share"].passed
    assert found["band_share"].value > 0.1
    assert found["monotone"].passed


def test_what_cannot_be_refined_is_refused(model: TrainedModel, parts: Parts) -> None:
    with pytest.raises(UsageError, match="between 0"):
        refine(V1, model, 1.5, parts)
    with pytest.raises(InputError, match="says nothing"):
        refine(V1, replace(model, characteristics=()), 0.5, parts)


def test_a_missing_value_never_earns_more_than_the_best_known_one(model: TrainedModel, parts: Parts) -> None:
    item = model.characteristics[0]
    generous = replace(item, bins=replace(item.bins, woe=(9.0, *item.bins.woe[1:])))
    changed = replace(model, characteristics=(generous, *model.characteristics[1:]))
    own = model_card(changed, V1, parts.train, "x").characteristic(item.feature)
    assert own.missing == max(own.points)


@pytest.mark.slow
@pytest.mark.parametrize("mix", ["balanced", "risky", "safe"])
def test_refined_cards_rank_unseen_outcomes_better(mix: str) -> None:
    """The short form of `make bench-refinement`: other parties' outcomes, nothing fitted to them."""
    gains: dict[float, list[float]] = {0.5: [], 1.0: []}
    for seed in range(2):
        table, unseen = labelled_batch(seed, 1_000, mix), labelled_batch(500 + seed, 3_000, mix)
        learned = trained(table)
        before = ranking(V1, unseen)
        for factor, found in gains.items():
            found.append(
                ranking(refine(V1, learned, factor, split(table, learned.config)).card, unseen) - before
            )
    for found in gains.values():
        assert min(found) >= -0.01
        assert np.mean(found) > 0
