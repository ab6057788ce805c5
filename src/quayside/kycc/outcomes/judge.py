"""Judging the rows of an outcome file: which are used, which go to quarantine and why, and what is worth a note."""
# ruff: noqa: S608 - table and column names are constants of the contract; values are bound or quoted by `literal`

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from quayside.foundation.lake.sql import literal
from quayside.foundation.statements import one_row
from quayside.kycc.ingest.decode import Check
from quayside.kycc.ingest.query import TableQuery
from quayside.kycc.ingest.validate import rows
from quayside.kycc.outcomes.reader import OutcomeFile
from quayside.kycc.outcomes.result import OutcomeResult

if TYPE_CHECKING:
    import duckdb

_BLANK: Final = "(raw_{0} IS NULL OR trim(text_{0}) = '')"
_ZONELESS: Final = " without a zone, taken as UTC"


def judge(
    con: duckdb.DuckDBPyConnection, query: TableQuery, found: OutcomeFile, result: OutcomeResult
) -> None:
    """Temporary table ``bad_outcomes`` (position, reason, detail), and what is to be said of the rows."""
    through = literal(found.observed_through.isoformat())
    event, date = _BLANK.format("event"), _BLANK.format("event_date")
    checks = [
        *query.checks,
        Check("missing_value", f"{event} AND raw_will_default IS NULL", "'event or will_default'"),
        Check("missing_value", f"NOT {event} AND {date}", "'event_date'"),
        Check("contradiction", f'NOT {event} AND "will_default" = 0', "'an event, and will_default 0'"),
        Check(
            "impossible_date",
            f'"event_date" > TIMESTAMPTZ {through}',
            "'event_date after observed_through: ' || coalesce(text_event_date, raw_event_date::VARCHAR)",
        ),
    ]
    problems = ", ".join(
        f"CASE WHEN {c.when} THEN {{'reason': {literal(c.reason)}, 'detail': {c.detail}}} END" for c in checks
    )
    con.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE bad_outcomes AS
        SELECT position, problem.reason AS reason, problem.detail AS detail
        FROM (SELECT position, unnest(list_filter([{problems}], lambda x: x IS NOT NULL)) AS problem FROM ({query.judged()}))
        UNION ALL
        SELECT position, 'contradiction', 'will_default both 0 and 1' FROM ({query.values()})
        WHERE "will_default" IS NOT NULL
        QUALIFY min("will_default") OVER (PARTITION BY party_id) <> max("will_default") OVER (PARTITION BY party_id)
        """
    )
    result.reasons = dict(
        con.execute(
            "SELECT reason, count(DISTINCT position) AS n FROM bad_outcomes GROUP BY ALL ORDER BY n DESC, reason"
        ).fetchall()
    )
    result.rows_read, result.rows_quarantined = one_row(
        con,
        f"SELECT count(*), (SELECT count(DISTINCT position) FROM bad_outcomes) FROM {found.raw.relation}",
    )
    result.rows_kept = result.rows_read - result.rows_quarantined
    notes = query.notes
    counts = one_row(
        con,
        f"SELECT {', '.join(f'count(*) FILTER ({n.when})' for n in notes)} FROM ({query.judged()}) "
        "WHERE position NOT IN (SELECT position FROM bad_outcomes)",
    )
    zoneless = [] if found.zoned else ["observed_through"]
    for note, n in zip(notes, counts, strict=True):
        if n and note.what.endswith(_ZONELESS):
            zoneless.append(f"{note.what.removesuffix(_ZONELESS)} ({rows(n)})")
        elif n:
            result.warnings.append(f"Outcomes: {note.what} ({rows(n)}).")
    if zoneless:
        result.warnings.append(f"Outcomes: times without a zone were taken as UTC: {', '.join(zoneless)}.")
    if result.reasons:
        why = ", ".join(f"{reason} {n:,}" for reason, n in result.reasons.items())
        result.warnings.append(
            f"Outcomes: quarantined {result.rows_quarantined:,} of {rows(result.rows_read)} ({why})."
        )
