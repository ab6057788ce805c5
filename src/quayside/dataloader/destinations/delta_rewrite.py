"""Changing rows of a Delta table: files that lose a row are written anew without it, all others stay.

Rows are known by their file and their place in it. Belongs here: merge and removal as files. Does not belong here:
commits, and what a strategy makes of a key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

from quayside.dataloader.destinations.delta_commit import Change, Place
from quayside.dataloader.destinations.delta_files import FILE_COLUMN, ROW_COLUMN, relation
from quayside.dataloader.destinations.delta_types import duckdb_columns
from quayside.dataloader.destinations.destination import DELETED_AT, IS_DELETE, Removed, Written
from quayside.dataloader.errors import CountMismatchError
from quayside.foundation.lake.sql import identifier, literal

if TYPE_CHECKING:
    from quayside.dataloader.destinations.delta_files import FileSet
    from quayside.dataloader.destinations.delta_log import DataFile, Snapshot

_PLACE = f"{FILE_COLUMN}, {ROW_COLUMN}"


class Rewrite:
    """Work on one snapshot. `columns` are the table's afterwards: wider or more than they were, never fewer.

    `_dropped` holds the places of rows that leave their files, to go or to be replaced; `_inserts` the queries that give
    what comes instead.
    """

    def __init__(self, place: Place, base: Snapshot, columns: Mapping[str, str], prefix: str) -> None:
        self._con = place.con
        self._url = place.log.url
        self._base = base
        self._columns = columns
        self._prefix = prefix
        self._target = self._relation(base.files)
        self._dropped = f"{prefix}_dropped"
        self._inserts: list[str] = []
        self._inserted = self._updated = self._deleted = self._marked = 0
        self._con.execute(f"CREATE TEMP TABLE {self._dropped} ({FILE_COLUMN} VARCHAR, {ROW_COLUMN} BIGINT)")

    def append(self, select: str, given: Sequence[str]) -> None:
        """New rows, whatever is stored."""
        staged = self._stage(select)
        self._inserted += self._count(staged)
        self._inserts.append(f"SELECT {self._new_row(given)} FROM {staged} s")  # noqa: S608  quoted

    def merge(self, select: str, given: Sequence[str], key: Sequence[str], *, compare: bool) -> None:
        """New rows take the place of stored ones of their key; columns that are not given keep their values.

        With `compare`, rows that are stored as they are already stay in their files.
        """
        staged = self._stage(select)
        keys = {name.lower() for name in key}
        others = [identifier(name) for name in given if name.lower() not in keys]
        differs = " OR ".join(f"t.{name} IS DISTINCT FROM s.{name}" for name in others) or "false"
        found = f"{self._prefix}_found"
        self._con.execute(
            f"CREATE TEMP TABLE {found} AS SELECT t.{FILE_COLUMN}, t.{ROW_COLUMN}, s.rowid AS staged_row, "  # noqa: S608
            f"{f'({differs})' if compare else 'true'} AS differs FROM {self._target} t JOIN {staged} s ON {_on(key, 's')}"
        )
        met = self._count(f"(SELECT DISTINCT staged_row FROM {found})")  # noqa: S608  quoted
        if met != self._count(found):
            raise CountMismatchError(
                f"{self._url} holds a key ({', '.join(key)}) more than once. Nothing was committed: correct "
                "primary_key_cols, or load the table in full."
            )
        self._drop(f"SELECT {_PLACE} FROM {found} WHERE differs")  # noqa: S608  quoted
        updated = self._count(found, "differs")
        inserted = self._count(f"(FROM {staged} s ANTI JOIN {found} f ON s.rowid = f.staged_row)")
        self._updated += updated
        self._inserted += inserted
        if inserted:
            self._inserts.append(
                f"SELECT {self._new_row(given)} FROM {staged} s "  # noqa: S608  quoted
                f"ANTI JOIN {found} f ON s.rowid = f.staged_row"
            )
        if updated:
            names = {name.lower() for name in given}
            listed = self._row(lambda name: ("s." if name.lower() in names else "t.") + identifier(name))
            kept = any(name.lower() not in names for name in self._columns)
            stored = f" JOIN {self._target} t USING ({_PLACE})" if kept else ""
            self._inserts.append(
                f"SELECT {listed} FROM {found} f JOIN {staged} s ON s.rowid = f.staged_row{stored} WHERE f.differs"  # noqa: S608
            )

    def remove(self, removed: Removed, key: Sequence[str]) -> None:
        """Stored rows of these keys go, or are marked where they are not marked already."""
        gone = f"{self._prefix}_gone"
        live = "" if removed.at is None else f" WHERE t.{identifier(IS_DELETE)} IS NOT TRUE"
        self._con.execute(
            f"CREATE TEMP TABLE {gone} AS SELECT t.{FILE_COLUMN}, t.{ROW_COLUMN} FROM {self._target} t "  # noqa: S608
            f"SEMI JOIN {removed.keys} k ON {_on(key, 'k')}{live}"
        )
        self._drop(f"SELECT {_PLACE} FROM {gone}")  # noqa: S608  quoted
        self._deleted += (count := self._count(gone))
        if removed.at is not None and count:
            self._marked += count
            marks = {IS_DELETE: "true", DELETED_AT: f"{literal(removed.at.isoformat())}::TIMESTAMPTZ"}
            listed = self._row(lambda name: marks.get(name.lower(), f"t.{identifier(name)}"))
            self._inserts.append(f"SELECT {listed} FROM {self._target} t SEMI JOIN {gone} g USING ({_PLACE})")  # noqa: S608

    def write(self, files: FileSet) -> Change:
        """Write the new files: what stays of those that lose a row, and what comes instead."""
        touched = self._touched()
        stays = sum(file.rows for file in touched) - self._count(self._dropped)
        selects = list(self._inserts)
        if stays:
            kept = self._relation(touched)
            listed = self._row(lambda name: f"t.{identifier(name)}")
            selects.append(f"SELECT {listed} FROM {kept} t ANTI JOIN {self._dropped} d USING ({_PLACE})")  # noqa: S608
        rows = stays + self._inserted + self._updated + self._marked
        if selects:
            files.write(" UNION ALL ".join(selects), self._columns, rows)
        return Change(
            "MERGE",
            self._columns,
            rows,
            Written(self._inserted, self._updated, self._deleted),
            remove=touched,
        )

    def _stage(self, select: str) -> str:
        """Keep new rows, since they are read more than once."""
        staged = f"{self._prefix}_staged"
        self._con.execute(f"CREATE TEMP TABLE {staged} AS {select}")
        return staged

    def _drop(self, places: str) -> None:
        self._con.execute(f"INSERT INTO {self._dropped} {places}")

    def _touched(self) -> list[DataFile]:
        """Files to write anew: all of them where a column's type has changed, since a file has the table's types."""
        before = duckdb_columns(self._base.schema)
        if any(self._columns[name] != type_ for name, type_ in before.items()):
            return list(self._base.files)
        paths = self._con.execute(f"SELECT DISTINCT {FILE_COLUMN} FROM {self._dropped}").fetchall()  # noqa: S608
        touched = {path for (path,) in paths}
        return [file for file in self._base.files if file.path in touched]

    def _relation(self, files: Sequence[DataFile]) -> str:
        return relation(self._con, self._url, files, self._columns, located=True)

    def _new_row(self, given: Sequence[str]) -> str:
        names = {name.lower() for name in given}
        return self._row(lambda name: f"s.{identifier(name)}" if name.lower() in names else None)

    def _row(self, expression: Callable[[str], str | None]) -> str:
        """The select list that gives every column of the table, in its type; None is null."""
        return ", ".join(
            f"({expression(name) or 'NULL'})::{type_} AS {identifier(name)}"
            for name, type_ in self._columns.items()
        )

    def _count(self, table: str, where: str = "true") -> int:
        row = self._con.execute(f"SELECT count(*) FROM {table} WHERE {where}").fetchone()  # noqa: S608  our own
        assert row is not None
        return int(row[0])


@contextmanager
def rewriting(place: Place, base: Snapshot, columns: Mapping[str, str]) -> Iterator[Rewrite]:
    """A `Rewrite` whose temporary tables are gone afterwards."""
    prefix = f"quayside_{uuid4().hex}"
    try:
        yield Rewrite(place, base, columns, f"temp.main.{prefix}")
    finally:
        for name in ("dropped", "staged", "found", "gone"):
            place.con.execute(f"DROP TABLE IF EXISTS temp.main.{prefix}_{name}")


def _on(key: Sequence[str], other: str) -> str:
    return " AND ".join(f"t.{identifier(name)} = {other}.{identifier(name)}" for name in key)
