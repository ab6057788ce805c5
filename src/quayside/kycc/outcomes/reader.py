"""Reading outcomes, from a file or a lake table: what they say of themselves, and the raw rows where DuckDB can scan them."""

# ruff: noqa: S608 - table and column names are quoted or constants of the contract; values are bound

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from quayside.foundation.errors import InputError
from quayside.foundation.lake.sql import identifier
from quayside.kycc import tables
from quayside.kycc.ingest.columns import report_unused
from quayside.kycc.ingest.contract import CONTRACT, Field, TableContract
from quayside.kycc.ingest.json_reader import stage
from quayside.kycc.ingest.json_stream import JsonStream, Rows
from quayside.kycc.ingest.lake_reader import SCHEME, digest_of, schema_of
from quayside.kycc.ingest.source import RawTable, Source, digest, identity, moment, shown

if TYPE_CHECKING:
    import duckdb

#: A row is an event with its date, or the verdict of somebody who knows no date.
CONTRACT_OF_OUTCOMES: Final = TableContract(
    tables.OUTCOMES,
    "party_id",
    (
        Field("party_id", "reference", required=True, refers_to="parties"),
        Field("event", "code"),
        Field("event_date", "time"),
        Field("amount", "money"),
        Field("will_default", "flag", aliases=("default_outcome", "label")),
    ),
)

_FORM: Final = "an outcome file is an object with batch_id, observed_through and outcomes"
_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d")


@dataclass(frozen=True)
class OutcomeFile:
    """An outcome file as it was read.

    Attributes:
        batch_id: as the file gives it, None when it gives none.
        observed_through: UTC; of a mere date its last microsecond, since a source that looked through a day has seen it.
        zoned: whether `observed_through` is a date or names its zone.
    """

    source: Source
    batch_id: str | None
    observed_through: datetime
    zoned: bool
    raw: RawTable


def read_outcomes(con: duckdb.DuckDBPyConnection, file: BinaryIO, path: Path, folder: Path) -> OutcomeFile:
    """Stage the rows of an outcome file in `folder`.

    Raises:
        InputError: it is no outcome file; one sentence says why.
    """
    before = identity(file)
    source = Source(shown(path.name, 100), digest(file), dict, unchanged=lambda: identity(file) == before)
    label = source.label
    raw: RawTable | None = None
    header: dict[str, Any] = {}
    unknown: list[str] = []
    for member in JsonStream(file, label, frozenset(CONTRACT) | {"outcomes", "profiles"}):
        if not isinstance(member, Rows):
            if member.key in ("batch_id", "observed_through"):
                header[member.key] = member.value
            else:
                unknown.append(member.key)
        elif member.key == "outcomes":
            raw, keys = stage(con, source, CONTRACT_OF_OUTCOMES, member, file, folder)
            report_unused(source, CONTRACT_OF_OUTCOMES, keys)
        elif member.key in CONTRACT:
            raise InputError(f"{label} holds a batch, not outcomes: load it with `quayside kycc ingest`.")
        else:
            what = "a bare list" if member.key is None else f"a list called {member.key}"
            raise InputError(f"{label} is {what}, which does not say until when was observed: {_FORM}.")
    if unknown:
        source.warnings.append(
            f"Keys that no outcome file has were left out: {', '.join(shown(k, 30) for k in unknown[:10])}."
        )
    if raw is None:
        raise InputError(f"{label} has no list of outcomes: {_FORM}.")
    if not source.unchanged():
        raise InputError(f"{label} changed while it was read: load it again when it is complete.")
    batch_id = header.get("batch_id")
    if batch_id is not None and not isinstance(batch_id, str):
        raise InputError(f"{label} has {shown(batch_id)} as batch_id: it has to be text.")
    through, zoned = _observed_through(header.get("observed_through"), label)
    return OutcomeFile(source, batch_id, through, zoned, raw)


def lake_outcomes(
    con: duckdb.DuckDBPyConnection, name: str, batch_id: str, observed_through: datetime | None
) -> OutcomeFile:
    """Table ``outcomes`` of a lake schema, as DataLoader lands it: the columns of a file's rows, and if it likes batch_id
    and observed_through.

    Raises:
        NotFoundError: the lake has no such schema.
        InputError: it has no such table, or nobody says until when was observed.
    """
    schema, label = schema_of(con, name, shown(SCHEME + name, 100)), shown(f"{SCHEME}{name}.outcomes", 100)
    columns: dict[str, str] = dict(
        con.execute(
            "SELECT column_name, data_type FROM duckdb_columns() WHERE database_name = current_database() "
            "AND schema_name = ? AND table_name = 'outcomes' ORDER BY column_index",
            [schema],
        ).fetchall()
    )
    if not columns:
        raise InputError(f"{label} does not exist: `quayside lake tables` lists what the lake has.")
    source = Source(label, "", dict)
    report_unused(source, CONTRACT_OF_OUTCOMES, set(columns) - {"observed_through"})
    known = {n: t for n, t in columns.items() if n in CONTRACT_OF_OUTCOMES.sources}
    mine = "WHERE batch_id = $batch" if "batch_id" in columns else "WHERE $batch <> ''"
    table = f"{identifier(schema)}.outcomes"
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE raw_outcomes AS SELECT {', '.join(map(identifier, known))} FROM {table} {mine}",
        {"batch": batch_id},
    )
    if observed_through is None and "observed_through" in columns:
        (observed_through,) = con.execute(
            f"SELECT max(observed_through)::TIMESTAMPTZ FROM {table} {mine}", {"batch": batch_id}
        ).fetchall()[0]
    if observed_through is None:
        raise _nobody_says(label)
    raw = RawTable("temp.raw_outcomes", "rowid", known)
    content = f"{digest_of(con, {'outcomes': raw})} {batch_id} {observed_through.isoformat()}"
    source.content_sha256 = hashlib.sha256(content.encode()).hexdigest()
    return OutcomeFile(source, batch_id, observed_through, True, raw)


def _nobody_says(label: str) -> InputError:
    return InputError(
        f"{label} has no observed_through: say until when was observed, or nobody can tell a good party from one whose time "
        "is not over."
    )


def _observed_through(value: object, label: str) -> tuple[datetime, bool]:
    if value is None:
        raise _nobody_says(label)
    parsed, zoned = moment(value, f"observed_through of {label}")
    if isinstance(value, str) and _DAY.fullmatch(value):
        return parsed + timedelta(days=1, microseconds=-1), True
    return parsed, zoned
