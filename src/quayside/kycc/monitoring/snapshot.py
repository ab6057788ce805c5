"""One scored batch as columns, read from the lake: what every comparison of two batches works on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from quayside.foundation.errors import NotFoundError

if TYPE_CHECKING:
    from datetime import datetime

    import duckdb
    import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A batch as one scorecard version saw it.

    Attributes:
        parties: parties the batch holds; those with features are ``len`` of any feature, those with a score ``len(scores)``.
        features: every feature of the registry, NaN where there is none; float64 (rows,) each, in one row order.
        scores: total scores; int16 (scored,).
    """

    batch_id: str
    as_of: datetime
    version: str
    parties: int
    features: dict[str, npt.NDArray[np.float64]]
    scores: npt.NDArray[np.int16]

    @property
    def rows(self) -> int:
        """Parties with features."""
        return len(next(iter(self.features.values()), ()))


def read_snapshot(con: duckdb.DuckDBPyConnection, batch_id: str, version: str) -> Snapshot:
    """Features and scores of a batch as of the moment that version scored it.

    Raises:
        NotFoundError: the batch has no scores by that version.
    """
    from quayside.kycc.features import FEATURES

    stage = con.execute(
        "SELECT as_of FROM kycc.stages WHERE stage = 'scores' AND batch_id = ? AND scorecard_version = ?",
        [batch_id, version],
    ).fetchone()
    if stage is None:
        raise NotFoundError(
            f"Batch {batch_id} has no scores by scorecard {version}. Run scoring_job for it first."
        )
    names = [feature.name for feature in FEATURES]
    selected = ", ".join(f'"{name}"::DOUBLE AS "{name}"' for name in names)
    columns = con.execute(
        f"SELECT {selected} FROM kycc.features WHERE batch_id = ? AND as_of = ? ORDER BY party_id",  # noqa: S608 - names of the registry
        [batch_id, stage[0]],
    ).fetchnumpy()
    scores = con.execute(
        "SELECT total_score FROM kycc.scores WHERE batch_id = ? AND scorecard_version = ? ORDER BY party_id",
        [batch_id, version],
    ).fetchnumpy()["total_score"]
    parties = con.execute("SELECT count(*) FROM kycc.parties WHERE batch_id = ?", [batch_id]).fetchone()
    return Snapshot(
        batch_id,
        stage[0],
        version,
        parties[0] if parties else 0,
        {name: np.ma.filled(columns[name], np.nan) for name in names},
        np.asarray(scores, np.int16),
    )


def previous_batch(con: duckdb.DuckDBPyConnection, batch_id: str, version: str) -> str | None:
    """The batch scored by that version whose moment is the last before this one's; None when this is the first.

    Of batches with the same moment, the one scored earlier comes first.
    """
    row = con.execute(
        """
        SELECT p.batch_id FROM kycc.stages p, kycc.stages c
        WHERE c.stage = 'scores' AND c.batch_id = $batch AND c.scorecard_version = $version
          AND p.stage = 'scores' AND p.batch_id <> $batch AND p.scorecard_version = $version
          AND (p.as_of, p.completed_at) < (c.as_of, c.completed_at)
        ORDER BY p.as_of DESC, p.completed_at DESC, p.batch_id DESC LIMIT 1
        """,
        {"batch": batch_id, "version": version},
    ).fetchone()
    return row[0] if row else None
