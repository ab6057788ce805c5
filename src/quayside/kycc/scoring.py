"""Scores of one batch: read features, evaluate the card, write the rows that changed.

The lake's ``kycc.scores`` is the record; ``kycc.score_requests`` in PostgreSQL mirrors it for sensors and auditors.
The two cannot commit together, so the lake commits first and the mirror carries the fingerprint of what it shows: a
run that died in between leaves a mirror whose fingerprint differs, and the next run brings it level.
"""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from quayside.foundation.errors import NotFoundError
from quayside.foundation.statements import one_row
from quayside.kycc.tables import SCORE_HISTORY, SCORES

if TYPE_CHECKING:
    import duckdb
    import psycopg
    import pyarrow as pa

    from quayside.kycc.scorecard import Scorecard

#: What makes a score row different from another; when it was computed does not.
CONTENT = tuple(
    column for column in SCORES.columns if column not in {"batch_id", "scorecard_version", "created_at"}
)


@dataclass(frozen=True)
class Written:
    """What one scoring did to the lake's rows of its batch and version."""

    rows: int
    added: int
    changed: int
    removed: int
    fingerprint: str


def read_features(
    con: duckdb.DuckDBPyConnection, batch_id: str, as_of: datetime, card: Scorecard
) -> pa.Table:
    """Features the card reads, one row per party, ordered by ``party_id``.

    Raises:
        NotFoundError: the batch has no features at that moment.
    """
    columns = ", ".join(f'"{name}"' for name in card.required_features)
    table = con.execute(
        f"SELECT party_id, {columns} FROM kycc.features WHERE batch_id = ? AND as_of = ? ORDER BY party_id",  # noqa: S608 - names come from a validated card
        [batch_id, as_of],
    ).to_arrow_table()
    if table.num_rows == 0:
        raise NotFoundError(
            f"Batch {batch_id} has no features as of {as_of:%Y-%m-%d %H:%M:%S%z}. Run feature_job for it first."
        )
    return table


def scored_rows(features: pa.Table, card: Scorecard) -> pa.Table:
    """Evaluate the card on a feature table: ``party_id`` and the score columns, row for row."""
    from quayside.kycc.scorecard import evaluate

    columns = {name: features.column(name) for name in card.required_features}
    scored = evaluate(card, columns).to_arrow()
    return scored.add_column(0, "party_id", features.column("party_id"))


