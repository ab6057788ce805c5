"""An exported snapshot: one table at one snapshot as files, for readers that know no DuckLake (Feast, Spark, pandas).

Never the lake's raw data files, which ignore deletes. The old export is replaced as a whole: a Delta export is one
commit of its log; a Parquet export is a new file and a link to it that is exchanged. Files of the last export stay for a
day, for readers that have begun.

Delta is the format to read at any moment. Readers of Parquet (DuckDB and Polars among them) open a path more than once,
so one that may meet an export resolves the link first and reads the file it names; on S3, where there are no links, the
object is replaced whole, and DuckDB notices by its ETag.
"""

from __future__ import annotations

import os
import time
import uuid
from contextlib import closing
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

#: Files of earlier exports are kept this long for readers that have begun.
RETENTION_HOURS: Final = 24
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
        path = Path(target.removeprefix("file://")).expanduser()
        place = str(path.parent.resolve() / path.name)  # the last part is our link
        if format_ == "parquet" and path.exists() and not path.is_symlink():
            raise UsageError(f"{place} exists and is not an export: choose another target.")
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
    link = Path(place)
    versions = link.with_name(f".{link.name}.versions")
    versions.mkdir(parents=True, exist_ok=True)
    new = versions / f"{at.snapshot_id}-{uuid.uuid4().hex}.parquet"
    try:
        rows = copy(str(new))
        _sync(new)
        _exchange(link, new)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    oldest = time.time() - RETENTION_HOURS * 3600
    for file in versions.iterdir():  # older ones, and what killed exports left: the lock keeps others out
        if file != new and file.lstat().st_mtime < oldest:
            file.unlink()
    return rows


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exchange(link: Path, file: Path) -> None:
    new = file.with_suffix(".link")
    new.symlink_to(Path(file.parent.name) / file.name)
    new.replace(link)  # atomic: the name leads to the old file or to the new one


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
        written.vacuum(retention_hours=RETENTION_HOURS, enforce_retention_duration=False, dry_run=False)
    except DeltaError as error:
        raise ServiceUnavailableError(f"{place} cannot be written: {reason(error)}.") from error
    return _delta_rows(written)


def _delta_rows(table: Any) -> int:
    actions = table.get_add_actions(flatten=True)
    return sum(n for n in actions.column("num_records").to_pylist() if n is not None)
