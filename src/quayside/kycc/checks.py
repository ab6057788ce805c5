"""What must hold of a batch after each step, asked of the stored rows themselves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from quayside.foundation.statements import one_row
from quayside.kycc.bands import BANDS, SCORE_MAX, SCORE_MIN

if TYPE_CHECKING:
    from datetime import datetime

    import duckdb
    import psycopg


@dataclass
class Findings:
    """Outcome of one check: figures anyone may want to see, and the rules that were broken, a sentence each."""

    figures: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.problems

    @property
    def sentence(self) -> str:
        return " ".join(self.problems) or "Holds."

    def expect(self, holds: bool, problem: str) -> None:
        """Note `problem` unless the rule holds."""
        if not holds:
            self.problems.append(problem)


def counts(con: duckdb.DuckDBPyConnection, batch_id: str) -> Findings:
    """The batch has parties, its keys are unique, and no row points to a party that is not there."""
    found = Findings()
    for table, key in (
        ("parties", "party_id"),
        ("accounts", "account_id"),
        ("transactions", "txn_id"),
        ("relationships", "relationship_id"),
    ):
        # An exact distinct count of a hundred million ids costs gigabytes; a 64-bit hash of each is as telling.
        rows, keys = one_row(
            con,
            f"SELECT count(*), count(DISTINCT hash({key})) FROM kycc.{table} WHERE batch_id = ?",  # noqa: S608
            [batch_id],
        )
        found.figures[table] = rows
        found.expect(rows == keys, f"{rows - keys} rows of {table} repeat another row's {key}.")
    found.expect(found.figures["parties"] > 0, f"Batch {batch_id} has no parties.")
    for table, column in (
        ("accounts", "party_id"),
        ("transactions", "party_id"),
        ("relationships", "from_party_id"),
        ("relationships", "to_party_id"),
    ):
        (dangling,) = one_row(
            con,
            f"SELECT count(*) FROM kycc.{table} t WHERE batch_id = $batch AND NOT EXISTS "  # noqa: S608
            f"(FROM kycc.parties p WHERE p.batch_id = $batch AND p.party_id = t.{column})",
            {"batch": batch_id},
        )
        found.expect(
            dangling == 0, f"{dangling} rows of {table} name a {column} that is no party of the batch."
        )
    return found


def feature_ranges(con: duckdb.DuckDBPyConnection, batch_id: str, as_of: datetime) -> Findings:
    """Every feature lies in the range its definition states."""
    from quayside.kycc.features import validate

    found = Findings()
    violations = validate(con, batch_id, as_of)
    found.figures["features_out_of_range"] = len(violations)
    for v in violations:
        found.problems.append(
            f"{v.feature} is out of its range ({v.rule}) for {v.rows} parties, for example {v.party_id}."
        )
    return found


def scores(
    con: duckdb.DuckDBPyConnection, postgres: psycopg.Connection[Any], batch_id: str, version: str
) -> Findings:
    """Every party with features has one score, on the scale and in its band, and PostgreSQL shows the same scores."""
    found = Findings()
    floors = " ".join(f"WHEN total_score >= {floor} THEN '{band}'" for band, floor in BANDS)
    rows, parties, off_scale, wrong_band, total = one_row(
        con,
        f"""
        SELECT count(*), count(DISTINCT party_id), count(*) FILTER (total_score NOT BETWEEN {SCORE_MIN} AND {SCORE_MAX}),
               count(*) FILTER (band <> CASE {floors} END), coalesce(sum(total_score), 0)::BIGINT
        FROM kycc.scores WHERE batch_id = ? AND scorecard_version = ?
        """,  # noqa: S608 - constants of the band table
        [batch_id, version],
    )
    (expected,) = one_row(
        con,
        "SELECT count(*) FROM kycc.features f SEMI JOIN (SELECT batch_id, as_of FROM kycc.stages "
        "WHERE stage = 'scores' AND scorecard_version = $version) USING (batch_id, as_of) WHERE f.batch_id = $batch",
        {"batch": batch_id, "version": version},
    )
    mirrored = postgres.execute(
        "SELECT count(*), coalesce(sum(total_score), 0) FROM kycc.score_requests "
        "WHERE batch_id = %s AND scorecard_version = %s",
        (batch_id, version),
    ).fetchone()
    found.figures |= {
        "scores": rows,
        "parties_with_features": expected,
        "scores_in_postgres": mirrored and mirrored[0],
    }
    found.expect(rows == parties, f"{rows - parties} parties have more than one score.")
    found.expect(rows == expected, f"{expected} parties have features but {rows} have a score.")
    found.expect(off_scale == 0, f"{off_scale} scores are not between {SCORE_MIN} and {SCORE_MAX}.")
    found.expect(wrong_band == 0, f"{wrong_band} scores stand in a band that is not theirs.")
    found.expect(
        mirrored == (rows, total), "PostgreSQL does not show the scores of the lake; run scoring_job again."
    )
    return found
