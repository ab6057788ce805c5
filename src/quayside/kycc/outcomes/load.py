"""`load_outcomes`: from an outcome file to facts in the lake, or one sentence and nothing.

The lake holds the union of what the files of a batch said. So the order of loading does not matter, loading a file again
changes nothing, and a later file that observed longer extends what is known.
"""

# ruff: noqa: S608 - table and column names are constants of the contract; values are bound or quoted by `literal`

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from quayside.foundation.errors import InputError, NotFoundError, UsageError
from quayside.foundation.statements import one_row
from quayside.kycc import tables
from quayside.kycc.ingest import IngestResult, batch_ids, load
from quayside.kycc.ingest.lake_reader import SCHEME
from quayside.kycc.ingest.query import TableQuery
from quayside.kycc.ingest.source import open_file
from quayside.kycc.ingest.validate import rows
from quayside.kycc.outcomes.judge import judge
from quayside.kycc.outcomes.reader import CONTRACT_OF_OUTCOMES, OutcomeFile, lake_outcomes, read_outcomes
from quayside.kycc.outcomes.result import OutcomeResult

if TYPE_CHECKING:
    import duckdb

_COLUMNS: Final = ", ".join(tables.OUTCOMES.columns)


def load_outcomes(
    lake: load.LakeLike,
    source: Path | str,
    *,
    batch_id: str | None = None,
    observed_through: datetime | None = None,
    max_reject_ratio: float = 0.01,
    replace: bool = False,
    guard: Callable[[str], AbstractContextManager[object]] | None = None,
) -> OutcomeResult:
    """Load what became of the parties of one batch.

    Args:
        lake: has KYCC's tables and the batch.
        source: an outcome file, or ``lake:SCHEMA`` with a table ``outcomes``.
        batch_id: taken from the file when left out, else it has to be the file's; a lake table needs it.
        observed_through: of a lake table that has no such column; a file says it itself.
        max_reject_ratio: share of the rows that may be quarantined before the file is refused.
        replace: forget what earlier outcome files of the batch said.
        guard: called with the batch id, holds off other runs of that batch while this one checks and writes.

    Raises:
        InputError: it is no outcome file, or too much of it cannot be used; nothing is loaded.
        NotFoundError: there is no such file, or the lake has no such batch.
    """
    if not 0 <= max_reject_ratio <= 1:
        raise UsageError(f"max_reject_ratio is {max_reject_ratio}: give a share between 0 and 1.")
    if observed_through is not None and observed_through.utcoffset() is None:
        raise UsageError(
            f"observed_through {observed_through.isoformat()} has no zone: give an instant, e.g. with +00:00."
        )
    with ExitStack() as opened:
        con = lake.connect()
        opened.callback(con.close)
        if str(source).startswith(SCHEME):
            if batch_id is None:
                raise UsageError(f"{source} may hold outcomes of many batches: say of which (batch_id).")
            found = lake_outcomes(con, str(source).removeprefix(SCHEME), batch_id, observed_through)
        else:
            if observed_through is not None:
                raise UsageError(
                    "An outcome file says itself through when was observed: leave observed_through out."
                )
            path = Path(source)
            folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="outcomes-")))
            found = read_outcomes(con, opened.enter_context(open_file(path)), path, folder)
        batch = _batch_of(found, batch_id)
        with (guard or (lambda _batch: nullcontext()))(batch):
            return _load(lake, con, found, str(source), batch, max_reject_ratio, replace)


def _batch_of(found: OutcomeFile, asked: str | None) -> str:
    label = found.source.label
    batch = found.batch_id or asked
    if batch is None:
        raise InputError(f"{label} names no batch_id: say of which batch these outcomes are (batch_id).")
    batch_ids.check(batch, f"The batch_id of {label}")
    batch_ids.must_agree(label, asked, batch)
    return batch


def _load(
    lake: load.LakeLike,
    con: duckdb.DuckDBPyConnection,
    found: OutcomeFile,
    label: str,
    batch: str,
    max_reject_ratio: float,
    replace: bool,
) -> OutcomeResult:
    source = found.source
    known = load.last_load(con, batch_id=batch)
    if known is None:
        raise NotFoundError(
            f"{source.label} has outcomes of batch {batch}, which is not loaded: run `quayside kycc ingest` for it first."
        )
    if found.observed_through <= known.as_of:
        raise InputError(
            f"{source.label} was observed through {found.observed_through:%Y-%m-%d %H:%M:%S} UTC, and batch {batch} is as of "
            f"{known.as_of:%Y-%m-%d %H:%M:%S} UTC: nothing can have been seen yet, correct observed_through."
        )
    result = OutcomeResult(batch, source.content_sha256, found.observed_through, warnings=source.warnings)
    before, files, same, covers = one_row(
        con,
        "SELECT max(observed_through) FILTER (covers = 'batch'), count(*), count(*) FILTER (content_sha256 = $content), "
        "any_value(covers) FILTER (content_sha256 = $content) "
        f"FROM {tables.OUTCOME_FILES.qualified} WHERE batch_id = $batch",
        {"batch": batch, "content": source.content_sha256},
    )
    result.observed_before = before
    if same and not (replace and files > 1):
        result.already_loaded, result.covers = True, covers
        return result
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE ids_parties AS SELECT party_id AS id FROM {tables.PARTIES.qualified} WHERE batch_id = ?",
        [batch],
    )
    query = TableQuery(CONTRACT_OF_OUTCOMES, found.raw, f"outcomes of {source.label}", batch)
    judge(con, query, found, result)
    quarantined = IngestResult(
        batch, source.content_sha256, known.as_of, rows_quarantined={"outcomes": result.rows_quarantined}
    )
    if result.rows_quarantined > result.rows_read * max_reject_ratio:
        lake.transaction(
            lambda con: load.record_quarantine(
                con, {"outcomes": query}, quarantined, at_most=load.MAX_REFUSED_ROWS
            ),
            con,
        )
        why = ", ".join(f"{reason} {n:,}" for reason, n in list(result.reasons.items())[:5])
        raise InputError(
            f"The outcomes of {source.label} are refused: {result.rows_quarantined:,} of {rows(result.rows_read)} cannot be "
            f"used ({why}), more than max_reject_ratio {max_reject_ratio:g} allows; `quayside kycc quarantine --batch-id "
            f"{batch}` shows them."
        )
    _collect(con, query, found, known, result)

    def write(con: duckdb.DuckDBPyConnection) -> None:
        _write(con, label, result, replace)
        if result.rows_quarantined:
            load.record_quarantine(con, {"outcomes": query}, quarantined)

    lake.transaction(write, con)
    _report(result, replace)
    return result


