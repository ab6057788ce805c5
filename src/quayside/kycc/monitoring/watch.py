"""All comparisons of one scored batch with the batch before it, by their names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quayside.kycc.checks import Findings
from quayside.kycc.monitoring.comparisons import (
    band_mix,
    characteristic_stability,
    coverage,
    feature_stability,
    score_stability,
)
from quayside.kycc.monitoring.snapshot import previous_batch, read_snapshot

if TYPE_CHECKING:
    import duckdb

    from quayside.kycc.scorecard import Scorecard


def watch(
    con: duckdb.DuckDBPyConnection, card: Scorecard, batch_id: str, reference: str | None = None
) -> dict[str, Findings]:
    """Findings on a batch scored by that card: coverage always, the comparisons once there is something to compare with.

    Args:
        reference: batch to compare with; the last one scored by the card before this one when left out.

    Raises:
        NotFoundError: one of the batches has no scores by the card's version.
    """
    current = read_snapshot(con, batch_id, card.version)
    name = reference or previous_batch(con, batch_id, card.version)
    if name is None:
        nothing = {"reference_batch": "none", "current_batch": batch_id, "status": "nothing to compare with"}
        names = ("score_stability", "feature_stability", "characteristic_stability", "band_mix")
        return {check: Findings(dict(nothing)) for check in names} | {"coverage": coverage(None, current)}
    before = read_snapshot(con, name, card.version)
    return {
        "score_stability": score_stability(before, current),
        "feature_stability": feature_stability(before, current),
        "characteristic_stability": characteristic_stability(card, before, current),
        "band_mix": band_mix(before, current),
        "coverage": coverage(before, current),
    }
