from __future__ import annotations

import json
import math

import numpy as np
import pyarrow as pa
import pytest
from tests.kycc.training.conftest import small_table

from quayside.foundation.errors import InputError
from quayside.kycc.scorecard import Scorecard
from quayside.kycc.training import Skipped, TrainedModel, TrainingConfig, train
from quayside.kycc.training.directions import expected_directions
from quayside.kycc.training.metrics import auc
from quayside.kycc.training.split import labels_of

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def model(observed: pa.Table, v1: Scorecard) -> TrainedModel:
    found = train(observed, active=v1)
    assert isinstance(found, TrainedModel)
    return found


def relabelled(table: pa.Table, label: np.ndarray) -> pa.Table:
    return table.set_column(table.column_names.index("label"), "label", pa.array(label.astype(np.int8)))


def test_it_ranks_outcomes_it_has_not_seen_and_says_how_the_active_card_does(model: TrainedModel) -> None:
    assert model.active is not None
    assert model.active_version == "v1"
    assert model.active.rows == model.holdout.rows == 200
    assert model.holdout.auc > model.active.auc > 0.7
    assert abs(model.cross_validation.mean - model.holdout.auc) < 0.08
    assert 0 < model.cross_validation.spread < 0.08
    assert model.holdout.brier < model.holdout.bads / 200 * (1 - model.holdout.bads / 200)
    assert sum(item.importance for item in model.characteristics) == pytest.approx(1)
    assert 0 <= model.stability < 0.25
    assert not model.circular
    assert model.data.sources == {"observed": 1000}


def test_every_characteristic_keeps_its_direction(model: TrainedModel, v1: Scorecard) -> None:
    expected = expected_directions(v1)
    assert set(expected) >= {"kyc_verified", "late_payment_ratio_6m"}
    for item in model.characteristics:
        steps = np.sign(np.diff(item.log_odds[1:]))
        assert item.coefficient > 0
        assert set(steps) <= {item.bins.direction}
        assert item.bins.direction in (0, expected.get(item.feature, item.bins.direction)), item.feature


def test_equal_data_and_seed_give_an_equal_model(
    model: TrainedModel, observed: pa.Table, v1: Scorecard
) -> None:
    assert train(observed, active=v1) == model


def test_the_model_survives_json_and_is_refused_otherwise(model: TrainedModel, observed: pa.Table) -> None:
    again = TrainedModel.from_json(model.to_json())
    assert again == model
    columns = {name: observed[name] for name in model.features}
    assert np.array_equal(again.probability(columns), model.probability(columns))
    document = json.loads(model.to_json())
    for broken in (
        "[]",
        "{",
        json.dumps({**document, "format": "x"}),
        json.dumps({**document, "more": 1}),
        "{}",
    ):
        with pytest.raises(InputError, match="format"):
            TrainedModel.from_json(broken)


def test_the_holdout_teaches_nothing() -> None:
    """Other outcomes and features in the holdout leave bins and coefficients as they are."""
    table = small_table(600, dates=5)
    held = np.array(table["batch_id"].to_pylist()) == "B4"
    age = table["company_age_years"].to_numpy().copy()
    label = labels_of(table)
    label[held], age[held] = 1 - label[held], 1_000 * age[held]
    changed = relabelled(table, label).set_column(5, "company_age_years", pa.array(age))
    before, after = train(table), train(changed)
    assert isinstance(before, TrainedModel)
    assert isinstance(after, TrainedModel)
    assert [(i.bins, i.coefficient) for i in after.characteristics] == [
        (i.bins, i.coefficient) for i in before.characteristics
    ]
    assert after.holdout.auc < 0.5 < before.holdout.auc


def test_a_column_that_is_no_feature_cannot_enter(
    model: TrainedModel, observed: pa.Table, v1: Scorecard
) -> None:
    leaking = observed.append_column("will_default", observed["label"]).append_column(
        "score", observed["label"]
    )
    found = train(leaking, active=v1)
    assert isinstance(found, TrainedModel)
    assert found.characteristics == model.characteristics


def test_shuffled_outcomes_teach_nothing(observed: pa.Table, v1: Scorecard) -> None:
    """AUC 0.5 ± 0.03 in the mean of shuffles; a single holdout of 200 rows strays further by chance."""
    rng = np.random.default_rng(11)
    found = []
    for seed in range(12):
        label = rng.permutation(labels_of(observed))
        trained = train(
            relabelled(observed, label), TrainingConfig(seed=seed, test_size=0.4, folds=2), active=v1
        )
        if isinstance(trained, TrainedModel):
            found.append(trained.holdout.auc)
    assert len(found) >= 8
    assert np.mean(found) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.slice(0, 99), "99 labelled rows; training needs 100"),
        (lambda t: t.slice(0, 0), "0 labelled rows"),
        (lambda t: relabelled(t, np.zeros(t.num_rows)), "no bad one"),
        (lambda t: relabelled(t, np.ones(t.num_rows)), "no good one"),
        (lambda t: relabelled(t, np.arange(t.num_rows) == 5), "holds no bad one"),
    ],
)
def test_too_little_to_learn_from_is_skipped_with_its_reason(change, reason: str) -> None:
    found = train(change(small_table()))
    assert isinstance(found, Skipped)
    assert reason in found.reason


def test_two_bad_parties_are_enough_for_a_model_without_cross_validation() -> None:
    table = relabelled(small_table(), np.isin(np.arange(400), (3, 7)))
    found = train(table, TrainingConfig(test_size=0.5, features=("company_age_years",)))
    assert isinstance(found, TrainedModel)
    assert found.cross_validation.auc == ()
    assert math.isnan(found.cross_validation.mean)
    assert math.isnan(found.cross_validation.spread)
    assert TrainedModel.from_json(found.to_json()) == found


def test_features_that_say_nothing_are_skipped_as_well() -> None:
    table = small_table()
    flat = pa.array([1.0] * table.num_rows)
    found = train(
        table.set_column(5, "company_age_years", flat).set_column(6, "pagerank", flat),
        TrainingConfig(features=("company_age_years", "pagerank")),
    )
    assert isinstance(found, Skipped)
    assert "No feature says anything" in found.reason


def test_a_feature_without_a_column_is_refused() -> None:
    with pytest.raises(InputError, match="'late_payment_ratio_6m'"):
        train(small_table(), TrainingConfig(features=("late_payment_ratio_6m",)))


def test_training_on_simulated_labels_is_marked_circular() -> None:
    table = small_table()
    table = table.set_column(4, "label_source", pa.array(["simulated"] * table.num_rows))
    found = train(table)
    assert isinstance(found, TrainedModel)
    assert found.circular


def test_steps_are_told_as_they_start() -> None:
    told: list[str] = []
    train(small_table(), on_progress=told.append)
    assert told == ["split", "bins and coefficients", "cross-validation", "figures"]


def test_bins_and_signs_recover_a_known_risk() -> None:
    table = small_table(4_000)
    found = train(table, TrainingConfig(features=("company_age_years",)))
    assert isinstance(found, TrainedModel)
    columns = {"company_age_years": table["company_age_years"]}
    predicted = found.probability(columns)
    truth = 0.6 - 0.05 * table["company_age_years"].to_numpy()
    assert np.abs(predicted - truth).mean() < 0.04
    assert auc(labels_of(table), predicted) == pytest.approx(auc(labels_of(table), truth), abs=0.01)
