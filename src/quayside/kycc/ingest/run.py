"""`ingest`: from a source to rows in the lake, or one sentence and nothing."""

# ruff: noqa: S608 - table and column names are constants of the contract; values are bound or quoted by `literal`

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Final

import duckdb

from quayside.foundation.errors import InputError, UsageError, sentence
from quayside.kycc import fx
from quayside.kycc.ingest import batch_ids, load
from quayside.kycc.ingest.contract import CONTRACT
from quayside.kycc.ingest.json_reader import open_json
from quayside.kycc.ingest.lake_reader import SCHEME, open_lake
from quayside.kycc.ingest.parquet_reader import open_parquet
from quayside.kycc.ingest.query import Conversion, TableQuery
from quayside.kycc.ingest.result import IngestResult
from quayside.kycc.ingest.source import RawTable, Source, moment, open_file, shown
from quayside.kycc.ingest.validate import Verdict, currencies, rows, shared_tax_ids, validate

#: What DuckDB raises when the input, not the statement, is at fault.
_BAD_INPUT: Final = (
    duckdb.InvalidInputException,
    duckdb.IOException,
    duckdb.ConversionException,
    duckdb.OutOfRangeException,
    duckdb.SerializationException,
)


def ingest(
    lake: load.LakeLike,
    source: Path | str,
    *,
    batch_id: str | None = None,
    max_reject_ratio: float = 0.01,
    replace: bool = False,
    base_currency: str | None = None,
    guard: Callable[[str], AbstractContextManager[object]] | None = None,
    on_progress: Callable[[str], object] | None = None,
) -> IngestResult:
    """Load one batch into the lake.

    Loading the same content again changes nothing. Other content of a batch that is known adds and changes the rows
    that differ; rows it no longer has stay, and are reported, unless `replace`.

    Args:
        lake: has KYCC's tables.
        source: a JSON file, a folder of Parquet files, or ``lake:SCHEMA``.
        batch_id: taken from the source when left out, else it has to be the source's.
        max_reject_ratio: share of a table's rows that may be quarantined before the batch is refused.
        replace: remove the batch's rows that this source has not.
        base_currency: amounts are converted to it. Left out: what the batch had before, else the currency that most
            transactions are in or have rates to.
        guard: called with the batch id, holds off other runs of that batch while this one checks and writes.
        on_progress: called with the name of each step as it begins.

    Raises:
        InputError: the source is no batch, or too much of it cannot be used; nothing is loaded.
        NotFoundError: there is no such file, folder or schema.
    """
    if not 0 <= max_reject_ratio <= 1:
        raise UsageError(f"max_reject_ratio is {max_reject_ratio}: give a share between 0 and 1.")
    if batch_id is not None:
        batch_ids.check(batch_id, "The batch_id asked for")
    if base_currency is not None and not re.fullmatch("[A-Z]{3}", base_currency):
        raise UsageError(f"base_currency is {shown(base_currency)}: give a code of three capital letters.")
    with ExitStack() as opened:
        con = lake.connect()
        opened.callback(con.close)
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="ingest-", dir=_scratch(con))))
        run = _Run(lake, con, replace, base_currency, max_reject_ratio, on_progress or (lambda _step: None))
        with run.step("read"):
            run.source = _open(con, source, folder, opened)
            if known := load.last_load(con, content=run.source.content_sha256):
                batch_ids.must_agree(run.source.label, batch_id, known.batch_id)
                if run.is_current(known):
                    return run.nothing_to_do(known)
            with _input_errors(run.source.label):
                raw = run.source.read()
                batch = batch_ids.resolve(con, run.source, raw, batch_id)
        with (guard or (lambda _batch: nullcontext()))(batch):
            return run.load(str(source), batch, raw)


