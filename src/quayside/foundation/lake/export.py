"""An exported snapshot: one table at one snapshot as files, for readers that know no DuckLake (Feast, Spark, pandas).

Never the lake's raw data files, which ignore deletes. The old export is replaced as a whole: a Parquet export is one
file, renamed or uploaded into place when complete; a Delta export is one commit of its log. A reader that has one
open keeps reading what it opened.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

import duckdb

from quayside.foundation.errors import InputError, ServiceUnavailableError, UsageError
from quayside.foundation.lake import session
from quayside.foundation.lake.catalog import TableAt, resolve
from quayside.foundation.lake.sql import identifier, literal, reason
from quayside.foundation.lake.types import for_delta
from quayside.foundation.objects import S3Access
from quayside.foundation.postgres import advisory_lock

if TYPE_CHECKING:
    from quayside.foundation.lake.lake import Lake
    from quayside.foundation.settings import Settings

Format = Literal["parquet", "delta"]

#: Files of earlier Delta exports are kept this long for readers that have begun.
DELTA_RETENTION_HOURS: Final = 24
_BATCH_ROWS: Final = 122_880


@dataclass(frozen=True)
class Export:
    """What was written where: `rows` rows of `table` as they were at `snapshot_id`."""

    table: str
    snapshot_id: int
    format: Format
    target: str
    rows: int


def export_table(
    lake: Lake,
    table: str,
    *,
    format: Format = "parquet",
    target: str | None = None,
    snapshot_id: int | None = None,
) -> Export:
    """Write ``schema.table`` at a snapshot (default: the current one) to a file, a folder or an ``s3://`` address.

    Parquet makes one file, by default ``exports/<schema>.<table>.parquet`` in QUAYSIDE_HOME; Delta makes a folder, by
    default ``exports/<schema>.<table>``. Exports to one target wait for each other.

    Raises:
        NotFoundError: no such table or snapshot.
        UsageError: the target is inside the lake, or holds something that is not such an export.
        InputError: a value does not fit the format.
        ServiceUnavailableError: the target cannot be written.
    """
    place = _place(lake.settings, table, format, target)
    with (
        advisory_lock(lake.settings, f"quayside.lake.export:{place}"),
        closing(lake.connect(read_only=True)) as con,
    ):
        if place.startswith("s3://") and not lake.settings.lake_data_path.startswith("s3://"):
            session.enable_s3(con, lake.settings)
        at = resolve(con, table, snapshot_id)
        write = _write_parquet if format == "parquet" else _write_delta
        try:
            rows = write(con, at, place, lake.settings)
        except (duckdb.IOException, OSError) as error:
            raise ServiceUnavailableError(f"{place} cannot be written: {reason(error)}.") from error
        except duckdb.Error as error:
            raise InputError(f"{at.qualified} cannot be exported: {reason(error)}.") from error
    return Export(at.qualified, at.snapshot_id, format, place, rows)


def _place(settings: Settings, table: str, format_: Format, target: str | None) -> str:
    if target is None:
        target = str(settings.home / "exports" / (table + (".parquet" if format_ == "parquet" else "")))
    if target.startswith("s3://"):
        if not urlsplit(target).netloc or not urlsplit(target).path.strip("/"):
            raise UsageError(f"{target} names no place in a bucket: give s3://bucket/prefix/name.")
        place = target.rstrip("/")
    elif "://" in target and not target.startswith("file://"):
        raise UsageError(f"{target} is neither a path nor s3://bucket/name.")
    else:
        place = str(Path(target.removeprefix("file://")).expanduser().resolve())
        if format_ == "parquet" and Path(place).is_dir():
            raise UsageError(f"{place} is a folder: a Parquet export is one file, give its name.")
        if format_ == "delta" and _is_foreign(Path(place)):
            raise UsageError(f"{place} exists and is not a Delta table: choose another target.")
    data = settings.lake_data_path
    inside = data if data.startswith("s3://") else str(Path(data).resolve())
    if f"{place}/".startswith(f"{inside}/") or f"{inside}/".startswith(f"{place}/"):
        raise UsageError(f"{place} overlaps the lake's own data in {inside}: choose another target.")
    return place


def _is_foreign(folder: Path) -> bool:
    if not folder.exists():
        return False
    return not folder.is_dir() or (any(folder.iterdir()) and not (folder / "_delta_log").is_dir())


def _write_parquet(con: duckdb.DuckDBPyConnection, at: TableAt, place: str, settings: Settings) -> int:
    def copy(path: str) -> int:
        # One file from all threads: two threads write 10 M rows in about the time of two files.
        row = con.execute(
            f"COPY (FROM {at.relation}) TO {literal(path)} (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, "
            f"KV_METADATA {{quayside_table: {literal(at.qualified)}, quayside_snapshot: '{at.snapshot_id}'}})"
        ).fetchone()
        assert row is not None
        return int(row[0])

    if place.startswith("s3://"):
        return copy(place)  # a multipart upload: the object appears when it is complete
    with _replaced(Path(place)) as new:
        return copy(str(new))


@contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """A name to write to, which takes the place of `path` when the block succeeds and vanishes when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.name}."
    for left in path.parent.glob(f"{prefix}*.new"):  # of a killed export; the lock keeps others out
        left.unlink()
    new = path.with_name(f"{prefix}{uuid.uuid4().hex}.new")
    try:
        yield new
        descriptor = os.open(new, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _write_delta(con: duckdb.DuckDBPyConnection, at: TableAt, place: str, settings: Settings) -> int:
    from deltalake import CommitProperties, DeltaTable, write_deltalake
    from deltalake.exceptions import DeltaError

    selected = ", ".join(
        f"{for_delta(name, type_)} AS {identifier(name)}" for name, type_ in at.columns.items()
    )
    reader = con.execute(f"SELECT {selected} FROM {at.relation}").to_arrow_reader(_BATCH_ROWS)  # noqa: S608  quoted
    options = S3Access.of(settings).options() if place.startswith("s3://") else None
    provenance = {"quayside_table": at.qualified, "quayside_snapshot": str(at.snapshot_id)}
    try:
        write_deltalake(
            place,
            reader,
            mode="overwrite",
            schema_mode="overwrite",
            storage_options=options,
            commit_properties=CommitProperties(custom_metadata=provenance),
        )
        written = DeltaTable(place, storage_options=options)
        written.vacuum(retention_hours=DELTA_RETENTION_HOURS, enforce_retention_duration=False, dry_run=False)
    except DeltaError as error:
        raise ServiceUnavailableError(f"{place} cannot be written: {reason(error)}.") from error
    return _delta_rows(written)


def _delta_rows(table: Any) -> int:
    actions = table.get_add_actions(flatten=True)
    return sum(n for n in actions.column("num_records").to_pylist() if n is not None)
