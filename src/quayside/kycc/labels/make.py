"""`make_labels`: observed labels where there are outcomes, simulated ones where there are none, both kept."""
# ruff: noqa: S608 - statements are made of constants of this package; values are bound

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from quayside.foundation.errors import NotFoundError
from quayside.kycc.labels.observed import select_observed
from quayside.kycc.labels.window import Window
from quayside.kycc.tables import LABELS, OUTCOME_FILES, PARTIES

if TYPE_CHECKING:
    import duckdb

    from quayside.kycc.scorecard import Scorecard

LabelSource = Literal["observed", "simulated"]

#: What makes a label another one; when it was made does not.
_CONTENT: Final = tuple(c for c in LABELS.columns if c not in {*LABELS.key, "created_at"})
_NEW: Final = "temp.new_labels"


@dataclass(frozen=True)
class LabelCounts:
    """Labels of one source: how many are good and bad, and how many parties of the batch have none."""

    good: int
    bad: int
    unlabelled: int
    windows_over: int

    @property
    def bad_rate(self) -> float | None:
        """Share of bad labels, None without any."""
        return self.bad / (self.good + self.bad) if self.good + self.bad else None


@dataclass(frozen=True)
class LabelResult:
    """What one call of `make_labels` left for its batch, moment and window.

    Attributes:
        source: where labels of this call come from: observed as soon as an outcome file of the batch is loaded.
        counts: by source, of all labels that are stored; sources without any are left out.
        observed_through: until when the whole batch was observed, None without an outcome file.
        added, changed, removed: rows of this call against those stored before.
    """

    batch_id: str
    as_of: datetime
    observation_window_days: int
    source: LabelSource
    counts: dict[LabelSource, LabelCounts]
    observed_through: datetime | None
    added: int
    changed: int
    removed: int

    @property
    def circular(self) -> bool:
        """Whether what is trained on these labels only finds the scorecard they were drawn from."""
        return self.source == "simulated"

    def as_dict(self) -> dict[str, Any]:
        """All of it, fit for JSON."""
        return asdict(self) | {"circular": self.circular}


def make_labels(
    con: duckdb.DuckDBPyConnection,
    window: Window,
    default_rate: float,
    card: Scorecard,
    now: datetime | None = None,
) -> LabelResult:
    """Make the labels of one batch, moment and window, inside the caller's transaction.

    Observed labels are always brought up to date. Simulated ones are made only while the batch has no outcome file; those
    made before stay when it gets one.

    Args:
        default_rate: mean probability of bad of simulated labels.
        card: whose scores simulated labels are drawn from.

    Raises:
        NotFoundError: the batch is not loaded, or has no features to simulate from.
        UsageError: the window or the rate is out of its range.
    """
    if not con.execute(
        f"SELECT 1 FROM {PARTIES.qualified} WHERE batch_id = ? LIMIT 1", [window.batch_id]
    ).fetchone():
        raise NotFoundError(f"Batch {window.batch_id} has no parties in the lake: ingest it first.")
    now = now or datetime.now(UTC)
    files, through = con.execute(
        f"SELECT count(*), max(observed_through) FILTER (covers = 'batch') FROM {OUTCOME_FILES.qualified} WHERE batch_id = ?",
        [window.batch_id],
    ).fetchall()[0]
    source: LabelSource = "observed" if files else "simulated"
    sql, values = select_observed(con, window)
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE new_labels AS SELECT *, NULL::VARCHAR AS scorecard_version, "
        f"NULL::DOUBLE AS default_rate FROM ({sql})",
        values,
    )
    changes = _store(con, window, "observed", now)
    if source == "simulated":
        _simulate(con, window, default_rate, card)
        changes = tuple(a + b for a, b in zip(changes, _store(con, window, "simulated", now), strict=True))
    con.execute(f"DROP TABLE {_NEW}")
    return LabelResult(
        window.batch_id, window.as_of, window.days, source, count_labels(con, window), through, *changes
    )