class _Run:
    """One call of `ingest`, from the opened source on."""

    source: Source

    def __init__(
        self,
        lake: load.LakeLike,
        con: duckdb.DuckDBPyConnection,
        replace: bool,
        base_currency: str | None,
        max_reject_ratio: float,
        on_progress: Callable[[str], object],
    ) -> None:
        self.lake = lake
        self.con = con
        self.replace = replace
        self.base_currency = base_currency
        self.max_reject_ratio = max_reject_ratio
        self.on_progress = on_progress
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        self.on_progress(name)
        started = perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + perf_counter() - started

    def is_current(self, known: load.Known) -> bool:
        """Whether loading this source on top of `known`, which has its content, could change nothing."""
        same_base = self.base_currency in (None, known.base_currency)
        same_rates = not known.rates_sha256 or known.rates_sha256 == fx.rates_digest(
            self.con, known.base_currency or ""
        )
        return (
            known.content_sha256 == self.source.content_sha256
            and same_base
            and same_rates
            and not self.replace
        )

    def nothing_to_do(self, known: load.Known) -> IngestResult:
        result = IngestResult(
            known.batch_id, known.content_sha256, known.as_of, known.base_currency, already_loaded=True
        )
        result.rows_read, result.rows_kept = known.counts["rows_read"], known.counts["rows_kept"]
        result.rows_quarantined = known.counts["rows_quarantined"]
        result.rows_unchanged = dict(result.rows_kept)
        result.seconds = self.seconds
        return result

    def load(self, label: str, batch_id: str, raw: Mapping[str, RawTable]) -> IngestResult:
        """Judge and write, while no other run of this batch does."""
        con, source = self.con, self.source
        known = load.last_load(con, batch_id=batch_id)
        if known and self.is_current(known):
            return self.nothing_to_do(known)
        with self.step("validate"), _input_errors(source.label):
            queries = {
                table: TableQuery(CONTRACT[table], raw[table], f"{table} of {source.label}", batch_id)
                for table in CONTRACT
                if table in raw
            }
            plan = self._conversion(queries, known)
            if "transactions" in queries:
                transactions = queries["transactions"]
                queries["transactions"] = TableQuery(
                    transactions.contract, transactions.raw, transactions.where, batch_id, plan
                )
            result = IngestResult(
                batch_id,
                source.content_sha256,
                self._as_of(queries),
                plan.base if plan else None,
                seconds=self.seconds,
            )
            for table, query in queries.items():
                self.on_progress(f"validate {table}")
                _note(result, table, validate(con, query, with_stored=known is not None and not self.replace))
            result.warnings = [*source.warnings, *_remarks(source, queries, result, con), *result.warnings]
            for table in CONTRACT:  # an absent table and an empty one come to the same
                for counts in (
                    result.rows_read,
                    result.rows_kept,
                    result.rows_quarantined,
                    result.rows_folded,
                ):
                    counts.setdefault(table, 0)
            self._refuse_if_too_bad(queries, result)
        with self.step("write"), _input_errors(source.label):
            rates = fx.rates_digest(con, plan.base) if plan and plan.several else ""
            self._write(label, queries, known, result, rates)
        return result

    def _conversion(self, queries: Mapping[str, TableQuery], known: load.Known | None) -> Conversion | None:
        if "transactions" not in queries:
            return None
        counts = currencies(self.con, queries["transactions"])
        base = self.base_currency or (known.base_currency if known else None)
        if base is None and not counts:
            return None
        base = base or fx.choose_base(self.con, counts, self.max_reject_ratio, self.source.label)
        plan = fx.conversion(self.con, base, counts)
        if plan.several:
            self.source.warnings.append(
                f"Transactions are in {', '.join(sorted(counts)[:20])}; amounts are converted to {base} at the rate of their day."
            )
        return plan

    def _as_of(self, queries: Mapping[str, TableQuery]) -> datetime:
        source = self.source
        if (given := source.header.get("generated_at")) is not None:
            value, zoned = moment(given, f"generated_at of {source.label}")
            if not zoned:
                source.warnings.append("generated_at has no zone; it was taken as UTC.")
            return value
        latest = None
        if "transactions" in queries:
            row = self.con.execute(
                f'SELECT max("ts") FROM ({queries["transactions"].values()}) WHERE "ts" <= now()'
            ).fetchone()
            latest = row[0] if row else None
        if latest is not None:
            source.warnings.append(
                f"{source.label} has no generated_at: features default to its latest transaction."
            )
            return latest.astimezone(UTC)
        source.warnings.append(
            f"{source.label} has no generated_at: features default to the moment of loading."
        )
        return datetime.now(UTC).replace(microsecond=0)

    def _refuse_if_too_bad(self, queries: Mapping[str, TableQuery], result: IngestResult) -> None:
        if not result.rows_read["parties"]:
            raise InputError(f"{self.source.label} has no parties: there is nothing to load.")
        for table in queries:
            bad, read = result.rows_quarantined[table], result.rows_read[table]
            if bad > read * self.max_reject_ratio:
                self.lake.transaction(
                    lambda con: load.record_quarantine(con, queries, result, at_most=load.MAX_REFUSED_ROWS),
                    self.con,
                )
                why = ", ".join(f"{reason} {n:,}" for reason, n in list(result.reasons[table].items())[:5])
                raise InputError(
                    f"Batch {result.batch_id} is refused: {bad:,} of {read:,} {table} of {self.source.label} cannot be "
                    f"used ({why}), more than max_reject_ratio {self.max_reject_ratio:g} allows; `quayside kycc "
                    f"quarantine --batch-id {result.batch_id}` shows them."
                )

    def _write(
        self,
        label: str,
        queries: Mapping[str, TableQuery],
        known: load.Known | None,
        result: IngestResult,
        rates: str,
    ) -> None:
        if known is not None:
            load.find_differences(self.con, queries, result, replace=self.replace)
            if missing := {t: n for t, n in result.rows_missing.items() if n and not self.replace}:
                what = ", ".join(f"{n:,} {table}" for table, n in missing.items())
                result.warnings.append(f"The lake keeps {what} of this batch that the source no longer has.")
            touched = sum(
                sum(c.values()) for c in (result.rows_added, result.rows_changed, result.rows_removed)
            )
            same = known.content_sha256 == result.content_sha256 and known.rates_sha256 == rates
            if not touched and same and known.base_currency == result.base_currency:
                result.already_loaded = True
                return

        def work(con: duckdb.DuckDBPyConnection) -> None:
            if known is None:
                load.insert_all(con, queries, result)
            else:
                load.apply_differences(con, queries, result)
            load.record_quarantine(con, queries, result)
            load.record_load(con, self.source, label, result, rates)
            if not self.source.unchanged():
                raise InputError(
                    f"{self.source.label} changed while it was read: load it again when it is complete."
                )
            self.on_progress("commit")

        if known is None:
            result.rows_added = dict(result.rows_kept)
            result.rows_changed, result.rows_unchanged = dict.fromkeys(queries, 0), dict.fromkeys(queries, 0)
        self.lake.transaction(work, self.con)


