"""Scorecards as plain data: dicts, lists, texts and numbers ↔ :class:`Scorecard`.

Reading is strict: an unknown field or a value of the wrong type is an error with one sentence that names the place.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from quayside.foundation.errors import InputError
from quayside.kycc.scorecard.card import Characteristic, Scaling, Scorecard
from quayside.kycc.scorecard.rules import Rule

T = TypeVar("T")


def card_from_dict(data: Mapping[str, Any]) -> Scorecard:
    """See :meth:`Scorecard.from_dict`."""
    fields = _Fields(data, "Scorecard")
    version = fields.take("version", _text)
    fields.where = f"Scorecard {version}"
    # Two words for readers of the document. They have one meaning today and must not be ignored when they say another.
    for key, only in (("direction", "higher_is_safer"), ("bands", "default")):
        if fields.take(key, _text, only) != only:
            raise InputError(f"{fields.where}: {key} can only be {only!r}.")
    scaling = fields.take("scaling", _optional(_mapping), None)
    return fields.build(
        Scorecard,
        version=version,
        description=fields.take("description", _text, ""),
        base=fields.take("base", _whole),
        scaling=None if scaling is None else _scaling(scaling, f"{fields.where}: scaling"),
        characteristics=tuple(
            _characteristic(item, f"{fields.where}: characteristic {position}")
            for position, item in enumerate(fields.take("characteristics", _list_of(_mapping)), start=1)
        ),
        extra_features=tuple(fields.take("extra_features", _list_of(_text), [])),
        rules=tuple(
            _rule(item, f"{fields.where}: rule {position}")
            for position, item in enumerate(fields.take("rules", _list_of(_mapping), []), start=1)
        ),
    )


def _scaling(data: Mapping[str, Any], where: str) -> Scaling:
    fields = _Fields(data, where)
    names = ("base_score", "base_odds", "points_to_double_odds")
    return fields.build(Scaling, **{name: fields.take(name, _number) for name in names})


def _characteristic(data: Mapping[str, Any], where: str) -> Characteristic:
    fields = _Fields(data, where)
    feature = fields.take("feature", _text)
    kind = fields.take("kind", _one_of("numeric", "categorical"))
    missing = _Fields(fields.take("missing", _mapping), f"{where} ({feature}): missing")
    parts: dict[str, Any]
    if kind == "numeric":
        parts = {
            "cuts": tuple(fields.take("cuts", _list_of(_number))),
            "closed": fields.take("closed", _one_of("left", "right")),
            "points": tuple(fields.take("points", _list_of(_whole))),
        }
    else:
        bins = [
            _Fields(item, f"{where} ({feature}): bin {position}")
            for position, item in enumerate(fields.take("bins", _list_of(_mapping)), start=1)
        ]
        parts = {
            "categories": tuple(tuple(item.take("values", _list_of(_text))) for item in bins),
            "points": tuple(item.take("points", _whole) for item in bins),
            "other": fields.take("other", _whole),
        }
        for item in bins:
            item.done()
    result = {
        "missing": missing.take("points", _whole),
        "missing_reason": missing.take("reason", _text),
        "label": fields.take("label", _text, feature),
        "reason": fields.take("reason", _text),
        "bin_labels": tuple(fields.take("bin_labels", _list_of(_text), [])),
        "bin_reasons": tuple(sorted(fields.take("bin_reasons", _reasons_by_bin, {}).items())),
    }
    missing.done()
    return fields.build(Characteristic, feature=feature, kind=kind, **parts, **result)


def _rule(data: Mapping[str, Any], where: str) -> Rule:
    fields = _Fields(data, where)
    then = _Fields(fields.take("then", _mapping), f"{where}: then")
    action = then.only_key("cap", "adjust", "flag")
    effect = {"flag": then.take("flag", _text)} if action == "flag" else {"amount": then.take(action, _whole)}
    return fields.build(
        Rule,
        id=fields.take("id", _text),
        priority=fields.take("priority", _whole),
        when=fields.take("when", _text),
        action=action,
        text=fields.take("text", _text),
        **effect,
    )


_REQUIRED: Any = object()


class _Fields:
    """Takes fields from a mapping one by one, so that what is left over at the end is what nobody knows."""

    def __init__(self, data: Mapping[str, Any], where: str) -> None:
        self._data = dict(data)
        self.where = where

    def take(self, key: str, check: Callable[[Any], T], default: Any = _REQUIRED) -> T:
        if key not in self._data:
            if default is _REQUIRED:
                raise InputError(f"{self.where}: {key} is missing.")
            return default
        value = self._data.pop(key)
        try:
            return check(value)
        except TypeError as error:
            shown = repr(value)
            shown = shown if len(shown) <= 60 else shown[:59] + "…"
            raise InputError(f"{self.where}: {key} must be {error}, not {shown}.") from error

    def only_key(self, *allowed: str) -> Any:
        if len(self._data) != 1 or next(iter(self._data)) not in allowed:
            raise InputError(f"{self.where} must hold exactly one of {', '.join(allowed)}.")
        return next(iter(self._data))

    def done(self) -> None:
        if self._data:
            raise InputError(f"{self.where}: {next(iter(self._data))!r} is not a known field.")

    def build(self, make: Callable[..., T], **values: Any) -> T:
        self.done()
        return make(**values)


# Checks return the value in its one stored type, or raise TypeError with what was expected.


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("text")
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > 1_000_000:
        raise TypeError("a whole number within reason")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("a finite number")
    if not abs(value) <= sys.float_info.max:  # NaN, infinite, or an integer no float can hold
        raise TypeError("a finite number")
    return float(value) + 0.0  # -0.0 becomes 0.0: equal cards have equal hashes


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise TypeError("a mapping")
    return value


def _optional(check: Callable[[Any], T]) -> Callable[[Any], T | None]:
    return lambda value: None if value is None else check(value)


def _list_of(check: Callable[[Any], T]) -> Callable[[Any], list[T]]:
    def check_list(value: Any) -> list[T]:
        if not isinstance(value, list | tuple):
            raise TypeError("a list")
        try:
            return [check(item) for item in value]
        except TypeError as error:
            raise TypeError(f"a list in which each item is {error}") from error

    return check_list


def _one_of(*allowed: str) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if value not in allowed:
            raise TypeError(" or ".join(allowed))
        return value

    return check


def _reasons_by_bin(value: Any) -> dict[int, str]:
    """Bins are numbered from 0. JSON has text keys only, so digits are accepted as well."""
    if not isinstance(value, Mapping):
        raise TypeError("a mapping from bin number to sentence")
    reasons: dict[int, str] = {}
    for key, text in value.items():
        index = int(key) if isinstance(key, str) and key.isdecimal() and len(key) < 4 else key
        if (
            isinstance(index, bool)
            or not isinstance(index, int)
            or not isinstance(text, str)
            or index in reasons
        ):
            raise TypeError("a mapping from bin number to sentence")
        reasons[index] = text
    return reasons


def card_to_dict(card: Scorecard) -> dict[str, Any]:
    """See :meth:`Scorecard.to_dict`. Optional fields that are empty are left out."""
    document: dict[str, Any] = {"version": card.version}
    if card.description:
        document["description"] = card.description
    document |= {"direction": "higher_is_safer", "base": card.base, "bands": "default"}
    if card.scaling:
        document["scaling"] = {
            "base_score": card.scaling.base_score,
            "base_odds": card.scaling.base_odds,
            "points_to_double_odds": card.scaling.points_to_double_odds,
        }
    document["characteristics"] = [_characteristic_to_dict(item) for item in card.characteristics]
    if card.extra_features:
        document["extra_features"] = list(card.extra_features)
    if card.rules:
        document["rules"] = [_rule_to_dict(rule) for rule in card.rules]
    return document


def _characteristic_to_dict(item: Characteristic) -> dict[str, Any]:
    document: dict[str, Any] = {"feature": item.feature, "label": item.label, "kind": item.kind}
    if item.kind == "numeric":
        document |= {"closed": item.closed, "cuts": list(item.cuts), "points": list(item.points)}
    else:
        document["bins"] = [
            {"values": list(values), "points": points}
            for values, points in zip(item.categories, item.points, strict=True)
        ]
        document["other"] = item.other
    document |= {
        "missing": {"points": item.missing, "reason": item.missing_reason},
        "reason": item.reason,
    }
    if item.bin_labels:
        document["bin_labels"] = list(item.bin_labels)
    if item.bin_reasons:
        document["bin_reasons"] = {str(index): text for index, text in item.bin_reasons}
    return document


def _rule_to_dict(rule: Rule) -> dict[str, Any]:
    effect = {"flag": rule.flag} if rule.action == "flag" else {rule.action: rule.amount}
    return {"id": rule.id, "priority": rule.priority, "when": rule.when, "then": effect, "text": rule.text}