def write_scores(
    con: duckdb.DuckDBPyConnection,
    batch_id: str,
    as_of: datetime,
    card: Scorecard,
    features: pa.Table,
    scored: pa.Table,
    now: datetime,
) -> Written:
    """Make the lake's rows of this batch and version equal to `scored`, inside the caller's transaction.

    Rows that are equal stay untouched with their first ``created_at``; a row that differs moves to ``kycc.score_history``
    before its successor is written.
    """
    con.register("scored_input", scored)
    con.register("feature_input", features)
    pairs = ", ".join(f'"{name}" := f."{name}"' for name in card.required_features)
    con.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE new_scores AS
        SELECT s.party_id, $as_of::TIMESTAMPTZ AS as_of, s.raw_score, s.total_score, s.band::VARCHAR AS band,
               s.decision::VARCHAR AS decision, s.flags, s.rules_applied AS rules, s.reasons,
               to_json(struct_pack({pairs})) AS features
        FROM scored_input s POSITIONAL JOIN feature_input f
        """,  # noqa: S608 - names come from a validated card
        {"as_of": as_of},
    )
    con.unregister("scored_input")
    con.unregister("feature_input")
    keys = {"batch_id": batch_id, "version": card.version}
    content = ", ".join(f"o.{column}" for column in CONTENT)
    old = (
        "CREATE OR REPLACE TEMP TABLE old_scores AS SELECT * FROM kycc.scores "
        "WHERE batch_id = $batch_id AND scorecard_version = $version"
    )
    con.execute(old, keys)
    replaced = f"""
        SELECT o.party_id, n.party_id IS NULL AS gone FROM old_scores o LEFT JOIN new_scores n USING (party_id)
        WHERE n.party_id IS NULL OR ({content}) IS DISTINCT FROM ({content.replace("o.", "n.")})
    """  # noqa: S608 - fixed column names
    con.execute(f"CREATE OR REPLACE TEMP TABLE replaced_scores AS {replaced}")
    changed, removed = one_row(
        con, "SELECT count(*) FILTER (NOT gone), count(*) FILTER (gone) FROM replaced_scores"
    )
    if changed or removed:
        columns = ", ".join(SCORES.columns)
        con.execute(
            f"INSERT INTO {SCORE_HISTORY.qualified} ({columns}, superseded_at) "  # noqa: S608 - fixed names
            f"SELECT {columns}, $now::TIMESTAMPTZ FROM old_scores SEMI JOIN replaced_scores USING (party_id)",
            {"now": now},
        )
        con.execute(
            "DELETE FROM kycc.scores WHERE batch_id = $batch_id AND scorecard_version = $version "
            "AND party_id IN (SELECT party_id FROM replaced_scores)",
            keys,
        )
    inserted = con.execute(
        f"""
        INSERT INTO {SCORES.qualified} ({", ".join(SCORES.columns)})
        SELECT $batch_id, n.party_id, n.as_of, $version, n.raw_score, n.total_score, n.band, n.decision, n.flags, n.rules,
               n.reasons, n.features, $now::TIMESTAMPTZ
        FROM new_scores n
        WHERE n.party_id NOT IN (SELECT party_id FROM old_scores)
           OR n.party_id IN (SELECT party_id FROM replaced_scores)
        """,  # noqa: S608 - fixed names
        {**keys, "now": now},
    ).fetchone()
    fingerprint, rows = one_row(
        con,
        f"SELECT lower(to_hex(bit_xor(hash({', '.join(CONTENT)})))) || '-' || count(*), count(*) FROM new_scores",  # noqa: S608
    )
    for name in ("new_scores", "old_scores", "replaced_scores"):
        con.execute(f"DROP TABLE temp.{name}")
    added = (inserted[0] if inserted else 0) - changed
    return Written(rows, added, changed, removed, fingerprint)


def mirror_scores(
    con: duckdb.DuckDBPyConnection,
    postgres: psycopg.Connection[Any],
    batch_id: str,
    version: str,
    fingerprint: str,
) -> bool:
    """Bring ``kycc.score_requests`` level with the lake in one PostgreSQL transaction, which also counts the parties that
    were scored, or scored otherwise than before, in ``usage.events``.

    Returns:
        False when the mirror already showed that fingerprint and nothing was written.
    """
    shown = postgres.execute(
        "SELECT fingerprint FROM kycc.score_batches WHERE batch_id = %s AND scorecard_version = %s",
        (batch_id, version),
    ).fetchone()
    if shown and shown[0] == fingerprint:
        return False
    import pyarrow.csv as arrow_csv

    from quayside.foundation import usage
    from quayside.foundation.usage import UsageEvent

    columns = (
        "party_id", "batch_id", "scorecard_version", "as_of", "raw_score", "total_score", "band", "decision", "flags",
        "reasons", "created_at",
    )  # fmt: skip
    rows = con.execute(
        """
        SELECT party_id, batch_id, scorecard_version, strftime(as_of, '%Y-%m-%d %H:%M:%S.%f') || '+00' AS as_of,
               raw_score, total_score, band, decision, '{' || array_to_string(flags, ',') || '}' AS flags,
               '{' || array_to_string(reasons, ',') || '}' AS reasons,
               strftime(created_at, '%Y-%m-%d %H:%M:%S.%f') || '+00' AS created_at
        FROM kycc.scores WHERE batch_id = ? AND scorecard_version = ? ORDER BY party_id
        """,
        [batch_id, version],
    ).to_arrow_reader(100_000)
    names = ", ".join(columns)
    updates = ", ".join(f"{c} = excluded.{c}" for c in columns[3:])
    with postgres.transaction(), postgres.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE incoming (LIKE kycc.score_requests) ON COMMIT DROP")
        with cursor.copy(f"COPY incoming ({names}) FROM STDIN (FORMAT csv)") as copy:
            for batch in rows:
                buffer = io.BytesIO()
                arrow_csv.write_csv(batch, buffer, arrow_csv.WriteOptions(include_header=False))
                copy.write(buffer.getvalue())
        cursor.execute("ANALYZE incoming")
        cursor.execute(
            "DELETE FROM kycc.score_requests s WHERE batch_id = %s AND scorecard_version = %s "
            "AND NOT EXISTS (SELECT FROM incoming i WHERE i.party_id = s.party_id)",
            (batch_id, version),
        )
        cursor.execute(
            f"INSERT INTO kycc.score_requests ({names}) SELECT {names} FROM incoming "  # noqa: S608 - fixed names
            f"ON CONFLICT (party_id, batch_id, scorecard_version) DO UPDATE SET {updates} "
            "WHERE score_requests IS DISTINCT FROM excluded"
        )
        if cursor.rowcount:
            event_id = f"kycc:score:{batch_id}:{version}:{fingerprint}"
            event = UsageEvent(
                event_id, "kycc", "kycc.party_scored", cursor.rowcount, "kycc", datetime.now(UTC)
            )
            usage.append(postgres, [event])
        cursor.execute(
            """
            INSERT INTO kycc.score_batches (batch_id, scorecard_version, as_of, fingerprint, parties_scored, created_at)
            SELECT %(batch)s, %(version)s, max(as_of), %(fingerprint)s, count(*), max(created_at) FROM incoming
            ON CONFLICT (batch_id, scorecard_version) DO UPDATE SET as_of = excluded.as_of,
                fingerprint = excluded.fingerprint, parties_scored = excluded.parties_scored, created_at = excluded.created_at
            """,
            {"batch": batch_id, "version": version, "fingerprint": fingerprint},
        )
    return True


@dataclass(frozen=True)
class ScoreSummary:
    """What a batch's scores look like: counts per band (best first), the mean and a histogram of total scores."""

    parties: int
    mean: float
    lowest: int
    highest: int
    bands: dict[str, int]
    decisions: dict[str, int]
    histogram: dict[int, int]  # lower edge of 25-point bins → parties

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def summarise(con: duckdb.DuckDBPyConnection, batch_id: str, version: str) -> ScoreSummary:
    """Figures of one scored batch, read from the lake."""
    from quayside.kycc.bands import BANDS, DECISIONS

    where = "FROM kycc.scores WHERE batch_id = ? AND scorecard_version = ?"
    keys = [batch_id, version]
    parties, mean, lowest, highest = one_row(
        con,
        f"SELECT count(*), avg(total_score), min(total_score), max(total_score) {where}",
        keys,
    )
    if not parties:
        raise NotFoundError(
            f"Batch {batch_id} has no scores by scorecard {version}. Run scoring_job for it first."
        )
    grouped = {
        column: dict(con.execute(f"SELECT {column}, count(*) {where} GROUP BY 1", keys).fetchall())
        for column in ("band", "decision")
    }
    bins = con.execute(f"SELECT total_score // 25 * 25 AS edge, count(*) {where} GROUP BY 1 ORDER BY 1", keys)
    histogram = dict.fromkeys(range(300, 925, 25), 0) | dict(bins.fetchall())
    return ScoreSummary(
        parties,
        float(mean),
        lowest,
        highest,
        {band: grouped["band"].get(band, 0) for band, _ in BANDS},
        {decision: grouped["decision"].get(decision, 0) for decision in dict.fromkeys(DECISIONS.values())},
        histogram,
    )