def _scratch(con: duckdb.DuckDBPyConnection) -> Path:
    """A folder for staged rows, named like DuckDB's own for this process so that it goes when a killed one's goes."""
    row = con.execute("SELECT current_setting('temp_directory')").fetchone()
    folder = Path(f"{row[0] if row and row[0] else tempfile.gettempdir() + '/quayside'}-ingest")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _open(con: duckdb.DuckDBPyConnection, source: Path | str, folder: Path, opened: ExitStack) -> Source:
    if isinstance(source, str) and source.startswith(SCHEME):
        return open_lake(con, source.removeprefix(SCHEME))
    path = Path(source)
    try:
        is_folder = path.is_dir()
    except (OSError, ValueError) as error:
        raise InputError(f"{shown(str(source))} is no usable path ({error}).") from None
    if is_folder:
        return open_parquet(con, path, folder, opened)
    return open_json(con, opened.enter_context(open_file(path)), path, folder)


def _note(result: IngestResult, table: str, verdict: Verdict) -> None:
    result.rows_read[table] = verdict.read
    result.rows_kept[table] = verdict.kept
    result.rows_quarantined[table] = verdict.quarantined
    result.rows_folded[table] = verdict.folded
    result.reasons[table] = verdict.reasons
    result.warnings += verdict.notes
    if verdict.quarantined:
        why = ", ".join(f"{reason} {n:,}" for reason, n in verdict.reasons.items())
        result.warnings.append(
            f"{table.capitalize()}: quarantined {verdict.quarantined:,} of {rows(verdict.read)} ({why})."
        )


def _remarks(
    source: Source, queries: Mapping[str, TableQuery], result: IngestResult, con: duckdb.DuckDBPyConnection
) -> Iterator[str]:
    stated = source.header.get("counts")
    if isinstance(stated, dict):
        for table in CONTRACT:
            says, has = stated.get(table), result.rows_read.get(table, 0)
            if isinstance(says, int) and says != has:
                yield f"{source.label} says it has {says:,} {table} and has {has:,}."
    if absent := [table for table in CONTRACT if table not in queries]:
        yield f"{source.label} has no {', '.join(absent)}."
    if shared := shared_tax_ids(con, queries["parties"]):
        yield f"Parties: {shared:,} have their tax_id in common with another; they stay parties of their own."


@contextmanager
def _input_errors(label: str) -> Iterator[None]:
    try:
        yield
    except _BAD_INPUT as error:
        raise InputError(
            f"{label} cannot be read to its end ({shown(sentence(error), 160)}): write or copy it again."
        ) from error
