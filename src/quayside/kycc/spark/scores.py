"""Scores on Spark, by the scorecard's SQL export: points, rules and the clamp are its expressions, unchanged.

What the export does not say (band, decision, flags and reasons) is put together here from the same points and
conditions, as the engine does it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from quayside.foundation.errors import InputError
from quayside.kycc.bands import BANDS, DECISIONS
from quayside.kycc.scorecard.engine import REASONS
from quayside.kycc.scorecard.sql import conditions_to_sql, points_to_sql, total_to_sql
from quayside.kycc.spark.dialect import column_type
from quayside.kycc.tables import SCORES

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from quayside.kycc.scorecard import Scorecard

_KEY: Final = ("batch_id", "party_id", "as_of")
#: Of `kycc.scores`, all but what the writer adds.
COLUMNS: Final = tuple(name for name in SCORES.columns if name not in {"features", "created_at"})

# Steps on the way; no feature has a name this long.
_STEP: Final = "quayside_" + "_" * 64
_LOST, _FIRED, _RAW, _TOTAL = (f"{_STEP}{name}" for name in ("lost", "fired", "raw", "total"))


def score(features: DataFrame, card: Scorecard) -> DataFrame:
    """Score every row of a frame of features, lazily.

    Args:
        features: batch_id, party_id, as_of and the features the card reads; others are ignored.

    Returns:
        The columns of the lake's ``kycc.scores`` without ``features`` and ``created_at``, row for row what
        `quayside.kycc.scorecard.evaluate` gives.

    Raises:
        InputError: a column is absent or of the wrong type.
    """
    from pyspark.sql import functions as F  # noqa: N812 - the name every Spark reader knows

    _check(features, card)
    points = points_to_sql(card, "spark")
    conditions = conditions_to_sql(card, "spark")
    best = card.base + sum(item.max_points for item in card.characteristics)
    lost = [F.lit(item.max_points) - F.expr(points[item.feature]) for item in card.characteristics]
    fired = [F.expr(condition) for condition in conditions.values()]
    steps = (
        features.withColumn(_LOST, F.array(*lost))
        .withColumn(_FIRED, F.array(*fired).cast("array<boolean>"))
        .withColumn(_RAW, F.lit(best) - F.aggregate(_LOST, F.lit(0), lambda total, loss: total + loss))
        .withColumn(_TOTAL, F.expr(total_to_sql(card, "spark", _RAW)))
    )
    of_rule = {rule.id: F.col(_FIRED)[at] for at, rule in enumerate(card.ordered_rules)}
    of_flag = {
        flag: _any([of_rule[rule.id] for rule in card.rules if rule.flag == flag]) for flag in card.flags
    }
    review = _any([of_rule[rule.id] for rule in card.rules if rule.asks_for_review])
    values = {
        **{name: F.col(name) for name in _KEY},
        "scorecard_version": F.lit(card.version),
        "raw_score": F.col(_RAW),
        "total_score": F.col(_TOTAL),
        "band": _by_band({band: F.lit(band) for band, _ in BANDS}),
        "decision": _by_band(
            {
                band: F.when(review, "review").otherwise("approve")
                if decision == "approve"
                else F.lit(decision)
                for band, decision in DECISIONS.items()
            }
        ),
        "flags": _names_where(of_flag),
        "rules": _names_where(of_rule),
        "reasons": _reasons(card),
    }
    types = {name: column_type(SCORES.columns[name]) for name in COLUMNS}
    return steps.select(*(values[name].cast(type_).alias(name) for name, type_ in types.items()))


def _reasons(card: Scorecard) -> Column:
    """The features that lost most points, most first, then in card order; at most `REASONS`, none that lost nothing."""
    from pyspark.sql import functions as F  # noqa: N812 - the name every Spark reader knows

    # Loss and place in one number, as the engine packs them: larger means more lost, then earlier in the card.
    size = len(card.features)
    packed = F.transform(_LOST, lambda loss, at: loss * size + (size - 1 - at))
    against = F.sort_array(F.filter(packed, lambda number: number >= size), asc=False)
    names = F.array(*(F.lit(name) for name in reversed(card.features)))
    return F.transform(
        F.slice(against, 1, REASONS), lambda number: F.element_at(names, (number % size + 1).cast("int"))
    )


def _by_band(values: dict[str, Column]) -> Column:
    """The value of the band that the total score is in."""
    from pyspark.sql import functions as F  # noqa: N812 - the name every Spark reader knows

    *better, (lowest, _) = BANDS
    choice = values[lowest]
    for band, floor in reversed(better):
        choice = F.when(F.col(_TOTAL) >= floor, values[band]).otherwise(choice)
    return choice


def _names_where(truths: dict[str, Column]) -> Column:
    """List of the names whose column is true, in order."""
    from pyspark.sql import functions as F  # noqa: N812 - the name every Spark reader knows

    return F.array_compact(F.array(*(F.when(truth, name) for name, truth in truths.items())))


def _any(truths: list[Column]) -> Column:
    from functools import reduce
    from operator import or_

    from pyspark.sql import functions as F  # noqa: N812 - the name every Spark reader knows

    return reduce(or_, truths, F.lit(False))


def _check(features: DataFrame, card: Scorecard) -> None:
    from pyspark.sql.types import BooleanType, NullType, NumericType, StringType

    types = {field.name: field.dataType for field in features.schema.fields}
    absent = [name for name in (*_KEY, *card.required_features) if name not in types]
    if absent:
        raise InputError(
            f"Scorecard {card.version} on Spark reads {', '.join(map(repr, absent))}, but the frame has no such column."
        )
    texts = {item.feature for item in card.characteristics if item.kind == "categorical"}
    for name in card.required_features:
        fitting = (StringType,) if name in texts else (NumericType, BooleanType)
        if not isinstance(types[name], (*fitting, NullType)):
            wanted = "text" if name in texts else "numeric"
            raise InputError(
                f"Feature {name!r} must be {wanted}, but its column holds {types[name].simpleString()}."
            )
