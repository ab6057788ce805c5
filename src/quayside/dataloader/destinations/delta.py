"""`DeltaDestination`: a table as a folder of Delta Lake, for readers on Databricks, Spark, Fabric or Polars.

The table ``<catalog>.<schema>.<table>`` is the folder ``<QUAYSIDE_DELTA_URL>/<catalog>/<schema>/<table>``. Belongs here:
what each method of the protocol means for files and properties. Does not belong here: how a commit is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Self

from quayside.dataloader.destinations.delta_commit import Change, Place, Work, change_table, state_of
from quayside.dataloader.destinations.delta_files import relation
from quayside.dataloader.destinations.delta_log import DeltaLog
from quayside.dataloader.destinations.delta_rewrite import rewriting
from quayside.dataloader.destinations.delta_types import duckdb_columns, segment, stored_type
from quayside.dataloader.destinations.destination import (
    IS_DELETE,
    SOFT_DELETE_COLUMNS,
    LoadState,
    Removed,
    Rows,
    Written,
)
from quayside.dataloader.destinations.parallel import threads_for
from quayside.foundation.errors import ConflictError
from quayside.foundation.lake.session import enable_s3
from quayside.foundation.lake.sql import identifier

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb

    from quayside.dataloader.destinations.delta_files import FileSet
    from quayside.dataloader.destinations.delta_log import Snapshot
    from quayside.dataloader.destinations.destination import Fence, StateOf
    from quayside.dataloader.request import LoadRequest
    from quayside.foundation.settings import Settings

#: Folder inside a table's own that its siblings are in. Readers and VACUUM leave names with an underscore alone, so a
#: backfill may take weeks, and a table may keep files there once they are its own.
SIBLINGS: Final = "_quayside"

#: Property: the id of the shadow whose files this table has taken over last.
_REPLACED_WITH: Final = "quayside.replaced_with"


class DeltaDestination:
    """The Delta table of one load. What it says of the table is read once, and again after each commit of its own."""

    def __init__(
        self,
        settings: Settings,
        con: duckdb.DuckDBPyConnection,
        request: LoadRequest,
        *,
        parent: DeltaDestination | None = None,
        suffix: str = "",
    ) -> None:
        """The table that `request` names, or with `parent` its sibling of that `suffix`."""
        root = "/".join([settings.delta_data_path, *map(segment, request.destination)])
        url = f"{parent.url}/{SIBLINGS}/{segment(suffix)}" if parent else root
        if url.startswith("s3://"):
            enable_s3(con, settings)
        self._settings = settings
        self._request = request
        self._parent = parent
        self._suffix = suffix
        self._seen: tuple[Snapshot | None] | None = None
        self._place = Place(con, DeltaLog(settings, url), request.config_id, request.attempt)

    @property
    def con(self) -> duckdb.DuckDBPyConnection:
        return self._place.con

    @property
    def url(self) -> str:
        """The table's folder."""
        return self._place.log.url

    @property
    def name(self) -> str:
        return ".".join(self._request.destination) + self._suffix

    def stored_type(self, type_: str) -> str:
        return stored_type(self.con, type_)

    def columns(self) -> dict[str, str] | None:
        snapshot = self._snapshot()
        return duckdb_columns(snapshot.schema) if snapshot else None

    def state(self) -> LoadState | None:
        return state_of(self._snapshot(), self._request.config_id)

    def rows(self) -> int:
        snapshot = self._snapshot()
        if snapshot is None:
            return 0
        if IS_DELETE not in duckdb_columns(snapshot.schema):
            return snapshot.rows
        row = self.con.execute(
            f"SELECT count(*) FROM {self._relation(snapshot)} WHERE {identifier(IS_DELETE)} IS NOT TRUE"  # noqa: S608
        ).fetchone()
        assert row is not None
        return int(row[0])

    def relation(self) -> str:
        return self._relation(self._existing(self._snapshot()))

    def overwrite(self, rows: Rows, state: StateOf, fence: Fence) -> Written:
        columns = dict(rows.columns)

        def work(base: Snapshot | None, files: FileSet) -> Change:
            if not files.written:  # otherwise a conflict: the rows are in files already, whatever others did
                self._write(files, rows, columns, fence)
            written = Written(inserted=files.rows)
            gone = base.files if base else ()
            return Change("WRITE", columns, files.rows, written, remove=gone, rebases=True)

        return self._change(fence, state, work)

    def append(self, rows: Rows, state: StateOf, fence: Fence) -> Written:
        def work(base: Snapshot | None, files: FileSet) -> Change:
            columns = _after(base, rows.columns)
            if base is not None and _is_retyped(base, columns):
                with rewriting(self._place, base, columns) as rewrite:
                    rewrite.append(rows.select(), rows.given)
                    return rewrite.write(files)
            self._write(files, rows, columns, fence)
            return Change("WRITE", columns, files.rows, Written(inserted=files.rows))

        return self._change(fence, state, work)

    def merge(
        self,
        rows: Rows,
        key: Sequence[str],
        state: StateOf,
        fence: Fence,
        *,
        compare: bool = True,
        removed: Removed | None = None,
    ) -> Written:
        def work(base: Snapshot | None, files: FileSet) -> Change:
            base = self._existing(base)
            marks = SOFT_DELETE_COLUMNS if removed is not None and removed.at is not None else {}
            columns = _after(base, {**rows.columns, **marks})
            with rewriting(self._place, base, columns) as rewrite:
                rewrite.merge(rows.select(), rows.given, key, compare=compare)
                if removed is not None:
                    rewrite.remove(removed, key)
                return rewrite.write(files)

        return self._change(fence, state, work)

    def record(self, state: LoadState, fence: Fence) -> None:
        def work(base: Snapshot | None, files: FileSet) -> Change:
            del files
            return Change("STATE", duckdb_columns(self._existing(base).schema), 0, Written())

        self._change(fence, lambda _relation: state, work)

    def sibling(self, suffix: str) -> Self:
        return type(self)(self._settings, self.con, self._request, parent=self, suffix=suffix)

    def replace_with(self, shadow: Self, state: StateOf, fence: Fence) -> Written:
        taken = shadow._existing(shadow._snapshot())
        below = shadow.url.removeprefix(f"{self.url}/")
        files = shadow._place.log.files_with_stats(prefix=f"{below}/")

        def work(base: Snapshot | None, _files: FileSet) -> Change:
            return Change(
                "REPLACE",
                duckdb_columns(taken.schema),
                0,
                Written(inserted=taken.rows),
                remove=base.files if base else (),
                add=files,
                properties={_REPLACED_WITH: taken.table_id},
                rebases=True,
            )

        written = self._change(fence, state, work)
        shadow._place.log.forget()  # killed before this: `_newest` does it
        shadow._seen = None
        return written

    def drop(self, fence: Fence) -> None:
        with fence.hold():
            if self._snapshot() is None:
                return
            kept = self._parent._paths_below(self.url) if self._parent else frozenset[str]()
            self._place.log.drop(kept)
            self._seen = None

    def _write(self, files: FileSet, rows: Rows, columns: Mapping[str, str], fence: Fence) -> None:
        portions = rows.portions()
        if portions is not None:
            selects = [_filled(select, rows.given, columns) for select in portions.selects]
            files.write_portions(replace(portions, selects=selects), columns, rows.written, fence.check)
            return
        with threads_for(self.con, one_stream=rows.one_stream):
            files.write(_filled(rows.select(), rows.given, columns), columns)

    def _change(self, fence: Fence, state: StateOf, work: Work) -> Written:
        try:
            return change_table(self._place, fence, state, work)
        finally:
            self._seen = None

    def _snapshot(self) -> Snapshot | None:
        if self._seen is None:
            self._seen = (self._newest(),)
        return self._seen[0]

    def _newest(self) -> Snapshot | None:
        snapshot = self._place.log.snapshot()
        if snapshot is None or self._parent is None:
            return snapshot
        above = self._parent._newest()
        if above is not None and above.properties.get(_REPLACED_WITH) == snapshot.table_id:
            self._place.log.forget()  # its files are the table's by now; only the log of the shadow was left
            return None
        return snapshot

    def _existing(self, snapshot: Snapshot | None) -> Snapshot:
        if snapshot is None:
            raise ConflictError(f"The Delta table {self.name} is gone: somebody dropped it during the load.")
        return snapshot

    def _relation(self, snapshot: Snapshot) -> str:
        return relation(self.con, self.url, snapshot.files, duckdb_columns(snapshot.schema))

    def _paths_below(self, url: str) -> frozenset[str]:
        """Files of this table in the folder of a sibling, relative to the sibling."""
        prefix = url.removeprefix(f"{self.url}/") + "/"
        files = snapshot.files if (snapshot := self._snapshot()) else ()
        return frozenset(f.path.removeprefix(prefix) for f in files if f.path.startswith(prefix))


def _after(base: Snapshot | None, wanted: Mapping[str, str]) -> dict[str, str]:
    """Columns after a commit: the table's own in their order, wider where asked for, then the new ones."""
    before = duckdb_columns(base.schema) if base else {}
    asked = {name.lower(): (name, type_) for name, type_ in wanted.items()}
    columns = {name: asked.pop(name.lower(), (name, type_))[1] for name, type_ in before.items()}
    return columns | dict(asked.values())


def _is_retyped(base: Snapshot, columns: Mapping[str, str]) -> bool:
    return any(columns[name] != type_ for name, type_ in duckdb_columns(base.schema).items())


def _filled(select: str, given: Sequence[str], columns: Mapping[str, str]) -> str:
    """The query that gives every column, null where `select` does not give it."""
    known = {name.lower() for name in given}
    listed = ", ".join(
        f"{identifier(name) if name.lower() in known else 'NULL'}::{type_} AS {identifier(name)}"
        for name, type_ in columns.items()
    )
    return f"SELECT {listed} FROM ({select})"  # noqa: S608  quoted
