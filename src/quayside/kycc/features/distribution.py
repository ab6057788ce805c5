"""How the values of each feature are distributed in one extraction: what its metadata and plots show."""
# ruff: noqa: S608 - statements are made of constants of this package; values are bound

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    import duckdb

    from quayside.kycc.features.feature import Feature

BARS: Final = 20


@dataclass(frozen=True)
class Distribution:
    """One feature's values. `present` is the share that is not NULL, `informative` the share that is neither NULL nor the
    value stored when there is no data. Bar i of `counts` spans `edges[i]` to `edges[i + 1]`; without any value there is no
    bar and the moments are None."""

    present: float
    informative: float
    minimum: float | None
    mean: float | None
    maximum: float | None
    edges: list[float]
    counts: list[int]


def distributions(
    con: duckdb.DuckDBPyConnection, table: str, features: Iterable[Feature]
) -> dict[str, Distribution]:
    """Distribution of each feature over the rows of a table, which has at least one."""
    features = list(features)
    columns = con.execute(
        f"SELECT {', '.join(feature.name for feature in features)} FROM {table}"
    ).fetchnumpy()
    return {
        feature.name: _distribution(np.ma.masked_array(columns[feature.name]), feature)
        for feature in features
    }


def _distribution(column: np.ma.MaskedArray[Any, Any], feature: Feature) -> Distribution:
    values = column.compressed()
    if not len(values):
        return Distribution(0.0, 0.0, None, None, None, [], [])
    informative = len(values) if feature.no_data is None else np.count_nonzero(values != feature.no_data)
    counts, edges = np.histogram(values, BARS, range=_span(float(values.min()), float(values.max())))
    return Distribution(
        present=len(values) / len(column),
        informative=int(informative) / len(column),
        minimum=float(values.min()),
        mean=float(values.mean()),
        maximum=float(values.max()),
        edges=edges.tolist(),
        counts=counts.tolist(),
    )


def _span(low: float, high: float) -> tuple[float, float]:
    """Range of the bars: of the values, or around them where they lie too close together for that many edges."""
    narrow = 2 * BARS * float(np.spacing(max(abs(low), abs(high))))
    if high - low > narrow:
        return low, high
    margin = max(0.5, narrow)
    return low - margin, high + margin