def _collect(
    con: duckdb.DuckDBPyConnection,
    query: TableQuery,
    found: OutcomeFile,
    known: load.Known,
    result: OutcomeResult,
) -> None:
    """The facts of the usable rows, in temporary table ``new_outcomes``."""
    con.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE usable AS
        SELECT party_id, event, event_date, amount, will_default FROM ({query.values()})
        WHERE position NOT IN (SELECT position FROM bad_outcomes)
        """
    )
    distinct, result.verdicts, earlier = one_row(
        con,
        "SELECT count(*), count(*) FILTER (will_default IS NOT NULL), count(*) FILTER (event_date <= $as_of) "
        "FROM (SELECT DISTINCT * FROM usable)",
        {"as_of": known.as_of},
    )
    result.rows_folded, result.rows_kept = result.rows_kept - distinct, distinct
    result.covers = "listed" if result.verdicts else "batch"
    if result.rows_folded:
        result.warnings.append(
            f"Outcomes: exact copies of other rows, left out ({rows(result.rows_folded)})."
        )
    if earlier:
        result.warnings.append(
            f"Outcomes: events at or before the batch's moment {known.as_of:%Y-%m-%d %H:%M:%S} UTC, which are no outcomes of "
            f"it and make no label ({rows(earlier)})."
        )
    if not result.rows_read:
        result.warnings.append(
            f"{found.source.label} has no outcomes: every party of batch {result.batch_id} counts as free of events through "
            f"{found.observed_through:%Y-%m-%d}."
        )
    # Of a party that a list names with an event, the list also says until when it was observed.
    con.execute(
        """
        CREATE OR REPLACE TEMP TABLE new_outcomes AS
        SELECT $batch AS batch_id, party_id, event, event_date, amount, NULL::TINYINT AS will_default,
               NULL::TIMESTAMPTZ AS observed_through
        FROM usable WHERE event IS NOT NULL
        UNION
        SELECT $batch, party_id, NULL, NULL, NULL, CASE WHEN event IS NULL THEN will_default END, $through::TIMESTAMPTZ
        FROM usable WHERE $listed
        """,
        {
            "batch": result.batch_id,
            "through": found.observed_through,
            "listed": result.covers == "listed",
        },
    )
    (result.events,) = one_row(con, "SELECT count(*) FROM new_outcomes WHERE event IS NOT NULL")


def _write(con: duckdb.DuckDBPyConnection, label: str, result: OutcomeResult, replace: bool) -> None:
    """Add what the lake does not have, inside the caller's transaction."""
    batch = {"batch": result.batch_id}
    stored = f"SELECT {_COLUMNS} FROM {tables.OUTCOMES.qualified} WHERE batch_id = $batch"
    (result.missing,) = one_row(
        con,
        f"SELECT count(*) FROM ({stored} AND event_date <= $through EXCEPT SELECT {_COLUMNS} FROM new_outcomes)",
        {**batch, "through": result.observed_through},
    )
    (result.added,) = one_row(
        con, f"SELECT count(*) FROM (SELECT {_COLUMNS} FROM new_outcomes EXCEPT {stored})", batch
    )
    if replace:
        (result.removed,) = one_row(
            con, f"SELECT count(*) FROM ({stored} EXCEPT SELECT {_COLUMNS} FROM new_outcomes)", batch
        )
        for table in (tables.OUTCOMES, tables.OUTCOME_FILES):
            con.execute(f"DELETE FROM {table.qualified} WHERE batch_id = $batch", batch)
    con.execute(
        f"INSERT INTO {tables.OUTCOMES.qualified} ({_COLUMNS}) SELECT {_COLUMNS} FROM new_outcomes EXCEPT {stored}",
        batch,
    )
    con.execute(
        f"INSERT INTO {tables.OUTCOME_FILES.qualified} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            result.batch_id,
            result.content_sha256,
            label,
            result.observed_through,
            result.covers,
            result.rows_read,
            result.rows_kept,
            result.rows_quarantined,
            datetime.now(UTC),
        ],
    )


def _report(result: OutcomeResult, replace: bool) -> None:
    if result.extends:
        result.warnings.append(
            f"Batch {result.batch_id} is now observed through {result.observed_through:%Y-%m-%d}, before through "
            f"{result.observed_before:%Y-%m-%d}; its labels follow with the next `quayside kycc labels`."
        )
    if result.missing and result.covers == "batch" and not replace:
        result.warnings.append(
            f"The lake keeps {result.missing:,} events of batch {result.batch_id} that this file does not have."
        )
