"""The training table: labels joined with the features of exactly their moment."""
# ruff: noqa: S608 - statements are made of constants of this package; values are bound

from __future__ import annotations

from typing import TYPE_CHECKING

from quayside.foundation.errors import NotFoundError
from quayside.kycc.features import FEATURES, FEATURES_WIDE
from quayside.kycc.tables import LABELS, OUTCOME_FILES

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb
    import pyarrow as pa

    from quayside.kycc.scorecard import Scorecard


def labelled(
    con: duckdb.DuckDBPyConnection,
    card: Scorecard,
    *,
    observation_window_days: int = 180,
    batch_ids: Sequence[str] | None = None,
) -> pa.Table:
    """Labelled parties with their features.

    Observed labels are used as soon as any batch asked for has one whose window is over; only otherwise simulated ones, and
    of these none of a batch that has an outcome file. Events that were seen before their window was over make labels but
    no training rows: the good parties of that window are not known yet, and a sample of bad ones alone would mislead.

    Args:
        card: its total score becomes column ``score``.
        batch_ids: those batches alone; all when left out.

    Returns:
        ``batch_id, party_id, as_of, label`` (int8; 0 good, 1 bad)``, label_source``, every feature of the registry and
        ``score`` (int16), ordered by (as_of, batch_id, party_id). Label source is one and the same in all rows; without any
        label the table has no rows.

    Raises:
        NotFoundError: a labelled batch has no features as of the labels' moment any more.
    """
    from quayside.kycc.scorecard import evaluate

    values = {"days": observation_window_days, "batches": None if batch_ids is None else list(batch_ids)}
    chosen = f"""
        SELECT l.batch_id, l.party_id, l.as_of, l.label, l.label_source FROM {LABELS.qualified} l
        WHERE l.observation_window_days = $days AND ($batches::VARCHAR[] IS NULL OR list_contains($batches, l.batch_id))
          AND l.window_over AND (l.label_source = 'observed'
            OR NOT EXISTS (SELECT 1 FROM {OUTCOME_FILES.qualified} f WHERE f.batch_id = l.batch_id))
        QUALIFY l.label_source = min(l.label_source) OVER ()  -- observed before simulated
    """
    names = ", ".join(f'f."{feature.name}"' for feature in FEATURES)
    found = con.execute(
        f"""
        SELECT l.*, {names} FROM ({chosen}) l JOIN {FEATURES_WIDE.qualified} f USING (batch_id, as_of, party_id)
        ORDER BY l.as_of, l.batch_id, l.party_id
        """,
        values,
    ).to_arrow_table()
    (labels,) = con.execute(f"SELECT count(*) FROM ({chosen})", values).fetchall()[0]
    if labels != found.num_rows:
        raise NotFoundError(
            f"{labels - found.num_rows:,} of {labels:,} labels have no features as of their moment: run feature_job for "
            "their batches and moments again."
        )
    scored = evaluate(card, {name: found.column(name) for name in card.required_features})
    return found.append_column("score", [scored.total_score])
