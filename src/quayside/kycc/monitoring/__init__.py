"""Watching a scorecard in use: has the population moved, where, and by how many points?

Comparisons are functions of two `Snapshot` (reference and current batch) that return `Findings`: figures anyone may
want to see, and a sentence for each limit that was passed. `docs/kycc/monitoring.md` states limits and formulas.
"""

from quayside.kycc.monitoring.comparisons import (
    CharacteristicShift,
    band_mix,
    characteristic_shifts,
    characteristic_stability,
    coverage,
    feature_stability,
    score_stability,
)
from quayside.kycc.monitoring.index import StabilityIndex, numeric_counts, stability_index
from quayside.kycc.monitoring.labels import LabelCounts, label_balance, label_counts
from quayside.kycc.monitoring.snapshot import Snapshot, previous_batch, read_snapshot
from quayside.kycc.monitoring.watch import watch

__all__ = [
    "CharacteristicShift",
    "LabelCounts",
    "Snapshot",
    "StabilityIndex",
    "band_mix",
    "characteristic_shifts",
    "characteristic_stability",
    "coverage",
    "feature_stability",
    "label_balance",
    "label_counts",
    "numeric_counts",
    "previous_batch",
    "read_snapshot",
    "score_stability",
    "stability_index",
    "watch",
]
