"""Two sources side by side, what running again does, and the training table."""

from __future__ import annotations

import numpy as np
import pytest
from tests.kycc.labels.conftest import DAY, MOMENT, World

from quayside.foundation.errors import NotFoundError, UsageError
from quayside.kycc import features
from quayside.kycc.labels import labelled
from quayside.kycc.labels.simulated import probability_of_bad

pytestmark = pytest.mark.unit

END = MOMENT + 180 * DAY


def stored(world: World) -> list[tuple[object, ...]]:
    return world.con.execute("FROM kycc.labels ORDER BY ALL").fetchall()


def test_labels_are_simulated_only_while_there_are_no_outcomes_and_kept_then(world: World) -> None:
    world.extract()
    first = world.make()
    assert (first.source, first.circular, first.added) == ("simulated", True, 3)
    simulated = stored(world)
    assert {row[6] for row in simulated} == {"simulated"}
    world.file(END)
    second = world.make()
    assert (second.source, second.circular, second.added, second.changed) == ("observed", False, 3, 0)
    assert set(second.counts) == {"observed", "simulated"}
    assert [row for row in stored(world) if row[4] == "simulated"] == simulated
    assert world.make(rate=0.9).changed == 0, "simulated labels of a batch with outcomes are not drawn anew"


def test_running_again_changes_nothing(world: World) -> None:
    world.extract()
    for _ in range(2):
        world.make()
        before = stored(world)
        again = world.make()
        assert (again.added, again.changed, again.removed) == (0, 0, 0)
        assert stored(world) == before
        world.file(END)
        world.event("P1", MOMENT + DAY)


def test_a_longer_observation_labels_more_and_changes_what_it_must(world: World) -> None:
    world.file(MOMENT + 20 * DAY)
    world.event("P1", MOMENT + 10 * DAY)
    assert world.make().added == 1
    world.file(END)
    world.event("P1", MOMENT + 5 * DAY, "overdue_90")
    result = world.make()
    assert (result.added, result.changed, result.removed) == (2, 1, 0)
    assert world.labels()["P1"] == (1, "overdue_90", True)
    world.con.execute("DELETE FROM kycc.outcome_files")
    world.file(MOMENT + 20 * DAY)
    assert world.make().removed == 2


def test_windows_and_moments_are_kept_apart(world: World) -> None:
    world.file(END)
    world.event("P1", MOMENT + 60 * DAY)
    world.make(days=30)
    world.make(days=90)
    world.make(days=90, as_of=MOMENT + DAY)
    assert [world.labels(days=d)["P1"][0] for d in (30, 90)] == [0, 1]
    assert len(stored(world)) == 9


@pytest.mark.parametrize("rate", [0.01, 0.15, 0.5, 0.97])
def test_simulated_defaults_are_as_many_as_asked_for_and_fall_with_the_score(rate: float) -> None:
    score = np.random.default_rng(1).integers(300, 901, 5000)
    probability = probability_of_bad(score, rate)
    assert probability.mean() == pytest.approx(rate, abs=1e-9)
    order = np.argsort(score, kind="stable")
    assert (np.diff(probability[order]) <= 0).all()
    odds = np.log(probability / (1 - probability))
    assert np.allclose(np.diff(odds[order]), -np.diff(score[order]) / 50)


@pytest.mark.parametrize("rate", [0, 1, -0.1, float("nan")])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(UsageError, match="default_rate"):
        probability_of_bad(np.array([500]), rate)


def test_a_draw_depends_on_the_party_alone(world: World) -> None:
    many = [f"Q{i}" for i in range(400)]
    world.batch("B", MOMENT, many)
    world.extract()
    world.make()
    share = np.mean([label for label, *_ in world.labels("simulated").values()])
    assert 0.1 < share < 0.2
    drawn = world.labels("simulated")
    world.con.execute("DELETE FROM kycc.labels")
    world.make()
    assert world.labels("simulated") == drawn


def test_simulation_needs_features(world: World) -> None:
    with pytest.raises(NotFoundError, match="feature_job"):
        world.make()


def test_the_training_table(world: World) -> None:
    world.batch("A", MOMENT - 30 * DAY, ["Z"])
    world.extract()
    world.extract("A", MOMENT - 30 * DAY)
    world.file(END)
    world.event("P2", MOMENT + DAY)
    world.make()
    world.make(batch_id="A", as_of=MOMENT - 30 * DAY)
    table = labelled(world.con, world.card)
    names = ["batch_id", "party_id", "as_of", "label", "label_source"]
    assert table.column_names == [*names, *(feature.name for feature in features.FEATURES), "score"]
    assert str(table.schema.field("label").type) == "int8"
    assert table.column("party_id").to_pylist() == ["P1", "P2", "P3"], (
        "batch A has simulated labels, and B observed ones"
    )
    assert table.column("label").to_pylist() == [0, 1, 0]
    assert set(table.column("label_source").to_pylist()) == {"observed"}
    only = labelled(world.con, world.card, batch_ids=["A"])
    assert only.column("label_source").to_pylist() == ["simulated"]
    assert labelled(world.con, world.card, batch_ids=[]).num_rows == 0
    assert labelled(world.con, world.card, observation_window_days=90).num_rows == 0


def test_early_events_and_simulated_labels_of_a_batch_with_outcomes_do_not_train(world: World) -> None:
    world.extract()
    world.make()
    world.file(MOMENT + 20 * DAY)
    world.event("P1", MOMENT + 10 * DAY)
    world.make()
    assert world.labels()["P1"] == (1, "write_off", False)
    assert labelled(world.con, world.card).num_rows == 0


def test_rows_are_ordered_by_moment_batch_and_party(world: World) -> None:
    for batch_id, moment in (("C", MOMENT), ("A", MOMENT), ("D", MOMENT - DAY)):
        world.batch(batch_id, moment, ["P2", "P10", "P1"])
        world.extract(batch_id, moment)
        world.make(batch_id=batch_id, as_of=moment)
    table = labelled(world.con, world.card)
    rows = list(zip(*(table.column(c).to_pylist() for c in ("as_of", "batch_id", "party_id")), strict=True))
    assert rows == sorted(rows)
    assert len(rows) == 9


def test_labels_without_their_features_are_reported(world: World) -> None:
    world.extract()
    world.make()
    world.con.execute("DELETE FROM kycc.features WHERE party_id = 'P1'")
    with pytest.raises(NotFoundError, match="1 of 3 labels"):
        labelled(world.con, world.card)
