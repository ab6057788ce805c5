"""Check stored features against the ranges of the registry."""
# ruff: noqa: S608 - statements are made of constants of this package; values are bound

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from quayside.kycc.features.moment import Moment
from quayside.kycc.features.registry import FEATURES, FEATURES_WIDE

if TYPE_CHECKING:
    import duckdb

    from quayside.kycc.features.feature import Feature


@dataclass(frozen=True)
class Violation:
    """A feature with `rows` values outside its range (NaN, and NULL where the registry gives a value, are outside).
    `party_id` is the first of them."""

    feature: str
    rows: int
    party_id: str
    rule: str


def outside(feature: Feature) -> str:
    """SQL condition: this value may not be stored."""
    x = f'"{feature.name}"'
    wrong = [f"isnan({x})"] if feature.kind == "number" else []
    wrong += [f"{x} < {feature.low:g}"] if feature.low is not None else []
    wrong += (
        [f"{x} > {feature.high:g}"]
        if feature.high is not None
        else ([f"isinf({x})"] if feature.kind == "number" else [])
    )
    missing = "FALSE" if feature.no_data is None else "TRUE"
    return f"coalesce({' OR '.join(wrong)}, {missing})"


def rule(feature: Feature) -> str:
    """The range in words, as `Violation.rule` and the documentation show it."""
    low = "-∞" if feature.low is None else f"{feature.low:g}"
    high = "∞" if feature.high is None else f"{feature.high:g}"
    return f"{low} … {high}" + (", or NULL" if feature.no_data is None else "")


def validate(con: duckdb.DuckDBPyConnection, batch_id: str, as_of: datetime) -> list[Violation]:
    """Violations in `kycc.features` for this batch and moment; an empty list when all values are in range.

    Flags must be 0 or 1, which their range and whole-number type say together.
    """
    counts = ", ".join(
        f"count(*) FILTER (WHERE {outside(f)}), min(party_id) FILTER (WHERE {outside(f)})" for f in FEATURES
    )
    sql = f"SELECT {counts} FROM {FEATURES_WIDE.qualified} WHERE batch_id = $batch_id AND as_of = $as_of"
    found = con.execute(sql, Moment(batch_id, as_of).parameters(sql)).fetchall()[0]
    return [
        Violation(feature.name, rows, party_id, rule(feature))
        for feature, rows, party_id in zip(FEATURES, found[::2], found[1::2], strict=True)
        if rows
    ]
