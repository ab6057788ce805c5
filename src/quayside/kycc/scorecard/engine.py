"""The scoring engine: feature columns → points, scores and reasons, vectorised and single-threaded.

Rows go through in chunks whose working set stays in the processor's cache. Per characteristic a chunk costs one
comparison per cut, summed up to one-byte bin codes, and one table look-up. The table holds points lost and the
characteristic's rank packed into one integer, so that a running maximum over four slots keeps the four strongest
reasons in order: no sort, and no points matrix in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from quayside.kycc.bands import BANDS, DECISIONS, SCORE_MAX, SCORE_MIN, band_of
from quayside.kycc.scorecard.batch import BAND_NAMES, DECISION_NAMES, ScoredBatch
from quayside.kycc.scorecard.card import Characteristic, Scorecard
from quayside.kycc.scorecard.columns import Columns, category_codes, numeric_column, row_count
from quayside.kycc.scorecard.rules import apply_rules

#: Reasons kept per row. Regulation B's commentary says that more than four are not likely to help.
REASONS: Final = 4

#: Rows per chunk: a float64 column of it fills a quarter of a 1 MiB second-level cache.
CHUNK: Final = 32_768

Encoder = Callable[[int, int], npt.NDArray[np.uint8]]


@dataclass(frozen=True)
class Scores:
    """Scores of n rows before rules.

    Attributes:
        raw_score: 300 + Σ points; int16 (n,).
        reasons: characteristics by points lost, most first, −1 where fewer lost any; ties in card order; int8 (n, 4).
        reason_points: points lost to each reason, 0 beside −1; int16 (n, 4).
    """

    raw_score: npt.NDArray[np.int16]
    reasons: npt.NDArray[np.int8] | None = None
    reason_points: npt.NDArray[np.int16] | None = None


def score(card: Scorecard, columns: Columns, *, reasons: bool = True) -> Scores:
    """Raw scores of every row, and the reasons against it unless they are not wanted.

    Args:
        columns: one column per feature of the card, see :mod:`quayside.kycc.scorecard.columns`.

    Raises:
        InputError: a column is absent, of the wrong type or of another length.
    """
    n = row_count(columns, card.features)
    packing = _Packing(len(card.characteristics))
    chunk = min(CHUNK, n)
    encoders = [_encoder(item, columns[item.feature], chunk) for item in card.characteristics]
    tables = [packing.table(item, rank) for rank, item in enumerate(card.characteristics)]
    best = card.base + sum(item.max_points for item in card.characteristics)

    raw = np.empty(n, np.int16)
    worst = np.empty((REASONS, n), np.int8) if reasons else None
    worst_points = np.empty((REASONS, n), np.int16) if reasons else None

    packed, lost = np.empty(chunk, packing.dtype), np.empty(chunk, packing.dtype)
    spare, total = np.empty(chunk, packing.dtype), np.empty(chunk, packing.dtype)
    slots = np.empty((REASONS, chunk), packing.dtype)
    for start in range(0, n, CHUNK):
        stop = min(start + CHUNK, n)
        if stop - start < chunk:  # the last, shorter chunk
            packed, lost, spare, total = (buffer[: stop - start] for buffer in (packed, lost, spare, total))
            slots = slots[:, : stop - start]
        total.fill(0)
        slots.fill(0)
        for encode, table in zip(encoders, tables, strict=True):
            np.take(table, encode(start, stop), out=packed)
            np.right_shift(packed, packing.bits, out=lost)
            np.add(total, lost, out=total)
            if reasons:
                for slot in slots:
                    np.minimum(slot, packed, out=spare)
                    np.maximum(slot, packed, out=slot)
                    packed, spare = spare, packed
        np.subtract(best, total, out=raw[start:stop], casting="unsafe")
        if worst is not None and worst_points is not None:
            packing.unpack(slots, worst[:, start:stop], worst_points[:, start:stop])
    if worst is None or worst_points is None:
        return Scores(raw)
    return Scores(raw, worst.T, worst_points.T)


def codes(card: Scorecard, columns: Columns) -> npt.NDArray[np.uint8]:
    """Bin code of every row and characteristic, see :class:`Characteristic`; uint8 (n, characteristics)."""
    n = row_count(columns, card.features)
    result = np.empty((len(card.characteristics), n), np.uint8)
    for position, item in enumerate(card.characteristics):
        encode = _encoder(item, columns[item.feature], min(CHUNK, n))
        for start in range(0, n, CHUNK):
            stop = min(start + CHUNK, n)
            result[position, start:stop] = encode(start, stop)
    return result.T


def points(card: Scorecard, columns: Columns) -> npt.NDArray[np.int16]:
    """Points of every row and characteristic; int16 (n, characteristics)."""
    by_code = codes(card, columns)
    result = np.empty(by_code.shape[::-1], np.int16)
    for position, item in enumerate(card.characteristics):
        np.take(np.array(item.points_by_code, np.int16), by_code[:, position], out=result[position])
    return result.T


def evaluate(card: Scorecard, columns: Columns) -> ScoredBatch:
    """Scores, reasons, rules, band and decision of every row.

    Args:
        columns: one column per feature in ``card.required_features``.

    Raises:
        InputError: a column is absent, of the wrong type or of another length.
    """
    row_count(columns, card.required_features)
    scores = score(card, columns)
    assert scores.reasons is not None
    assert scores.reason_points is not None
    read = dict.fromkeys(name for rule in card.rules for name in rule.features)
    values = {name: numeric_column(name, columns[name]).astype(np.float64, copy=False) for name in read}
    effects = apply_rules(card.ordered_rules, scores.raw_score, values)
    band = _BAND_OF_SCORE[effects.total - SCORE_MIN]
    decision = _DECISION_OF_BAND[band]
    decision[effects.review & (decision == _APPROVE)] = _REVIEW
    return ScoredBatch(
        card=card,
        raw_score=scores.raw_score,
        total_score=effects.total,
        band=band,
        decision=decision,
        flags=effects.flags,
        rules=effects.fired,
        rule_deltas=effects.deltas,
        reasons=scores.reasons,
        reason_points=scores.reason_points,
    )


_APPROVE: Final = DECISION_NAMES.index("approve")
_REVIEW: Final = DECISION_NAMES.index("review")
_BAND_OF_SCORE: Final = np.array(
    [BAND_NAMES.index(band_of(total)) for total in range(SCORE_MIN, SCORE_MAX + 1)], np.int8
)
_DECISION_OF_BAND: Final = np.array([DECISION_NAMES.index(DECISIONS[band]) for band, _ in BANDS], np.int8)


class _Packing:
    """Points lost and rank in one unsigned integer: larger means more lost, then earlier in the card; 0 is no loss.

    Losses go up to 600, ten bits, so that up to 64 characteristics fit 16 bits and larger cards take 32.
    """

    def __init__(self, characteristics: int) -> None:
        self.dtype: Any = np.uint16 if characteristics <= 64 else np.uint32
        self.bits = 6 if characteristics <= 64 else 7
        self._last = (1 << self.bits) - 1

    def table(self, item: Characteristic, rank: int) -> npt.NDArray[Any]:
        """Packed value of each bin code."""
        losses = [item.max_points - points for points in item.points_by_code]
        return np.array(
            [loss << self.bits | (self._last - rank) if loss else 0 for loss in losses], self.dtype
        )

    def unpack(
        self, slots: npt.NDArray[Any], reasons: npt.NDArray[np.int8], lost: npt.NDArray[np.int16]
    ) -> None:
        """Write the reasons and their points of packed `slots`, all of shape (4, rows)."""
        np.right_shift(slots, self.bits, out=lost, casting="unsafe")
        np.subtract(self._last, slots & self._last, out=reasons, casting="unsafe")
        reasons[slots == 0] = -1


def _encoder(item: Characteristic, column: Any, chunk: int) -> Encoder:
    """Function from a range of rows to their bin codes, in a buffer that the next call overwrites."""
    if item.kind == "categorical":
        whole = category_codes(item, column)
        return lambda start, stop: whole[start:stop]
    values = numeric_column(item.feature, column)
    compare = np.greater_equal if item.closed == "left" else np.greater
    result, above = np.empty(chunk, np.uint8), np.empty(chunk, np.bool_)

    def encode(start: int, stop: int) -> npt.NDArray[np.uint8]:
        rows = values[start:stop].astype(np.float64, copy=False)
        out, mask = result[: stop - start], above[: stop - start]
        # Everything but NaN reaches code 1; NaN compares false throughout and stays 0.
        np.greater_equal(rows, -np.inf, out=out.view(np.bool_))
        for cut in item.cuts:
            compare(rows, cut, out=mask)
            np.add(out, mask.view(np.uint8), out=out)
        return out

    return encode
