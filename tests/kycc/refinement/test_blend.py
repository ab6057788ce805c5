from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quayside.foundation.errors import InputError
from quayside.kycc.refinement.blend import blend, half_up, within_scale
from quayside.kycc.refinement.wording import NEW, Wording
from quayside.kycc.scorecard import Characteristic, Scorecard, load_scorecard, points

pytestmark = pytest.mark.unit

cut = st.integers(-4, 4).map(float) | st.floats(-5, 5)


@st.composite
def numeric(draw: st.DrawFn, rising: bool) -> Characteristic:
    cuts = sorted(draw(st.sets(cut, max_size=5)))
    values = sorted(draw(st.lists(st.integers(0, 100), min_size=len(cuts) + 1, max_size=len(cuts) + 1)))
    return Characteristic(
        "x", "X", "numeric", tuple(values if rising else values[::-1]), draw(st.integers(0, max(values))), "Lost.",
        "Missing.", cuts=tuple(cuts), closed=draw(st.sampled_from(["left", "right"])),
    )  # fmt: skip


@st.composite
def categorical(draw: st.DrawFn) -> Characteristic:
    names = draw(st.lists(st.sampled_from("abcdef"), unique=True, min_size=1))
    groups: list[list[str]] = []
    for name in names:
        groups.append([name]) if draw(st.booleans()) or not groups else groups[-1].append(name)
    return Characteristic(
        "x", "X", "categorical", tuple(draw(st.integers(0, 100)) for _ in groups), draw(st.integers(0, 100)),
        "Lost.", "Missing.", categories=tuple(map(tuple, groups)), other=draw(st.integers(0, 100)),
    )  # fmt: skip


def given_points(item: Characteristic, values: Any) -> np.ndarray:
    return points(Scorecard("c", (item,)), {"x": values})[:, 0]


factors = st.sampled_from([0.1, 0.25, 0.3, 0.5, 0.7, 0.999])


def expected(first: np.ndarray, second: np.ndarray, factor: float) -> list[int]:
    return [
        half_up((1 - factor) * a + factor * b) for a, b in zip(first.tolist(), second.tolist(), strict=True)
    ]


@given(
    st.booleans().flatmap(lambda up: st.tuples(numeric(up), numeric(up), st.just(up))), factors, st.lists(cut)
)
def test_points_of_any_value_are_the_weighted_sum(
    cards: tuple[Characteristic, Characteristic, bool], factor: float, more: list[float]
) -> None:
    first, second, rising = cards
    made = blend([(1 - factor, first), (factor, second)], Wording("x"))
    edges = [*first.cuts, *second.cuts]
    values = np.array(
        [
            *edges,
            *(math.nextafter(e, side) for e in edges for side in (-math.inf, math.inf)),
            *more,
            math.nan,
            -math.inf,
            math.inf,
        ]
    )
    found = given_points(made, values)
    assert found.tolist() == expected(given_points(first, values), given_points(second, values), factor)
    steps = np.diff(made.points)
    assert (steps >= 0).all() if rising else (steps <= 0).all()


@given(categorical(), categorical(), factors)
def test_points_of_any_category_are_the_weighted_sum(
    first: Characteristic, second: Characteristic, factor: float
) -> None:
    values = [*"abcdef", "never seen", None]
    made = blend([(1 - factor, first), (factor, second)], Wording("x"))
    assert given_points(made, values).tolist() == expected(
        given_points(first, values), given_points(second, values), factor
    )


def test_one_source_of_full_weight_is_itself_and_half_of_one_is_half() -> None:
    item = load_scorecard("v1").characteristic("company_age_years")
    assert blend([(1.0, item)], Wording(item.feature, item)) is item
    half = blend([(0.5, item)], Wording(item.feature, item))
    assert half.cuts == item.cuts
    assert half.points == tuple(half_up(p / 2) for p in item.points)
    assert half.bin_reasons == item.bin_reasons


def test_halves_are_rounded_up() -> None:
    assert [half_up(value) for value in (0.0, 0.49, 0.5, 1.5, 2.5, 2.51)] == [0, 0, 1, 2, 3, 3]


def test_a_feature_cannot_be_of_two_kinds() -> None:
    item = Characteristic("x", "X", "categorical", (1,), 0, "Lost.", "Missing.", categories=(("a",),))
    other = Characteristic("x", "X", "numeric", (1,), 0, "Lost.", "Missing.")
    with pytest.raises(InputError, match="categorical in the other"):
        blend([(0.5, item), (0.5, other)], Wording("x"))


@given(st.lists(numeric(True), min_size=1, max_size=12))
def test_the_best_points_fit_the_scale(items: list[Characteristic]) -> None:
    scaled = within_scale(items)
    total = sum(item.max_points for item in items)
    assert sum(item.max_points for item in scaled) == min(total, 600)
    for before, after in zip(items, scaled, strict=True):
        assert (np.diff(after.points) >= 0).all()
        assert all(a <= b for a, b in zip(after.points, before.points, strict=True))


def test_sentences_stay_where_they_hold() -> None:
    age = load_scorecard("v1").characteristic("company_age_years")
    wording = Wording(age.feature, age)
    finer = wording.numeric((0.75, 0.9, 1.0, 7.0), "left", (0, 1, 2, 3, 4), 0)
    # "younger than one year" was written for 0.75 to 1: it holds of both parts, and of no larger bin
    assert finer.code_reason(2) == finer.code_reason(3) == "Company is younger than one year."
    assert finer.code_reason(1) == "Company is younger than 0.75 years."
    flag = load_scorecard("v1").characteristic("kyc_verified")
    assert Wording(flag.feature, flag).numeric((1.0,), "left", (3, 9), 0).bin_labels == ("no", "yes")


def test_points_against_the_sentence_still_have_one() -> None:
    age = load_scorecard("v1").characteristic("company_age_years")
    falling = Wording(age.feature, age).numeric((5.0,), "left", (9, 3), 0)
    assert falling.code_reason(2) == "Company age, years: 5 or more."


@pytest.mark.parametrize("feature", [*NEW, "of_another_house{x}"])
@pytest.mark.parametrize("rising", [True, False])
def test_every_feature_has_texts_a_card_accepts(feature: str, rising: bool) -> None:
    values = (1, 2, 3) if rising else (3, 2, 1)
    item = Wording(feature).numeric((0.25, 0.5), "left", values, 1)
    for code in range(4):
        assert item.code_reason(code).endswith(".")
        assert "{" not in item.code_reason(code)
