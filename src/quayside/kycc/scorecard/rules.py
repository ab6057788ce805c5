"""Decision rules: what a fulfilled condition does to the running score, and the record of what it did.

Rules run in the order of their priority on the raw score; then the score is clamped to 300–900. Nothing is lost on the
way: for each row the rules that fired and the points each one moved are kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from quayside.foundation.errors import InputError
from quayside.kycc.bands import SCORE_MAX, SCORE_MIN
from quayside.kycc.scorecard.expressions import Condition, Floats, evaluate_condition, features_of, parse

MAX_ADJUSTMENT: Final = SCORE_MAX - SCORE_MIN

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")

Action = Literal["cap", "adjust", "flag"]


@dataclass(frozen=True)
class Rule:
    """One decision rule.

    Attributes:
        when: condition over features, see :mod:`quayside.kycc.scorecard.expressions`.
        action: ``cap`` lowers the score to `amount` where it is above it, ``adjust`` adds `amount` (which may be
            negative), ``flag`` leaves the score and marks the row with `flag`.
        text: the sentence a person reads where the rule fired.
    """

    id: str
    priority: int
    when: str
    action: Action
    text: str
    amount: int = 0
    flag: str = ""

    def __post_init__(self) -> None:
        for kind, name in (("id", self.id), *((("flag", self.flag),) if self.action == "flag" else ())):
            if not _NAME.fullmatch(name):
                raise InputError(
                    f"Rule {self.id!r}: {kind} {name!r} must be lower-case letters, digits and underscores."
                )
        if self.action == "cap" and not SCORE_MIN <= self.amount <= SCORE_MAX:
            raise InputError(
                f"Rule {self.id!r}: a cap lies between {SCORE_MIN} and {SCORE_MAX}, not at {self.amount}."
            )
        if self.action == "adjust" and not 0 < abs(self.amount) <= MAX_ADJUSTMENT:
            raise InputError(
                f"Rule {self.id!r}: an adjustment is a non-zero number of points up to ±{MAX_ADJUSTMENT}, "
                f"not {self.amount}."
            )
        if not self.features:
            raise InputError(f"Rule {self.id!r}: its condition {self.when!r} names no feature.")

    @cached_property
    def condition(self) -> Condition:
        try:
            return parse(self.when)
        except InputError as error:
            raise InputError(f"Rule {self.id!r}: {error}") from error

    @cached_property
    def features(self) -> tuple[str, ...]:
        """Features the condition reads, each once."""
        return tuple(dict.fromkeys(features_of(self.condition)))

    @property
    def asks_for_review(self) -> bool:
        """A row this rule fired for is not approved without a person."""
        return self.action in {"cap", "flag"}


@dataclass(frozen=True)
class RuleEffects:
    """What a list of rules did to n rows.

    Attributes:
        total: score after all rules, clamped to 300–900; int16 (n,).
        fired: bit r is set where rule r fired, in the order of application; uint32 (n,).
        deltas: points by which each rule moved the running score; int16 (n, rules).
        flags: bit f is set where flag f was raised; uint32 (n,).
        review: where a rule fired that asks for a person; bool (n,).
    """

    total: npt.NDArray[np.int16]
    fired: npt.NDArray[np.uint32]
    deltas: npt.NDArray[np.int16]
    flags: npt.NDArray[np.uint32]
    review: npt.NDArray[np.bool_]


def flag_names(rules: Sequence[Rule]) -> tuple[str, ...]:
    """Flags the rules can raise, each once, in order of application."""
    return tuple(dict.fromkeys(rule.flag for rule in rules if rule.action == "flag"))


def apply_rules(
    rules: Sequence[Rule], raw: npt.NDArray[np.int16], columns: Mapping[str, Floats]
) -> RuleEffects:
    """Apply `rules`, already in order of application, to raw scores.

    Args:
        raw: int16 (n,).
        columns: float64 (n,) per feature the rules read, NaN where missing.
    """
    running = raw.copy()
    fired, flags = np.zeros(len(raw), np.uint32), np.zeros(len(raw), np.uint32)
    review = np.zeros(len(raw), np.bool_)
    deltas = np.zeros((len(rules), len(raw)), np.int16)
    names = flag_names(rules)
    for position, rule in enumerate(rules):
        hit = evaluate_condition(rule.condition, columns)
        fired |= hit * np.uint32(1 << position)
        if rule.asks_for_review:
            review |= hit
        match rule.action:
            case "flag":
                flags |= hit * np.uint32(1 << names.index(rule.flag))
            case "adjust":
                np.multiply(hit, np.int16(rule.amount), out=deltas[position])
            case "cap":
                np.multiply(hit, np.minimum(0, np.int16(rule.amount) - running), out=deltas[position])
        running += deltas[position]
    np.clip(running, SCORE_MIN, SCORE_MAX, out=running)
    return RuleEffects(running, fired, deltas.T, flags, review)