def count_labels(con: duckdb.DuckDBPyConnection, window: Window) -> dict[LabelSource, LabelCounts]:
    """Stored labels of one batch, moment and window, by source."""
    rows = con.execute(
        f"""
        SELECT label_source, count(*) FILTER (label = 0), count(*) FILTER (label = 1),
               (SELECT count(*) FROM {PARTIES.qualified} WHERE batch_id = $batch) - count(*), count(*) FILTER (window_over)
        FROM {LABELS.qualified} WHERE batch_id = $batch AND as_of = $as_of AND observation_window_days = $days
        GROUP BY label_source ORDER BY label_source
        """,
        _key(window),
    ).fetchall()
    return {source: LabelCounts(*counts) for source, *counts in rows}


def _simulate(con: duckdb.DuckDBPyConnection, window: Window, default_rate: float, card: Scorecard) -> None:
    """Simulated labels of every party, in temporary table ``new_labels``."""
    import pyarrow as pa

    from quayside.kycc.labels.simulated import draw
    from quayside.kycc.scoring import read_features, scored_rows

    features = read_features(con, window.batch_id, window.as_of, card)
    parties, score = features.column("party_id"), scored_rows(features, card).column("total_score").to_numpy()
    con.register(
        "drawn", pa.table({"party_id": parties, "label": draw(con, window, parties, score, default_rate)})
    )
    con.execute(
        "CREATE OR REPLACE TEMP TABLE new_labels AS SELECT party_id, label, 'simulated' AS reason, "
        "NULL::TIMESTAMPTZ AS event_date, true AS window_over, NULL::TIMESTAMPTZ AS observed_through, "
        "$version AS scorecard_version, $rate::DOUBLE AS default_rate FROM drawn",
        {"version": card.version, "rate": default_rate},
    )
    con.unregister("drawn")


def _store(
    con: duckdb.DuckDBPyConnection, window: Window, source: LabelSource, now: datetime
) -> tuple[int, int, int]:
    """Make the stored labels of `source` those of ``new_labels``; rows added, changed and removed. Equal rows stay as they
    are."""
    key: dict[str, Any] = _key(window) | {"source": source}
    mine = (
        f"FROM {LABELS.qualified} WHERE batch_id = $batch AND as_of = $as_of AND observation_window_days = $days "
        "AND label_source = $source"
    )
    old, new = (f"({', '.join(f'{side}.{column}' for column in _CONTENT)})" for side in "on")
    con.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE label_changes AS
        SELECT party_id, o.party_id IS NOT NULL AS was, n.party_id IS NOT NULL AS stays
        FROM (SELECT * {mine}) o FULL JOIN {_NEW} n USING (party_id)
        WHERE o.party_id IS NULL OR n.party_id IS NULL OR {old} IS DISTINCT FROM {new}
        """,
        key,
    )
    added, changed, removed = con.execute(
        "SELECT count(*) FILTER (NOT was), count(*) FILTER (was AND stays), count(*) FILTER (NOT stays) FROM label_changes"
    ).fetchall()[0]
    if changed or removed:
        con.execute(f"DELETE {mine} AND party_id IN (SELECT party_id FROM label_changes WHERE was)", key)
    if added or changed:
        con.execute(
            f"""
            INSERT INTO {LABELS.qualified} ({", ".join((*LABELS.key, *_CONTENT, "created_at"))})
            SELECT $batch, party_id, $as_of, $days, $source, {", ".join(_CONTENT)}, $now::TIMESTAMPTZ
            FROM {_NEW} WHERE party_id IN (SELECT party_id FROM label_changes)
            """,
            key | {"now": now},
        )
    con.execute("DROP TABLE temp.label_changes")
    return added, changed, removed


def _key(window: Window) -> dict[str, Any]:
    return {"batch": window.batch_id, "as_of": window.as_of, "days": window.days}
