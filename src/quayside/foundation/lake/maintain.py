"""Upkeep of the lake, safe beside running readers and writers.

Small files are merged, files of which much is deleted are rewritten, snapshots past their time are expired, and files
that nothing needs any more are removed: those no snapshot refers to, and orphans of writers that died. A writer's files
exist before its commit does, and a reader still needs those of the snapshot it began with. So no file is removed that is
younger than the grace, nor than the oldest transaction open in the catalog's database: DuckLake keeps one open there from
a transaction's first read to its commit.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from quayside.foundation.errors import ConflictError
from quayside.foundation.lake.catalog import tables
from quayside.foundation.lake.session import CATALOG
from quayside.foundation.postgres import advisory_lock, connect

if TYPE_CHECKING:
    import duckdb

    from quayside.foundation.lake.lake import Lake

DEFAULT_KEEP: Final = timedelta(days=7)
DEFAULT_GRACE: Final = timedelta(days=1)

#: Clocks of the database and of the file system may differ by this much; times of files are in whole seconds besides.
_CLOCKS: Final = timedelta(minutes=5)
#: For the server to let go of the lock of an upkeep that has just ended.
_WAIT_SECONDS: Final = 5
#: A file is rewritten when more than this share of its rows is deleted.
_DELETED_SHARE: Final = 0.2


@dataclass
class Upkeep:
    """What was done, or with `dry_run` what would have been (merging is then not simulated).

    `cutoff`: no file younger than this was removed. `held_back_since`: start of the open transaction that moved it.
    """

    dry_run: bool
    cutoff: datetime
    held_back_since: datetime | None
    merged: dict[str, int] = field(default_factory=dict)
    rewritten: dict[str, int] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    expired_snapshots: int = 0
    removed_files: list[str] = field(default_factory=list)
    removed_orphans: list[str] = field(default_factory=list)


def maintain(
    lake: Lake,
    *,
    keep: timedelta = DEFAULT_KEEP,
    grace: timedelta = DEFAULT_GRACE,
    dry_run: bool = False,
) -> Upkeep:
    """Do the upkeep once. `keep`: how long snapshots stay readable; `grace`: how young a file must be to be left
    alone, five minutes at least.

    Tables that other writers keep changing are skipped and named; the next upkeep will do them.

    Raises:
        ConflictError: another upkeep is running.
    """
    with (
        advisory_lock(lake.settings, "quayside.lake.maintain", wait_seconds=_WAIT_SECONDS),
        closing(lake.connect()) as con,
    ):
        now, oldest = _clock(lake)
        safe = (oldest or now) - _CLOCKS
        cutoff = min(now - grace, safe)
        upkeep = Upkeep(dry_run, cutoff, oldest if cutoff == safe else None)
        if not dry_run:
            _compact(lake, con, upkeep)
        upkeep.expired_snapshots = len(_call(con, "ducklake_expire_snapshots", dry_run, now - keep))
        upkeep.removed_files = _call(con, "ducklake_cleanup_old_files", dry_run, cutoff)
        upkeep.removed_orphans = _call(con, "ducklake_delete_orphaned_files", dry_run, cutoff)
    return upkeep


def _clock(lake: Lake) -> tuple[datetime, datetime | None]:
    """The database's time, and when its oldest open transaction began."""
    with connect(lake.settings, autocommit=True) as postgres:
        row = postgres.execute(
            "SELECT now(), (SELECT min(xact_start) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid())"
        ).fetchone()
    assert row is not None
    return row[0], row[1]


def _compact(lake: Lake, con: duckdb.DuckDBPyConnection, upkeep: Upkeep) -> None:
    for state in tables(con):
        schema, _, name = state.table.rpartition(".")
        for function, option, done in (
            ("ducklake_rewrite_data_files", f", delete_threshold => {_DELETED_SHARE}", upkeep.rewritten),
            ("ducklake_merge_adjacent_files", "", upkeep.merged),
        ):
            call = f"CALL {function}(?, ?, schema => ?{option})"

            def work(
                con: duckdb.DuckDBPyConnection, call: str = call, name: str = name, schema: str = schema
            ) -> int:
                return sum(int(row[2]) for row in con.execute(call, [CATALOG, name, schema]).fetchall())

            try:
                files = lake.transaction(work, con)
            except ConflictError:
                upkeep.skipped.append(state.table)
                break
            if files:
                done[state.table] = files


def _call(con: duckdb.DuckDBPyConnection, function: str, dry_run: bool, older_than: datetime) -> list[str]:
    rows = con.execute(
        f"CALL {function}(?, dry_run => ?, older_than => ?)", [CATALOG, dry_run, older_than]
    ).fetchall()
    return [str(row[0]) for row in rows]
