"""A scorecard as data: characteristics with bins and points, decision rules, and the texts people read.

``score = 300 + Σ points``, higher is safer. A card that loads is complete and consistent: cuts rise, points are whole
and not negative, the best row reaches 900 at most, and every rule parses and reads features the card knows. Cards are
immutable; a changed card is another card with another version and another content hash.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

from quayside.foundation.errors import InputError
from quayside.kycc.bands import SCORE_MAX, SCORE_MIN
from quayside.kycc.scorecard.rules import Rule, flag_names
from quayside.kycc.scorecard.texts import REASON_FIELDS, fill, interval_label, unknown_fields

#: int8 reason indexes and one-byte bin codes set these; a readable card stays far below them.
MAX_CHARACTERISTICS: Final = 127
MAX_BINS: Final = 250
MAX_RULES: Final = 32

_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

Kind = Literal["numeric", "categorical"]
Closed = Literal["left", "right"]


@dataclass(frozen=True)
class Characteristic:
    """One feature's bins and points.

    Bin codes are 0 for a missing value, 1 … k for the k bins and, for a categorical characteristic, k + 1 for a value no
    bin names.

    Attributes:
        cuts: k − 1 rising edges of a numeric characteristic; ``closed`` "left" makes bins [a, b), "right" (a, b].
        categories: the values of each bin of a categorical characteristic.
        points: points of the k bins.
        missing: points of a null or NaN.
        other: points of a category no bin names.
        reason: the sentence given when points are lost; ``{lower}`` and ``{upper}`` stand for the bin's edges.
        missing_reason: the sentence given for a missing value.
        bin_labels: how each bin is called; derived from the edges or values where empty.
        bin_reasons: sentences for single bins in place of `reason`, as (bin index from 0, sentence).
    """

    feature: str
    label: str
    kind: Kind
    points: tuple[int, ...]
    missing: int
    reason: str
    missing_reason: str
    cuts: tuple[float, ...] = ()
    closed: Closed = "left"
    categories: tuple[tuple[str, ...], ...] = ()
    other: int = 0
    bin_labels: tuple[str, ...] = ()
    bin_reasons: tuple[tuple[int, str], ...] = ()

    def __post_init__(self) -> None:
        _check_name(self.feature, f"feature {self.feature!r}")
        if self.kind == "numeric":
            self._check_numeric()
        else:
            self._check_categorical()
        for points in self.points_by_code:
            if not 0 <= points <= SCORE_MAX - SCORE_MIN:
                raise self._error(f"points lie between 0 and {SCORE_MAX - SCORE_MIN}, not at {points}")
        if len(self.points) > MAX_BINS:
            raise self._error(f"it has {len(self.points)} bins, {MAX_BINS} are the most")
        if self.bin_labels and len(self.bin_labels) != len(self.points):
            raise self._error(f"it has {len(self.points)} bins but {len(self.bin_labels)} bin_labels")
        self._check_reasons()

    @cached_property
    def points_by_code(self) -> tuple[int, ...]:
        """Points of each bin code."""
        tail = (self.other,) if self.kind == "categorical" else ()
        return (self.missing, *self.points, *tail)

    @cached_property
    def max_points(self) -> int:
        return max(self.points_by_code)

    @cached_property
    def min_points(self) -> int:
        return min(self.points_by_code)

    def edges(self, index: int) -> tuple[float, float]:
        """Lower and upper edge of numeric bin `index` (from 0), infinite at the ends."""
        edges = (-math.inf, *self.cuts, math.inf)
        return edges[index], edges[index + 1]

    def code_label(self, code: int) -> str:
        """What a bin is called."""
        if code == 0:
            return "missing"
        if code > len(self.points):
            return "other"
        if self.bin_labels:
            return self.bin_labels[code - 1]
        if self.kind == "categorical":
            return ", ".join(self.categories[code - 1])
        return interval_label(*self.edges(code - 1), closed=self.closed)

    def code_reason(self, code: int) -> str:
        """The sentence that explains lost points of a bin."""
        if code == 0:
            return self.missing_reason
        override = dict(self.bin_reasons).get(code - 1)
        if override is not None:
            return override
        if self.kind == "categorical":
            return self.reason
        return fill(self.reason, *self.edges(code - 1))

    def _check_numeric(self) -> None:
        if len(self.points) != len(self.cuts) + 1:
            raise self._error(
                f"{len(self.cuts)} cuts make {len(self.cuts) + 1} bins, but points names {len(self.points)}"
            )
        for cut in self.cuts:
            if not math.isfinite(cut):
                raise self._error(f"cut {cut} is not a finite number")
        for lower, upper in zip(self.cuts, self.cuts[1:], strict=False):
            if lower >= upper:
                raise self._error(f"cuts must rise, but {lower:g} is followed by {upper:g}")

    def _check_categorical(self) -> None:
        if len(self.points) != len(self.categories) or not self.points:
            raise self._error("it needs at least one bin, and points for each of its categories")
        seen: set[str] = set()
        for values in self.categories:
            if not values:
                raise self._error("a bin names no category")
            for value in values:
                _check_text(value, f"Characteristic {self.feature!r}: category {value!r}")
                if value in seen:
                    raise self._error(f"category {value!r} is in two places")
                seen.add(value)

    def _check_reasons(self) -> None:
        overrides = dict(self.bin_reasons)
        if len(overrides) != len(self.bin_reasons) or any(
            not 0 <= index < len(self.points) for index in overrides
        ):
            raise self._error(f"bin_reasons are keyed by bin, 0 to {len(self.points) - 1}, each once")
        allowed = REASON_FIELDS if self.kind == "numeric" else frozenset()
        plain = (self.missing_reason, *overrides.values())
        for text, fields in ((self.reason, allowed), *((text, frozenset()) for text in plain)):
            if not text.strip():
                raise self._error("a reason is empty")
            if unknown := unknown_fields(text, fields):
                raise self._error(f"reason {text!r} uses {unknown[0]!r}, which has no meaning there")
        if self.kind == "categorical":
            return
        for index, points in enumerate(self.points):
            if points == self.max_points or index in overrides:
                continue
            for field, edge in zip(("{lower}", "{upper}"), self.edges(index), strict=True):
                if field in self.reason and math.isinf(edge):
                    raise self._error(f"bin {index} has no {field} edge, give it a sentence in bin_reasons")

    def _error(self, what: str) -> InputError:
        return InputError(f"Characteristic {self.feature!r}: {what}.")


@dataclass(frozen=True)
class Scaling:
    """How points relate to odds: `base_score` means `base_odds` (good : bad), and they double every so many points."""

    base_score: float
    base_odds: float
    points_to_double_odds: float

    def __post_init__(self) -> None:
        if not all(
            math.isfinite(x) and x > 0 for x in (self.base_score, self.base_odds, self.points_to_double_odds)
        ):
            raise InputError("Scaling: base_score, base_odds and points_to_double_odds are positive numbers.")


@dataclass(frozen=True)
class Scorecard:
    """A complete scorecard. Its characteristics' order breaks ties between reasons."""

    version: str
    characteristics: tuple[Characteristic, ...]
    rules: tuple[Rule, ...] = ()
    #: features rules read that are no characteristic
    extra_features: tuple[str, ...] = ()
    description: str = ""
    scaling: Scaling | None = None
    base: int = SCORE_MIN

    def __post_init__(self) -> None:
        if not _VERSION.fullmatch(self.version):
            raise InputError(
                f"Scorecard version {self.version!r} must be letters, digits, dots, dashes and underscores, 64 at most."
            )
        if self.base != SCORE_MIN:
            raise self._error(f"base is {SCORE_MIN} by definition, not {self.base}")
        if not 1 <= len(self.characteristics) <= MAX_CHARACTERISTICS:
            raise self._error(f"it needs 1 to {MAX_CHARACTERISTICS} characteristics")
        if len(self.rules) > MAX_RULES:
            raise self._error(f"it has {len(self.rules)} rules, {MAX_RULES} are the most")
        for name in self.extra_features:
            _check_name(name, f"extra feature {name!r}")
        _check_unique(self.required_features, "feature", self.version)
        _check_unique([rule.id for rule in self.rules], "rule", self.version)
        best = self.base + sum(c.max_points for c in self.characteristics)
        if best > SCORE_MAX:
            raise self._error(f"its best points add up to {best}, which is more than {SCORE_MAX}")
        numeric = {c.feature for c in self.characteristics if c.kind == "numeric"} | set(self.extra_features)
        categorical = {c.feature for c in self.characteristics} - numeric
        for rule in self.rules:
            for name in rule.features:
                if name in categorical:
                    raise self._error(f"rule {rule.id!r} computes with the categorical feature {name!r}")
                if name not in numeric:
                    raise self._error(
                        f"rule {rule.id!r} reads {name!r}, which is neither a characteristic nor in extra_features"
                    )

    @cached_property
    def ordered_rules(self) -> tuple[Rule, ...]:
        """Rules in order of application: by priority, then as listed."""
        return tuple(sorted(self.rules, key=lambda rule: rule.priority))

    @cached_property
    def flags(self) -> tuple[str, ...]:
        """Flags its rules can raise, in order of application."""
        return flag_names(self.ordered_rules)

    @property
    def features(self) -> tuple[str, ...]:
        """Features of the characteristics, in card order."""
        return tuple(characteristic.feature for characteristic in self.characteristics)

    @property
    def required_features(self) -> tuple[str, ...]:
        """Every feature an evaluation reads."""
        return (*self.features, *self.extra_features)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of everything in the card, hexadecimal: equal cards, and only they, have equal hashes."""
        text = json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def characteristic(self, feature: str) -> Characteristic:
        """Raises: KeyError: the card has no such characteristic."""
        for characteristic in self.characteristics:
            if characteristic.feature == feature:
                return characteristic
        raise KeyError(feature)

    def to_dict(self) -> dict[str, Any]:
        """The card as plain data; ``Scorecard.from_dict`` and JSON give back an equal card."""
        from quayside.kycc.scorecard.document import card_to_dict

        return card_to_dict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Scorecard:
        """Card described by plain data.

        Raises:
            InputError: a field is missing, unknown, of the wrong type or breaks a rule; one sentence says which.
        """
        from quayside.kycc.scorecard.document import card_from_dict

        return card_from_dict(data)

    def _error(self, what: str) -> InputError:
        return InputError(f"Scorecard {self.version}: {what}.")


def _check_name(name: str, where: str) -> None:
    """A feature becomes a column in several databases; the strictest of them, PostgreSQL, allows 63 bytes."""
    _check_text(name, where)
    if not name or len(name.encode()) > 63 or not name.isprintable():
        raise InputError(f"Scorecard: {where} must have 1 to 63 bytes, all printable.")


def _check_text(text: str, where: str) -> None:
    """NUL and lone surrogates cannot be stored or compared in every database."""
    if "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise InputError(f"{where} contains a character that databases cannot hold.")


def _check_unique(names: list[str] | tuple[str, ...], what: str, version: str) -> None:
    # without regard to case, because DuckDB and SQLite find columns that way
    seen: set[str] = set()
    for name in names:
        if name.lower() in seen:
            raise InputError(f"Scorecard {version}: {what} {name!r} appears twice.")
        seen.add(name.lower())
