"""Random cards, conditions and rows for hypothesis, and the slow obvious scorer everything else is compared with.

The reference is written from the definitions alone: one row at a time, Python's own comparisons and sort, conditions
run by ``eval`` (of text this module made) on numbers that know about missing values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st

from quayside.kycc.bands import DECISIONS, band_of
from quayside.kycc.scorecard import Characteristic, Rule, Scorecard

Row = dict[str, Any]


# ------------------------------------------------------------------------------------------------ reference


def is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def reference_points(item: Characteristic, value: Any) -> int:
    if is_missing(value):
        return item.missing
    if item.kind == "categorical":
        for values, points in zip(item.categories, item.points, strict=True):
            if value in values:
                return points
        return item.other
    for cut, points in zip(item.cuts, item.points, strict=False):
        if value < cut or (item.closed == "right" and value == cut):
            return points
    return item.points[-1]


def best_points(item: Characteristic) -> int:
    others = [item.other] if item.kind == "categorical" else []
    return max([item.missing, *item.points, *others])


class N:
    """A number that may be missing."""

    def __init__(self, value: Any) -> None:
        self.value = None if is_missing(value) else float(value)

    def _with(self, other: N, compute: Any) -> N:
        return N(None) if self.value is None or other.value is None else N(compute(self.value, other.value))

    def _is(self, other: N, compare: Any) -> bool:
        return self.value is not None and other.value is not None and compare(self.value, other.value)

    def __neg__(self) -> N:
        return N(None) if self.value is None else N(-self.value)

    def __add__(self, other: N) -> N:
        return self._with(other, lambda a, b: a + b)

    def __sub__(self, other: N) -> N:
        return self._with(other, lambda a, b: a - b)

    def __mul__(self, other: N) -> N:
        return self._with(other, lambda a, b: a * b)

    def __truediv__(self, other: N) -> N:
        return self._with(other, lambda a, b: None if b == 0 else a / b)

    def __lt__(self, other: N) -> bool:
        return self._is(other, lambda a, b: a < b)

    def __le__(self, other: N) -> bool:
        return self._is(other, lambda a, b: a <= b)

    def __gt__(self, other: N) -> bool:
        return self._is(other, lambda a, b: a > b)

    def __ge__(self, other: N) -> bool:
        return self._is(other, lambda a, b: a >= b)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, N) and self._is(other, lambda a, b: a == b)

    def __ne__(self, other: object) -> bool:
        return isinstance(other, N) and self._is(other, lambda a, b: a != b)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Expected:
    raw: int
    total: int
    band: str
    decision: str
    flags: list[str]
    rules: list[str]
    deltas: list[int]
    reasons: list[tuple[str, int]]


def reference_score(card: Scorecard, row: Row, wrapped: dict[str, str]) -> Expected:
    """Everything an evaluation of `row` gives; `wrapped` has each rule's condition with literals as ``N(…)``."""
    points = [(item, reference_points(item, row[item.feature])) for item in card.characteristics]
    raw = 300 + sum(earned for _, earned in points)
    losses = [(item.feature, best_points(item) - earned) for item, earned in points]
    losses = [loss for loss in losses if loss[1] > 0]
    losses.sort(key=lambda loss: -loss[1])  # stable: card order among equals
    score, flags, fired, deltas, review = raw, [], [], [], False
    for rule in sorted(card.rules, key=lambda rule: rule.priority):
        names = {name: N(row[name]) for name in rule.features}
        before = score
        if eval(wrapped[rule.id], {"__builtins__": {}, "N": N}, names):
            fired.append(rule.id)
            if rule.action == "adjust":
                score += rule.amount
            elif rule.action == "cap":
                score, review = min(score, rule.amount), True
            else:
                review = True
                if rule.flag not in flags:
                    flags.append(rule.flag)
        deltas.append(score - before)
    total = min(max(score, 300), 900)
    band = band_of(total)
    decision = DECISIONS[band]
    if review and decision == "approve":
        decision = "review"
    return Expected(raw, total, band, decision, flags, fired, deltas, losses[:4])


# ------------------------------------------------------------------------------------------------ strategies

#: Numbers whose products stay inside a double: PostgreSQL raises where arithmetic overflows or underflows.
moderate = st.one_of(
    st.integers(-1000, 1000).map(float),
    st.decimals(-1000, 1000, places=2).map(float),
    st.floats(-1e12, 1e12).filter(lambda x: x == 0 or abs(x) > 1e-12),
)
anything_finite = st.floats(allow_nan=False, allow_infinity=False)

awkward_text = st.text(
    st.one_of(
        st.sampled_from("'\"`\\;-%{}[]()$?: \t\n.aA0ßéж漢😀\u2028"),
        st.characters(exclude_categories=["Cs"], exclude_characters="\x00"),
    ),
    max_size=12,
)
points = st.integers(0, 600)


@st.composite
def characteristics(draw: st.DrawFn, feature: str, budget: int, numbers: st.SearchStrategy[float]) -> Any:
    earned = st.integers(0, budget)
    text = {"label": feature, "reason": "Lost.", "missing_reason": "Missing."}
    if draw(st.integers(0, 3)) == 0:
        values = draw(st.lists(awkward_text, min_size=1, max_size=6, unique=True))
        split = draw(st.integers(1, len(values)))
        bins = tuple(group for group in (tuple(values[:split]), tuple(values[split:])) if group)
        return Characteristic(
            feature=feature, kind="categorical", categories=bins, other=draw(earned), missing=draw(earned),
            points=tuple(draw(earned) for _ in bins), **text,
        )  # fmt: skip
    cuts = draw(st.lists(numbers.map(lambda x: x + 0.0), max_size=6, unique=True).map(sorted))
    return Characteristic(
        feature=feature, kind="numeric", cuts=tuple(cuts), closed=draw(st.sampled_from(["left", "right"])),
        points=tuple(draw(earned) for _ in range(len(cuts) + 1)), missing=draw(earned), **text,
    )  # fmt: skip


