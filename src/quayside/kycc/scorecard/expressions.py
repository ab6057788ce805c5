"""Conditions of decision rules: small expressions over features, parsed into a tree of our own and never executed as code.

A condition is written as one would say it: ``kyc_verified == 0 and company_age_years < 1``. Allowed are numbers,
feature names, ``+ - * /``, comparisons, ``and``, ``or``, ``not`` and parentheses. Python's own parser reads the text
because its grammar for these is the one people expect; every node it returns is translated to a node below or
refused, so nothing else can reach the evaluation.

Missing values: a null or NaN is missing. Arithmetic with a missing operand is missing, and so are a division by zero and
any result that is not a number. A comparison with a missing side is false (``!=`` too); ``not`` and ``or`` then work on
plain true and false.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from quayside.foundation.errors import InputError

MAX_LENGTH: Final = 1000
MAX_DEPTH: Final = 32

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

ArithmeticOperator = Literal["+", "-", "*", "/"]
ComparisonOperator = Literal["<", "<=", ">", ">=", "==", "!="]


@dataclass(frozen=True)
class Number:
    """A finite constant."""

    value: float


@dataclass(frozen=True)
class Feature:
    """The value of a feature, missing where it is null or NaN."""

    name: str


@dataclass(frozen=True)
class Negative:
    operand: Value


@dataclass(frozen=True)
class Arithmetic:
    operator: ArithmeticOperator
    left: Value
    right: Value


@dataclass(frozen=True)
class Comparison:
    operator: ComparisonOperator
    left: Value
    right: Value


@dataclass(frozen=True)
class Not:
    operand: Condition


@dataclass(frozen=True)
class AllOf:
    operands: tuple[Condition, ...]


@dataclass(frozen=True)
class AnyOf:
    operands: tuple[Condition, ...]


Value = Number | Feature | Negative | Arithmetic
Condition = Comparison | Not | AllOf | AnyOf

_ARITHMETIC: Final[dict[type[ast.operator], ArithmeticOperator]] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
}
_COMPARISONS: Final[dict[type[ast.cmpop], ComparisonOperator]] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}
_COMPARE: Final[dict[ComparisonOperator, Callable[[Floats, Floats], Bools]]] = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "==": np.equal,
    "!=": np.not_equal,
}


def parse(text: str) -> Condition:
    """Condition written in `text`.

    Raises:
        InputError: the text is too long or too deep, is no expression, or holds anything beyond the allowed words.
    """
    if len(text) > MAX_LENGTH:
        raise InputError(
            f"A rule condition may have {MAX_LENGTH} characters at most, this one has {len(text)}."
        )
    if not text.isascii():  # Python would fold look-alike letters into other names
        raise InputError(f"Rule condition {text!r} may contain ASCII characters only.")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise InputError(f"Rule condition {_short(text)!r} is not a valid expression.") from error
    return _condition(tree.body, text, 1)


def features_of(node: Condition | Value) -> Iterator[str]:
    """Names of the features below `node`, in the order written, repeats included."""
    match node:
        case Feature(name):
            yield name
        case Number():
            pass
        case Negative(operand) | Not(operand):
            yield from features_of(operand)
        case Arithmetic(_, left, right) | Comparison(_, left, right):
            yield from features_of(left)
            yield from features_of(right)
        case AllOf(operands) | AnyOf(operands):
            for operand in operands:
                yield from features_of(operand)


def evaluate_condition(condition: Condition, columns: Mapping[str, Floats]) -> Bools:
    """Truth of `condition` per row.

    Args:
        columns: float64 arrays of one length, NaN where missing; holds every feature the condition names.

    Returns:
        Boolean array of that length, or of shape () when the condition names no feature.
    """
    match condition:
        case Comparison(operator, left, right):
            a, b = _numbers(left, columns), _numbers(right, columns)
            truth = _COMPARE[operator](a, b)
            # IEEE 754 makes every comparison with NaN false except this one.
            return truth & ~(np.isnan(a) | np.isnan(b)) if operator == "!=" else truth
        case Not(operand):
            return ~evaluate_condition(operand, columns)
        case AllOf(operands):
            return np.logical_and.reduce(
                np.broadcast_arrays(*(evaluate_condition(operand, columns) for operand in operands))
            )
        case AnyOf(operands):
            return np.logical_or.reduce(
                np.broadcast_arrays(*(evaluate_condition(operand, columns) for operand in operands))
            )


def _numbers(value: Value, columns: Mapping[str, Floats]) -> Floats:
    match value:
        case Number(constant):
            return np.asarray(constant, dtype=np.float64)
        case Feature(name):
            return columns[name]
        case Negative(operand):
            return -_numbers(operand, columns)
        case Arithmetic(operator, left, right):
            a, b = _numbers(left, columns), _numbers(right, columns)
            with np.errstate(all="ignore"):
                match operator:
                    case "+":
                        return a + b
                    case "-":
                        return a - b
                    case "*":
                        return a * b
                    case "/":
                        return a / np.where(b == 0, np.nan, b)


def _condition(node: ast.expr, text: str, depth: int) -> Condition:
    _check_depth(depth, text)
    match node:
        case ast.BoolOp(op=op, values=values):
            operands = tuple(_condition(value, text, depth + 1) for value in values)
            return AllOf(operands) if isinstance(op, ast.And) else AnyOf(operands)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return Not(_condition(operand, text, depth + 1))
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            sides = [_value(side, text, depth + 1) for side in (left, *comparators)]
            pairs: list[Condition] = []
            for op, a, b in zip(ops, sides, sides[1:], strict=False):
                operator = _COMPARISONS.get(type(op))
                if operator is None:
                    raise _refused(text, f"'{type(op).__name__.lower()}' is not an allowed comparison")
                pairs.append(Comparison(operator, a, b))
            return pairs[0] if len(pairs) == 1 else AllOf(tuple(pairs))
        case ast.Name(id=name):
            raise _refused(text, f"'{name}' alone is no condition, compare it with a number")
        case _:
            raise _refused(
                text, f"{type(node).__name__} is not allowed where a comparison, and, or, not is expected"
            )


def _value(node: ast.expr, text: str, depth: int) -> Value:
    _check_depth(depth, text)
    match node:
        case ast.Constant(value=bool()):
            raise _refused(text, "True and False are not allowed, write 1 or 0")
        case ast.Constant(value=int() | float() as number):
            try:
                constant = float(number)
            except OverflowError:
                constant = math.inf
            if not math.isfinite(constant):
                raise _refused(text, "a number in it is too large")
            return Number(constant)
        case ast.Name(id=name):
            return Feature(name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return Negative(_value(operand, text, depth + 1))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            return Arithmetic(
                _ARITHMETIC[type(op)], _value(left, text, depth + 1), _value(right, text, depth + 1)
            )
        case _:
            raise _refused(
                text, f"{type(node).__name__} is not allowed where a number or a feature is expected"
            )


def _check_depth(depth: int, text: str) -> None:
    if depth > MAX_DEPTH:
        raise _refused(text, f"it is nested more than {MAX_DEPTH} deep")


def _refused(text: str, reason: str) -> InputError:
    return InputError(f"Rule condition {_short(text)!r} is refused: {reason}.")


def _short(text: str, length: int = 80) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
