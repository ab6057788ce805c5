"""Champion and challenger: two scorecards on the same parties, and once outcomes are in, a paired test of which ranks
better.

Belongs here: the comparison. Nothing here activates anything.
"""
# ruff: noqa: S608 - statements are made of constants of this package; values are bound

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from quayside.foundation.errors import NotFoundError
from quayside.kycc.bands import BANDS
from quayside.kycc.training.metrics import Labels, compare_auc, rank_correlation

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from quayside.kycc.scorecard import Scorecard, ScoredBatch

#: Fewer good or bad parties than this say too little about a difference for a normal approximation.
MIN_CLASS: Final = 20


@dataclass(frozen=True)
class AucTest:
    """DeLong's test of two scores on the same parties; AUC is the chance that a good party scores above a bad one.

    `difference` is challenger − champion, `low` and `high` its 95 % interval; `p_value` is two-sided, 1 where both rank
    all parties alike.
    """

    good: int
    bad: int
    champion_auc: float
    challenger_auc: float
    difference: float
    standard_error: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True)
class Comparison:
    """Challenger beside champion.

    Attributes:
        parties: of the batch, scored by both.
        mean_shift, largest_shift: challenger − champion, in points of the total score.
        rank_correlation: Spearman's; 0 where one of them gives everybody the same score.
        bands: band → (parties by the champion, parties by the challenger), best first.
        moved: (champion's band, challenger's band) → parties, of those whose band differs.
        decisions_changed: parties for whom the decision by default differs.
        test: on observed labels of parties that neither card was made from; None while there are too few.
        test_note: why there is no test, or on what it stands.
    """

    champion: str
    challenger: str
    batch_id: str
    as_of: datetime
    parties: int
    mean_shift: float
    largest_shift: int
    rank_correlation: float
    bands: dict[str, tuple[int, int]]
    moved: dict[tuple[str, str], int]
    decisions_changed: int
    test: AucTest | None
    test_note: str

    def as_dict(self) -> dict[str, Any]:
        """All of it, fit for JSON."""
        moved = [{"from": a, "to": b, "parties": n} for (a, b), n in self.moved.items()]
        return asdict(self) | {"moved": moved, "as_of": self.as_of.isoformat()}


def paired_test(label: Labels, champion: npt.NDArray[Any], challenger: npt.NDArray[Any]) -> AucTest:
    """Which of two scores ranks better, on the same parties: DeLong's test of the paired difference.

    Args:
        label: 0 good, 1 bad, some of each; (n,).
        champion, challenger: scores of the same parties, higher is safer; (n,).
    """
    # As floats: the negative of an unsigned or narrow integer is not always one.
    pair = compare_auc(label, -np.asarray(champion, np.float64), -np.asarray(challenger, np.float64))
    low, high = pair.interval
    distance = abs(pair.difference) / pair.error if pair.error else 0.0
    bad = int((label == 1).sum())
    return AucTest(
        good=len(label) - bad,
        bad=bad,
        champion_auc=pair.first,
        challenger_auc=pair.second,
        difference=pair.difference,
        standard_error=pair.error,
        low=low,
        high=high,
        p_value=math.erfc(distance / math.sqrt(2)),
    )


def compare(
    con: duckdb.DuckDBPyConnection,
    champion: Scorecard,
    challenger: Scorecard,
    batch_id: str,
    as_of: datetime,
    labels: pa.Table,
) -> Comparison:
    """Both cards on every party of the batch, and on labelled parties that neither was made from.

    Args:
        labels: rows of `quayside.kycc.labels.labelled`; those a card was trained on are not to be among them.

    Raises:
        NotFoundError: the batch has no features as of that moment.
    """
    old, new = _both(con, champion, challenger, batch_id, as_of)
    shift = new.total_score.astype(np.int64) - old.total_score
    names = [band for band, _ in BANDS]
    pairs, counts = np.unique(np.stack([old.band, new.band]), axis=1, return_counts=True)
    before, after = old.band_counts(), new.band_counts()
    test, note = _test(labels, champion, challenger)
    return Comparison(
        champion=champion.version,
        challenger=challenger.version,
        batch_id=batch_id,
        as_of=as_of,
        parties=len(old),
        mean_shift=float(shift.mean()),
        largest_shift=int(shift[np.argmax(np.abs(shift))]),
        rank_correlation=rank_correlation(old.total_score, new.total_score),
        bands={band: (before[band], after[band]) for band in names},
        moved={
            (names[a], names[b]): int(n)
            for (a, b), n in zip(pairs.T.tolist(), counts.tolist(), strict=True)
            if a != b
        },
        decisions_changed=int((old.decision != new.decision).sum()),
        test=test,
        test_note=note,
    )


def _both(
    con: duckdb.DuckDBPyConnection, champion: Scorecard, challenger: Scorecard, batch_id: str, as_of: datetime
) -> tuple[ScoredBatch, ScoredBatch]:
    from quayside.kycc.scorecard import evaluate

    names = dict.fromkeys((*champion.required_features, *challenger.required_features))
    columns = ", ".join(f'"{name}"' for name in names)
    features = con.execute(
        f"SELECT {columns} FROM kycc.features WHERE batch_id = ? AND as_of = ? ORDER BY party_id",
        [batch_id, as_of],
    ).to_arrow_table()
    if not features.num_rows:
        raise NotFoundError(
            f"Batch {batch_id} has no features as of {as_of:%Y-%m-%d %H:%M:%S%z}. Run feature_job for it first."
        )
    return evaluate(champion, _columns(features, champion)), evaluate(
        challenger, _columns(features, challenger)
    )


def _test(rows: pa.Table, champion: Scorecard, challenger: Scorecard) -> tuple[AucTest | None, str]:
    from quayside.kycc.scorecard import evaluate

    if "observed" not in rows.column("label_source").unique().to_pylist():
        return None, "No party that neither card was made from has an observed outcome with its window over."
    label = rows.column("label").to_numpy()
    bad = int((label == 1).sum())
    good = len(label) - bad
    if min(good, bad) < MIN_CLASS:
        return (
            None,
            f"{good} good and {bad} bad parties are too few for a test: it takes {MIN_CLASS} of each.",
        )
    scores = [evaluate(card, _columns(rows, card)).total_score for card in (champion, challenger)]
    batches = len(rows.column("batch_id").unique())
    return (
        paired_test(label, *scores),
        f"{good + bad:,} parties of {batches:,} batch{'' if batches == 1 else 'es'} with observed outcomes, none of which "
        "either card was made from.",
    )


def _columns(table: pa.Table, card: Scorecard) -> dict[str, pa.ChunkedArray]:
    return {name: table.column(name) for name in card.required_features}