def _value(names: list[str]) -> st.SearchStrategy[tuple[str, str]]:
    """Pairs of an expression and the same with literals wrapped."""
    literal = st.one_of(
        st.integers(0, 50).map(str),
        st.decimals(0, 1000, places=3).map(str),
        st.floats(1e-6, 1e9).map(repr),
    ).map(lambda text: (text, f"N({text})"))
    leaves = st.one_of(st.sampled_from(names).map(lambda name: (name, name)), literal)

    def extend(inner: st.SearchStrategy[tuple[str, str]]) -> st.SearchStrategy[tuple[str, str]]:
        negative = inner.map(lambda x: (f"-({x[0]})", f"-({x[1]})"))
        binary = st.tuples(inner, st.sampled_from("+-*/"), inner).map(
            lambda x: (f"({x[0][0]} {x[1]} {x[2][0]})", f"({x[0][1]} {x[1]} {x[2][1]})")
        )
        return st.one_of(negative, binary)

    return st.recursive(leaves, extend, max_leaves=4)


def conditions(names: list[str]) -> st.SearchStrategy[tuple[str, str]]:
    """Pairs of a condition that names a feature and the same condition with literals wrapped."""
    value = _value(names)
    operators = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])
    single = st.tuples(value, operators, value).map(
        lambda x: (f"{x[0][0]} {x[1]} {x[2][0]}", f"{x[0][1]} {x[1]} {x[2][1]}")
    )
    chained = st.tuples(value, operators, value, operators, value).map(
        lambda x: (
            f"{x[0][0]} {x[1]} {x[2][0]} {x[3]} {x[4][0]}",
            f"{x[0][1]} {x[1]} {x[2][1]} {x[3]} {x[4][1]}",
        )
    )

    def extend(inner: st.SearchStrategy[tuple[str, str]]) -> st.SearchStrategy[tuple[str, str]]:
        negated = inner.map(lambda x: (f"not ({x[0]})", f"not ({x[1]})"))
        joined = st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(
            lambda x: (f"({x[0][0]} {x[1]} {x[2][0]})", f"({x[0][1]} {x[1]} {x[2][1]})")
        )
        return st.one_of(negated, joined)

    text = st.recursive(st.one_of(single, chained), extend, max_leaves=4)
    return text.filter(lambda x: len(x[0]) < 900 and any(name in x[0] for name in names))


@dataclass(frozen=True)
class Case:
    card: Scorecard
    rows: list[Row]
    wrapped: dict[str, str]  # rule id → condition the reference can run

    @property
    def columns(self) -> dict[str, list[Any]]:
        return {name: [row[name] for row in self.rows] for name in self.card.required_features}


@st.composite
def cases(
    draw: st.DrawFn,
    *,
    numbers: st.SearchStrategy[float] = moderate,
    max_characteristics: int = 6,
    rules: bool = True,
) -> Case:
    """A card and rows for it: values on cuts and one step beside them, infinities, missing and unseen values."""
    count = draw(st.integers(1, max_characteristics))
    plain = [f"f{position}" for position in range(count)]
    odd = draw(
        st.lists(
            awkward_text.filter(lambda x: x and x.isprintable() and len(x.encode()) <= 63),
            max_size=count,
            unique_by=str.lower,
        )
    )
    features = [*odd, *plain][:count]
    items = tuple(draw(characteristics(name, 600 // count, numbers)) for name in features)
    extra = ("extra",)
    readable = [item.feature for item in items if item.kind == "numeric" and item.feature in plain]
    made: list[Rule] = []
    wrapped: dict[str, str] = {}
    for position in range(draw(st.integers(0, 4)) if rules else 0):
        when, reference = draw(conditions([*readable, *extra]))
        action = draw(st.sampled_from(["cap", "adjust", "flag"]))
        amount = {
            "cap": st.integers(300, 900),
            "adjust": st.integers(-600, 600).filter(bool),
            "flag": st.just(0),
        }
        flag = draw(st.sampled_from(["alpha", "beta"])) if action == "flag" else ""
        rule = Rule(
            id=f"r{position}", priority=draw(st.integers(0, 2)), when=when, action=action, text="Fired.",
            amount=draw(amount[action]), flag=flag,
        )  # fmt: skip
        made.append(rule)
        wrapped[rule.id] = reference
    card = Scorecard("random", items, rules=tuple(made), extra_features=extra)
    values = {item.feature: _values_for(item, numbers) for item in items} | {
        "extra": _numbers_near([], numbers)
    }
    rows = draw(st.lists(st.fixed_dictionaries(values), min_size=1, max_size=12))
    return Case(card, rows, wrapped)


def _values_for(item: Characteristic, numbers: st.SearchStrategy[float]) -> st.SearchStrategy[Any]:
    if item.kind == "categorical":
        known = [value for values in item.categories for value in values]
        return st.one_of(st.none(), st.sampled_from(known), awkward_text)
    return _numbers_near(list(item.cuts), numbers)


def _numbers_near(cuts: list[float], numbers: st.SearchStrategy[float]) -> st.SearchStrategy[Any]:
    special = st.sampled_from([None, math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0])
    if not cuts:
        return st.one_of(special, numbers)
    near = [math.nextafter(cut, side) for cut in cuts if cut for side in (-math.inf, math.inf)]
    return st.one_of(special, numbers, st.sampled_from([*cuts, *near]))
