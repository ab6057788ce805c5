"""Labels drawn where nothing was observed: the lower the score, the likelier bad.

They show that the machinery works and prove nothing about a scorecard, because they come out of its own scores: whatever is
trained on them is marked circular.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from quayside.foundation.errors import UsageError

if TYPE_CHECKING:
    import duckdb
    import numpy.typing as npt
    import pyarrow as pa

    from quayside.kycc.labels.window import Window

#: Points that change the odds of being bad by a factor e, as in the documents this follows.
SLOPE_POINTS: Final = 50.0


def probability_of_bad(score: npt.NDArray[Any], default_rate: float) -> npt.NDArray[np.float64]:
    """Logistic in the score, centred so that its mean is `default_rate`; float64 (n,).

    Raises:
        UsageError: the rate is not between 0 and 1, both excluded.
    """
    if not 0 < default_rate < 1:
        raise UsageError(f"default_rate is {default_rate}: give a share above 0 and below 1.")
    from scipy.special import expit

    points = np.asarray(score, np.float64) / SLOPE_POINTS
    # The mean rises with the centre; 40 slopes beyond the scores it is 0 or 1 to the last bit.
    low, high = points.min() - 40, points.max() + 40
    for _ in range(100):
        centre = (low + high) / 2
        if expit(centre - points).mean() < default_rate:
            low = centre
        else:
            high = centre
    return expit((low + high) / 2 - points)


def draw(
    con: duckdb.DuckDBPyConnection,
    window: Window,
    parties: pa.ChunkedArray,
    score: npt.NDArray[Any],
    rate: float,
) -> npt.NDArray[np.int8]:
    """Simulated labels of `parties`, which have `score`; int8 (n,).

    The draw of a party depends on its id, the batch and the moment alone, so that it is the same in every run.
    """
    import pyarrow as pa

    con.register("drawn_parties", pa.table({"party_id": parties, "position": np.arange(len(parties))}))
    uniform = con.execute(
        "SELECT md5_number_lower(concat_ws(chr(31), party_id, $batch, epoch_us($as_of::TIMESTAMPTZ))) / 18446744073709551616.0 "
        "AS u FROM drawn_parties ORDER BY position",
        {"batch": window.batch_id, "as_of": window.as_of},
    ).fetchnumpy()["u"]
    con.unregister("drawn_parties")
    return (uniform < probability_of_bad(score, rate)).astype(np.int8)
