"""Label balance: are there enough bad and good parties to learn from, and is the default rate where it was?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from quayside.kycc.checks import Findings
from quayside.kycc.monitoring.index import share_noise

if TYPE_CHECKING:
    import duckdb

#: A default rate outside this range is a broken label or a population no scorecard should be fitted on unseen.
DEFAULT_RATES: Final = (0.01, 0.50)
#: Fewer rows of a class than this give no stable weight of evidence.
MIN_CLASS: Final = 20
#: Percentage points by which the default rate may move between two batches.
MAX_RATE_SHIFT: Final = 0.10


@dataclass(frozen=True)
class LabelCounts:
    """Labels of one batch from one source, and the parties whose window is not over yet."""

    batch_id: str
    source: str
    goods: int
    bads: int
    unlabelled: int = 0

    @property
    def labelled(self) -> int:
        return self.goods + self.bads

    @property
    def default_rate(self) -> float | None:
        return self.bads / self.labelled if self.labelled else None


def label_counts(
    con: duckdb.DuckDBPyConnection, batch_id: str, observation_window_days: int = 180
) -> dict[str, LabelCounts]:
    """Counts per label source (observed, simulated) of a batch as of its latest labelled moment.

    A party whose window is not over is unlabelled, even where a first bad event was seen already.
    """
    rows = con.execute(
        """
        SELECT label_source, count(*) FILTER (label = 0 AND window_over), count(*) FILTER (label = 1 AND window_over)
        FROM (SELECT * FROM kycc.labels WHERE batch_id = $batch AND observation_window_days = $days
              QUALIFY as_of = max(as_of) OVER (PARTITION BY label_source))
        GROUP BY 1 ORDER BY 1
        """,
        {"batch": batch_id, "days": observation_window_days},
    ).fetchall()
    found = con.execute("SELECT count(*) FROM kycc.parties WHERE batch_id = ?", [batch_id]).fetchone()
    parties = found[0] if found else 0
    return {
        source: LabelCounts(batch_id, source, goods, bads, max(parties - goods - bads, 0))
        for source, goods, bads in rows
    }


def label_balance(current: LabelCounts, reference: LabelCounts | None = None) -> Findings:
    """Both classes are there in number, and the default rate is plausible and, beyond noise, where it was.

    Raises:
        ValueError: the two come from different sources; observed and simulated rates are not comparable.
    """
    if reference is not None and reference.source != current.source:
        raise ValueError(f"Labels are {current.source}, the reference's {reference.source}.")
    rate = current.default_rate
    found = Findings(
        {
            "batch": current.batch_id,
            "label_source": current.source,
            "goods": current.goods,
            "bads": current.bads,
            "unlabelled": current.unlabelled,
            "default_rate": rate if rate is None else round(rate, 4),
        }
    )
    for name, rows in (("good", current.goods), ("bad", current.bads)):
        found.expect(
            rows >= MIN_CLASS,
            f"Batch {current.batch_id} has {rows} {name} {current.source} labels; {MIN_CLASS} are the least to learn from.",
        )
    if rate is None:
        return found
    low, high = DEFAULT_RATES
    found.expect(
        low <= rate <= high,
        f"{rate:.1%} of the {current.labelled:,} {current.source} labels of batch {current.batch_id} are bad, which is not "
        f"between {low:.0%} and {high:.0%}.",
    )
    if reference is not None and reference.default_rate is not None:
        before = reference.default_rate
        chance = share_noise((reference.bads, reference.labelled), (current.bads, current.labelled))
        found.figures |= {
            "reference_batch": reference.batch_id,
            "reference_default_rate": round(before, 4),
            "noise": round(chance, 4),
        }
        found.expect(
            abs(rate - before) <= max(MAX_RATE_SHIFT, chance),
            f"The default rate went from {before:.1%} in batch {reference.batch_id} to {rate:.1%}, limit "
            f"{100 * MAX_RATE_SHIFT:.0f} percentage points, sampling explains {chance:.1%}.",
        )
    return found
