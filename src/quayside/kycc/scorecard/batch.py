"""Scores of a batch as NumPy codes and bit masks, and their reading as text columns in Arrow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from quayside.kycc.bands import BANDS, DECISIONS
from quayside.kycc.scorecard.card import Scorecard

if TYPE_CHECKING:
    import pyarrow as pa

#: Texts of band and decision codes.
BAND_NAMES: Final[tuple[str, ...]] = tuple(band for band, _ in BANDS)
DECISION_NAMES: Final[tuple[str, ...]] = tuple(dict.fromkeys(DECISIONS.values()))


@dataclass(frozen=True, eq=False)
class ScoredBatch:
    """Evaluation of n rows by one card.

    Attributes:
        raw_score: 300 + Σ points; int16 (n,).
        total_score: after rules, clamped to 300–900; int16 (n,).
        band, decision: codes into `BAND_NAMES` and `DECISION_NAMES`; int8 (n,).
        flags: bit f is set where ``card.flags[f]`` was raised; uint32 (n,).
        rules: bit r is set where ``card.ordered_rules[r]`` fired; uint32 (n,).
        rule_deltas: points by which each rule moved the score, in the same order; int16 (n, rules).
        reasons: positions of the characteristics that lost most points, worst first, −1 filled; int8 (n, 4).
        reason_points: the points they lost; int16 (n, 4).
    """

    card: Scorecard
    raw_score: npt.NDArray[np.int16]
    total_score: npt.NDArray[np.int16]
    band: npt.NDArray[np.int8]
    decision: npt.NDArray[np.int8]
    flags: npt.NDArray[np.uint32]
    rules: npt.NDArray[np.uint32]
    rule_deltas: npt.NDArray[np.int16]
    reasons: npt.NDArray[np.int8]
    reason_points: npt.NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.raw_score)

    @cached_property
    def clamped(self) -> npt.NDArray[np.int16]:
        """Points the final clamp to 300–900 moved the score by; int16 (n,)."""
        return self.total_score - self.raw_score - self.rule_deltas.sum(axis=1, dtype=np.int16)

    def band_counts(self) -> dict[str, int]:
        """Rows per band, best first."""
        counts = np.bincount(self.band, minlength=len(BAND_NAMES))
        return dict(zip(BAND_NAMES, counts.tolist(), strict=True))

    def decision_counts(self) -> dict[str, int]:
        """Rows per decision."""
        counts = np.bincount(self.decision, minlength=len(DECISION_NAMES))
        return dict(zip(DECISION_NAMES, counts.tolist(), strict=True))

    def to_arrow(self) -> pa.Table:
        """One row per scored row: raw_score, total_score (int16), band, decision (dictionaries of text), flags, reasons,
        reason_points, rules_applied (lists; reasons are feature names, worst first)."""
        import pyarrow as pa

        def texts(codes: npt.NDArray[np.int8], names: Sequence[str]) -> pa.Array:
            return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(names))

        given = self.reasons >= 0
        offsets = np.concatenate(([0], np.cumsum(given.sum(axis=1)))).astype(np.int32)
        names = pa.array(self.card.features, pa.string())
        return pa.table(
            {
                "raw_score": self.raw_score,
                "total_score": self.total_score,
                "band": texts(self.band, BAND_NAMES),
                "decision": texts(self.decision, DECISION_NAMES),
                "flags": _names_of_bits(self.flags, self.card.flags),
                "reasons": pa.ListArray.from_arrays(offsets, names.take(pa.array(self.reasons[given]))),
                "reason_points": pa.ListArray.from_arrays(offsets, pa.array(self.reason_points[given])),
                "rules_applied": _names_of_bits(self.rules, [rule.id for rule in self.card.ordered_rules]),
            }
        )


def _names_of_bits(masks: npt.NDArray[np.uint32], names: Sequence[str]) -> Any:
    """list<string> of the names whose bits are set. A batch has few distinct masks, so each list is built once."""
    import pyarrow as pa

    encoded = pa.array(masks).dictionary_encode()
    lists = [
        [name for bit, name in enumerate(names) if mask >> bit & 1] for mask in encoded.dictionary.to_pylist()
    ]
    return pa.array(lists, pa.list_(pa.string())).take(encoded.indices)
