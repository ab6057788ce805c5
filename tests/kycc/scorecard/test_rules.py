"""Conditions, what they refuse, and what rules do to a score."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quayside.foundation.errors import InputError
from quayside.kycc.scorecard import Rule
from quayside.kycc.scorecard.expressions import MAX_DEPTH, evaluate_condition, features_of, parse
from quayside.kycc.scorecard.rules import apply_rules, flag_names

from .cases import N, conditions

pytestmark = pytest.mark.unit

NAN, INF = math.nan, math.inf


def true_for(text: str, *values: float) -> list[bool]:
    return evaluate_condition(parse(text), {"x": np.array(values)}).tolist()


numbers = st.one_of(
    st.sampled_from([NAN, INF, -INF, 0.0, -0.0, 1.0]), st.integers(-50, 50).map(float), st.floats()
)


@settings(max_examples=200)
@given(conditions(["x", "y"]), st.lists(st.tuples(numbers, numbers), min_size=1, max_size=8))
def test_conditions_equal_python_row_by_row(
    condition: tuple[str, str], rows: list[tuple[float, float]]
) -> None:
    text, wrapped = condition
    columns = {"x": np.array([x for x, _ in rows]), "y": np.array([y for _, y in rows])}
    tree = parse(text)
    truth = np.broadcast_to(evaluate_condition(tree, columns), len(rows)).tolist()
    names: list[dict[str, Any]] = [{"x": N(x), "y": N(y)} for x, y in rows]
    assert truth == [bool(eval(wrapped, {"__builtins__": {}, "N": N}, row)) for row in names]
    assert set(features_of(tree)) <= {"x", "y"}


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        # a comparison with a missing value is false, whichever it is …
        ("x < 1", [0, NAN], [True, False]),
        ("x != 1", [0, NAN], [True, False]),
        ("x == x", [0, NAN], [True, False]),
        ("x != x", [0, NAN], [False, False]),
        # … and not, or work on the false it gave
        ("not x < 1", [0, NAN], [False, True]),
        ("x < 1 or x >= 1", [0, 2, NAN], [True, True, False]),
        # arithmetic
        ("x + 1 * 2 == 4", [2, 3], [True, False]),
        ("(x + 1) * 2 == 6", [2, 3], [True, False]),
        ("-x > 1", [-2, 2], [True, False]),
        ("x / 2 == 1.5", [3, 2], [True, False]),
        ("1 / x > 0", [0, 2], [False, True]),
        ("1 / x != 5", [0, -0.0, 2], [False, False, True]),
        ("x - x == 0", [1, INF], [True, False]),
        ("x * 0 == 0", [1, INF, NAN], [True, False, False]),
        ("x > 500000", [INF, -INF], [True, False]),
        # chains and precedence
        ("0 < x <= 5", [0, 1, 5, 6], [False, True, True, False]),
        ("x == 1 or x == 2 and x > 5", [1, 2, 6], [True, False, False]),
        ("not x == 1 and x < 3", [1, 2, 4], [False, True, False]),
        ("\n  x > 1\n", [2], [True]),
    ],
)
def test_meaning_of_conditions(text: str, values: list[float], expected: list[bool]) -> None:
    assert true_for(text, *values) == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("__import__('os').system('true')", "Call is not allowed"),
        ("x.__class__ == 1", "Attribute is not allowed"),
        ("x[0] == 1", "Subscript is not allowed"),
        ("(lambda: 1)() == 1", "Call is not allowed"),
        ("lambda: x", "Lambda is not allowed"),
        ("[x for x in (1, 2)] == 1", "ListComp is not allowed"),
        ("x == 'text'", "Constant is not allowed"),
        ("x == None", "Constant is not allowed"),
        ("x == 1j", "Constant is not allowed"),
        ("x == b'1'", "Constant is not allowed"),
        ("x == ...", "Constant is not allowed"),
        ("f'{x}' == 1", "JoinedStr is not allowed"),
        ("x == True", "write 1 or 0"),
        ("True", "Constant is not allowed where a comparison"),
        ("x", "'x' alone is no condition"),
        ("x and y > 1", "'x' alone is no condition"),
        ("not x", "'x' alone is no condition"),
        ("(x > 1) + 1 > 2", "Compare is not allowed where a number"),
        ("x + 1", "BinOp is not allowed where a comparison"),
        ("x ** 99999999 > 1", "BinOp is not allowed"),
        ("x % 2 == 0", "BinOp is not allowed"),
        ("x // 2 == 0", "BinOp is not allowed"),
        ("x << 2 == 0", "BinOp is not allowed"),
        ("~x == 0", "UnaryOp is not allowed"),
        ("+x == 0", "UnaryOp is not allowed"),
        ("x in (1, 2)", "Tuple is not allowed"),
        ("x in y", "'in' is not an allowed comparison"),
        ("x is y", "'is' is not an allowed comparison"),
        ("x if y > 1 else x", "IfExp is not allowed"),
        ("(x := 1) > 0", "NamedExpr is not allowed"),
        ("x > 1, y > 1", "Tuple is not allowed"),
        ("{x: 1}", "Dict is not allowed"),
        ("await x", "Await is not allowed"),
        ("x > 1e999", "too large"),
        (f"x > 1{'0' * 400}", "too large"),
        ("x = 1", "is not a valid expression"),
        ("x > 1; y > 1", "is not a valid expression"),
        ("x > 1 AND y > 1", "is not a valid expression"),
        ("import os", "is not a valid expression"),
        ("x > ", "is not a valid expression"),
        ("", "is not a valid expression"),
        ("x > 1\x00", "is not a valid expression"),
        ("x > 1 # \nimport os", "is not a valid expression"),
        ("(" * 250 + "x > 1" + ")" * 250, "is not a valid expression"),
        ("-" * 200 + "x > 1", f"nested more than {MAX_DEPTH} deep"),
        ("not " * 200 + "x > 1", f"nested more than {MAX_DEPTH} deep"),
        ("x" + " + 1" * 40 + " > 1", f"nested more than {MAX_DEPTH} deep"),
        ("x > 1 or " * 200 + "x > 1", "may have 1000 characters at most, this one has 1805"),
        ("ｘ > 1", "ASCII characters only"),
    ],
)
def test_everything_else_is_refused_with_one_sentence(text: str, complaint: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(text)
    message = str(caught.value)
    assert complaint in message
    assert "\n" not in message
    assert len(message) < 250


def test_nesting_up_to_the_limit_is_read() -> None:
    assert true_for("(" * 100 + "x > 1" + ")" * 100, 2) == [True]
    assert true_for("not " * (MAX_DEPTH - 2) + "x > 1", 2) == [True]
    assert true_for("x" + " + 1" * (MAX_DEPTH - 2) + f" > {MAX_DEPTH - 2}", 1, 0) == [True, False]


def test_rules_run_by_priority_then_as_listed_and_leave_a_trace() -> None:
    rules = (
        Rule("cap", 1, "x > 0", "cap", "t", amount=500),
        Rule("bonus", 2, "x > 0", "adjust", "t", amount=25),
        Rule("mark", 3, "x > 1", "flag", "t", flag="big"),
        Rule("again", 3, "x > 2", "flag", "t", flag="big"),
        Rule("other", 3, "x > 2", "flag", "t", flag="huge"),
    )
    raw = np.array([700, 480, 700], np.int16)
    effects = apply_rules(rules, raw, {"x": np.array([1.0, 3.0, 0.0])})
    assert effects.total.tolist() == [525, 505, 700]
    assert effects.deltas.tolist() == [[-200, 25, 0, 0, 0], [0, 25, 0, 0, 0], [0, 0, 0, 0, 0]]
    assert effects.fired.tolist() == [0b00011, 0b11111, 0]
    assert flag_names(rules) == ("big", "huge")
    assert effects.flags.tolist() == [0, 0b11, 0]
    assert effects.review.tolist() == [True, True, False]
    assert raw.tolist() == [700, 480, 700]
    reverse = apply_rules((rules[1], rules[0]), raw, {"x": np.array([1.0, 3.0, 0.0])})
    assert reverse.total.tolist() == [500, 500, 700]


def test_the_clamp_comes_last() -> None:
    rules = (
        Rule("down", 1, "x > 0", "adjust", "t", amount=-600),
        Rule("up", 2, "x > 0", "adjust", "t", amount=500),
    )
    effects = apply_rules(rules, np.array([400, 900], np.int16), {"x": np.array([1.0, 1.0])})
    assert effects.total.tolist() == [300, 800]
    only_up = apply_rules(rules[1:], np.array([800], np.int16), {"x": np.array([1.0])})
    assert only_up.total.tolist() == [900]


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"id": "Bad Name"}, "id 'Bad Name' must be lower-case"),
        ({"action": "flag", "flag": "a,b"}, "flag 'a,b' must be lower-case"),
        ({"action": "flag"}, "flag '' must be lower-case"),
        ({"amount": 299}, "a cap lies between 300 and 900, not at 299"),
        ({"amount": 901}, "a cap lies between 300 and 900, not at 901"),
        ({"action": "adjust", "amount": 0}, "non-zero number of points up to ±600, not 0"),
        ({"action": "adjust", "amount": -601}, "non-zero number of points up to ±600, not -601"),
        ({"when": "1 < 2"}, "names no feature"),
        ({"when": "x <"}, "Rule 'r': Rule condition 'x <' is not a valid expression"),
    ],
)
def test_rules_that_mean_nothing_are_refused(fields: dict[str, Any], complaint: str) -> None:
    valid: dict[str, Any] = {
        "id": "r", "priority": 1, "when": "x > 1", "action": "cap", "text": "t", "amount": 500,
    }  # fmt: skip
    Rule(**valid)
    with pytest.raises(InputError) as caught:
        Rule(**(valid | fields))
    assert complaint in str(caught.value)
