"""DuckLake: schema ``<catalog>.<schema>``, table ``<table>`` of the one lake, which the platform's other systems read.

Rows go from the source's scan into the lake's files in one statement, or in one for each portion (`ducklake_files`), so
memory is bounded whatever their number; data and state are one transaction. Belongs here: the statements. Does not
belong here: what to read and what to remember.
"""

# ruff: noqa: S608 - names are quoted by `identifier`, values are bound or typed literals

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from quayside.dataloader.destinations import ducklake_state
from quayside.dataloader.destinations.destination import (
    DELETED_AT,
    IS_DELETE,
    Fence,
    LoadState,
    Removed,
    Rows,
    StateOf,
    Written,
)
from quayside.dataloader.destinations.ducklake_files import LakeFiles
from quayside.dataloader.destinations.parallel import ONE_TASK_ROWS, threads_for
from quayside.dataloader.destinations.profile import rows_into
from quayside.dataloader.errors import CountMismatchError, UnsupportedTypeError
from quayside.foundation.lake.catalog import ask, text
from quayside.foundation.lake.session import CATALOG
from quayside.foundation.lake.sql import identifier, literal

if TYPE_CHECKING:
    import duckdb

    from quayside.dataloader.request import LoadRequest
    from quayside.dataloader.result import LoadResult
    from quayside.dataloader.sources.source import Portions
    from quayside.foundation.lake import Lake
    from quayside.foundation.settings import Settings

T = TypeVar("T")

#: A table of more rows is replaced by a new one, a smaller one emptied and filled. Emptying takes 0.6 µs a row; a new
#: table is a new schema version, after which every connection reads the names of all tables again.
_EMPTIED_ROWS: Final = 100_000

#: Attempts between two removals of replaced states.
_PRUNED_EVERY: Final = 16

#: Types of DuckDB that DuckLake cannot store → what stands for them.
_STORED_AS: Final = {"BIT": "VARCHAR", "BIGNUM": "VARCHAR", "TIME_NS": "TIME"}


@dataclass(frozen=True)
class _Look:
    """The table as the load finds it, and as its last commit left it. `about_rows`: as the catalog estimates them."""

    columns: dict[str, str] | None
    state: LoadState | None = None
    about_rows: int = 0


class DuckLakeDestination:
    """See `destination.Destination`."""

    def __init__(
        self,
        settings: Settings,
        con: duckdb.DuckDBPyConnection,
        request: LoadRequest,
        *,
        joined: bool = False,
    ) -> None:
        """`joined`: `con` is in a transaction with other loads, which somebody else commits (`prepare` came before)."""
        self.con = con
        self._joined = joined
        self._settings = settings
        self._request = request
        self._schema = f"{request.destination_catalog}.{request.destination_schema_name}"
        self._table = request.destination_table_name
        self._seen: _Look | None = None
        self._live_rows: int | None = None
        self._counted: tuple[int, int] | None = None
        self._committing = False
        # Many loads commit at once: DuckLake's own retries wait 100 ms at least, and give up after ten. The first are soon,
        # since mostly one other was faster; later ones are far apart, since each retry of a crowd costs processor time.
        for setting, value in (("retry_wait_ms", 5), ("retry_backoff", 1.5), ("max_retry_count", 25)):
            con.execute(f"SET ducklake_{setting} = {value}")

    @property
    def name(self) -> str:
        return f"{self._schema}.{self._table}"

    def stored_type(self, type_: str) -> str:
        if type_.startswith("ENUM("):
            return "VARCHAR"
        if type_.startswith("UNION("):
            raise UnsupportedTypeError(
                f"The lake has no type for {type_}: cast the column in the row's query."
            )
        return _STORED_AS.get(type_, type_)

    def columns(self) -> dict[str, str] | None:
        return self._look.columns

    def state(self) -> LoadState | None:
        return self._look.state

    def rows(self) -> int:
        if self._live_rows is None:
            self._live_rows = self._count()[1] if self._look.columns is not None else 0
        return self._live_rows

    def relation(self) -> str:
        return f"{CATALOG}.{identifier(self._schema)}.{identifier(self._table)}"

    def overwrite(self, rows: Rows, state: StateOf, fence: Fence) -> Written:
        seen, columns = self._look, dict(rows.columns)
        portions = rows.portions()
        if portions is not None and portions.readers > 1 and not self._joined:
            self.prepare()
            files = LakeFiles.of(self.con, self._schema, self._table, columns)
            if files is not None:
                return self._overwrite_by(files, portions, rows, state, fence)
        emptied = (
            seen.columns is not None
            and list(seen.columns.items()) == list(columns.items())
            and seen.about_rows <= _EMPTIED_ROWS
        )

        def work() -> Written:
            if emptied:
                self.con.execute(f"DELETE FROM {self.relation()}")
            else:
                self._create(columns, replace=True)
            written = self._insert(rows)
            self._check(written.inserted, self._count()[0], "rows")
            return written

        return self._commit(work, state, fence, columns)

    def _overwrite_by(
        self, files: LakeFiles, portions: Portions, rows: Rows, state: StateOf, fence: Fence
    ) -> Written:
        """The files are written before the transaction begins, so one that meets a conflict is only a second look."""

        def work() -> Written:
            self._create(rows.columns, replace=True)
            files.add()
            self._check(files.rows, self._count()[0], "rows")
            return Written(inserted=files.rows)

        self._committing = False
        with self._kept_from_upkeep():
            try:
                files.write(portions, rows.written, fence.check)
                return self._commit(work, state, fence, dict(rows.columns))
            except BaseException:
                # What a commit that failed left behind is no part of the lake: upkeep removes it.
                if not self._committing:
                    files.discard()
                raise

    @contextmanager
    def _kept_from_upkeep(self) -> Iterator[None]:
        """Upkeep leaves files alone that are younger than the oldest transaction in the catalog's database: this one."""
        with closing(self.con.cursor()) as apart:
            apart.execute("BEGIN")
            ask(apart, "SELECT 1")
            yield

    def append(self, rows: Rows, state: StateOf, fence: Fence) -> Written:
        def work() -> Written:
            self._evolve(rows.columns)
            before = self._count()[0]
            written = self._insert(rows)
            self._check(written.inserted, self._count()[0] - before, "rows")
            return written

        return self._commit(work, state, fence, self._evolved(rows.columns))

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
        def work() -> Written:
            self._evolve(rows.columns)
            before = self._count()[0]
            gone = self._remove(removed, key) if removed is not None else 0
            changed = self._merge(rows, key, compare)
            lost = gone if removed is not None and removed.at is None else 0
            inserted = self._count()[0] - before + lost
            if not 0 <= inserted <= changed:
                raise CountMismatchError(
                    f"{self.name} has {inserted} rows more after {changed} rows were merged: nothing was committed."
                )
            return Written(inserted, changed - inserted, gone)

        return self._commit(work, state, fence, self._evolved(rows.columns))

    def record(self, state: LoadState, fence: Fence) -> None:
        self._commit(Written, lambda _: state, fence, self._look.columns)

    def sibling(self, suffix: str) -> Self:
        request = replace(self._request, destination_table_name=f"{self._table}{suffix}")
        return type(self)(self._settings, self.con, request)

    def replace_with(self, shadow: Self, state: StateOf, fence: Fence) -> Written:
        def work() -> Written:
            self.con.execute(f"DROP TABLE IF EXISTS {self.relation()}")
            self.con.execute(f"ALTER TABLE {shadow.relation()} RENAME TO {identifier(self._table)}")
            return Written(inserted=self._count()[0])

        written = self._commit(work, state, fence, shadow._look.columns)
        shadow._seen = shadow._live_rows = None
        return written

    def drop(self, fence: Fence) -> None:
        self._commit(lambda: self.con.execute(f"DROP TABLE IF EXISTS {self.relation()}"), None, fence, None)

    @property
    def _look(self) -> _Look:
        if self._seen is None:
            with self._transaction():
                self._seen = self._read()
        return self._seen

    def _read(self) -> _Look:
        import duckdb

        # First the catalog: in search of names like one that is missing, DuckDB goes through everything attached, the
        # source included.
        found = ask(self.con, f"SELECT t.begin_snapshot, coalesce(n.record_count, 0) {self._catalogued}")
        if not found:
            return _Look(None)
        try:
            described = self.con.execute(f"DESCRIBE {self.relation()}").fetchall()
        except duckdb.CatalogException:  # it was made a moment ago
            return _Look(None)
        [[made_at, about]] = found
        state = ducklake_state.read(self.con, self._request.config_id, self.name, made_at)
        return _Look({name: type_ for name, type_, *_ in described}, state, about)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        if self._joined:
            yield
            return
        self.con.execute("BEGIN")
        try:
            yield
        finally:
            self.con.execute("ROLLBACK")  # nothing was written

    def _commit(
        self, work: Callable[[], T], state: StateOf | None, fence: Fence, columns: Mapping[str, str] | None
    ) -> T:
        """Commit what `work` does, with the state; the table has `columns` then."""
        import duckdb

        from quayside.foundation.lake import Lake

        lake = Lake(self._settings)
        if self._look.columns is None and columns is not None and not self._joined:
            self.prepare()
        after = _Look(None)
        live = 0
        with ExitStack() as held:

            def attempt(con: duckdb.DuckDBPyConnection) -> T:
                nonlocal after, live
                held.close()  # what an attempt held that met a conflict
                self._counted, self._committing = None, False
                result = work()
                if state is not None and columns is not None:
                    made = state(self.relation())
                    ducklake_state.write(con, made, self.name)
                    all_rows, live = self._counted or self._count()
                    after = _Look(dict(columns), made, all_rows)
                held.enter_context(fence.hold())
                self._committing = True
                return result

            try:
                result = attempt(self.con) if self._joined else lake.transaction(attempt, self.con)
            except duckdb.CatalogException as error:
                if self._joined:
                    raise
                if not ducklake_state.is_missing(error):
                    raise
                ducklake_state.ensure(self.con, self._settings)
                result = lake.transaction(attempt, self.con)
        self._seen, self._live_rows = after, live
        if self._joined:
            return result
        self._prune()
        if isinstance(result, Written) and result.inserted + result.updated:
            return replace(result, bytes=self._bytes_of_last_commit())
        return result

    def prepare(self) -> None:
        """Make the schema, and the table of states, in transactions of their own: loads that begin together must not all
        make them in theirs, and one found missing only after the rows were written would have them written twice.
        """
        from quayside.foundation.lake import Lake

        self._ensure_schema(Lake(self._settings))
        ducklake_state.ensure(self.con, self._settings)

    def after_commit(self, result: LoadResult) -> LoadResult:
        """For whoever committed the transaction that was joined: the size of what was written, replaced states removed."""
        self._prune()
        if not result.rows_written:
            return result
        return replace(result, bytes_written=self._bytes_of_last_commit())

    def _prune(self) -> None:
        state = self._look.state
        if state is not None and state.attempt % _PRUNED_EVERY == 0:
            ducklake_state.prune(self.con, self._request.config_id, self.name)

    def _ensure_schema(self, lake: Lake) -> None:
        def create(con: duckdb.DuckDBPyConnection) -> None:
            con.execute(f"CREATE SCHEMA IF NOT EXISTS {CATALOG}.{identifier(self._schema)}")

        # Not by duckdb_schemas(), which asks everything attached, the source included.
        named = f"SELECT 1 FROM {CATALOG}.ducklake_schema WHERE schema_name = {text(self._schema)} AND end_snapshot IS NULL"
        if not ask(self.con, named):
            # One at a time, since each of several would be a conflict for the others.
            lake.transaction(create, self.con, lock="quayside.dataloader.schemas")

    def _create(self, columns: Mapping[str, str], *, replace: bool) -> None:
        described = ", ".join(f"{identifier(name)} {type_}" for name, type_ in columns.items())
        what = "CREATE OR REPLACE TABLE" if replace else "CREATE TABLE"
        self.con.execute(f"{what} {self.relation()} ({described})")

    def _evolve(self, columns: Mapping[str, str]) -> None:
        """Give the table the columns and types that it lacks."""
        present = self._look.columns
        if present is None:
            self._create(columns, replace=False)
            return
        for name, type_ in columns.items():
            change = None
            if name not in present:
                change = f"ADD COLUMN {identifier(name)} {type_}"
            elif present[name] != type_:
                change = f"ALTER COLUMN {identifier(name)} SET DATA TYPE {type_}"
            if change:
                self.con.execute(f"ALTER TABLE {self.relation()} {change}")

    def _evolved(self, columns: Mapping[str, str]) -> dict[str, str]:
        return {**(self._look.columns or {}), **columns}

    def _insert(self, rows: Rows) -> Written:
        """What went in: `inserted` as the operator that fed the writer counted it."""
        names = ", ".join(map(identifier, rows.given))
        given = 0
        portions = rows.portions()
        if portions is not None:
            portions.join(self.con)
        with threads_for(self.con, one_stream=rows.one_stream):
            for select in [rows.select()] if portions is None else portions.selects:
                given += rows_into(self.con, f"INSERT INTO {self.relation()} ({names}) {select}").given
                rows.written(given)
        return Written(inserted=given)

    def _merge(self, rows: Rows, key: Sequence[str], compare: bool) -> int:
        select = rows.select()
        staged = self._scalar(f"SELECT count(*) FROM ({select})")
        if not staged:
            return 0
        on = [f"t.{identifier(k)} = s.{identifier(k)}" for k in key]
        on += self._range(select, key[0], rows.columns[key[0]])
        if not compare and set(rows.given) == set(self._evolved(rows.columns)):
            return self._replace_rows(rows, select, key, on, staged)
        others = [c for c in rows.given if c not in key]
        differs = " OR ".join(f"t.{identifier(c)} IS DISTINCT FROM s.{identifier(c)}" for c in others)
        update = ""
        if others:
            assigned = ", ".join(f"{identifier(c)} = s.{identifier(c)}" for c in others)
            update = f"WHEN MATCHED {f'AND ({differs}) ' if compare else ''}THEN UPDATE SET {assigned} "
        names = ", ".join(map(identifier, rows.given))
        values = ", ".join(f"s.{identifier(c)}" for c in rows.given)
        flow = rows_into(
            self.con,
            f"MERGE INTO {self.relation()} t USING ({select}) s ON {' AND '.join(on)} "
            f"{update}WHEN NOT MATCHED THEN INSERT ({names}) VALUES ({values})",
        )
        self._check_met_once(staged, flow.given, key)
        if not compare and others:
            self._check(staged, flow.wrote, "merged rows")
        return flow.wrote

    def _replace_rows(
        self, rows: Rows, select: str, key: Sequence[str], on: Sequence[str], staged: int
    ) -> int:
        """A merge that compares nothing and gives every column: it need not read the others of the stored rows."""
        keys = ", ".join(map(identifier, key))
        flow = rows_into(
            self.con,
            f"MERGE INTO {self.relation()} t USING (SELECT {keys} FROM ({select})) s ON {' AND '.join(on)} "
            "WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN DO NOTHING",
        )
        self._check_met_once(staged, flow.given, key)
        names = ", ".join(map(identifier, rows.given))
        # A second thread would find nothing to do and spin meanwhile, which takes a core from others.
        with threads_for(self.con, one_stream=staged <= ONE_TASK_ROWS):
            written = rows_into(self.con, f"INSERT INTO {self.relation()} ({names}) {select}").given
        self._check(staged, written, "merged rows")
        return written

    def _check_met_once(self, staged: int, met: int, key: Sequence[str]) -> None:
        if met != staged:
            raise CountMismatchError(
                f"{self.name}: {staged} rows were to be merged and met {met}, so it holds a key ({', '.join(key)}) "
                "more than once. Nothing was committed: correct primary_key_cols, or load the table in full."
            )

    def _range(self, select: str, column: str, type_: str) -> list[str]:
        """Conditions that keep a merge out of files that hold none of its keys."""
        if not type_.startswith(("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "DECIMAL", "DATE", "TIMESTAMP")):
            return []
        name = identifier(column)
        bounds = self.con.execute(
            f"SELECT min({name})::VARCHAR, max({name})::VARCHAR FROM ({select})"
        ).fetchone()
        assert bounds is not None
        return [
            f"t.{name} {operator} CAST({literal(bound)} AS {type_})"
            for operator, bound in zip((">=", "<="), bounds, strict=True)
        ]

    def _remove(self, removed: Removed, key: Sequence[str]) -> int:
        condition = " AND ".join(f"t.{identifier(k)} = k.{identifier(k)}" for k in key)
        among = f"EXISTS (SELECT 1 FROM {removed.keys} k WHERE {condition})"
        if removed.at is None:
            return self._scalar(f"DELETE FROM {self.relation()} t WHERE {among}")
        return self._scalar(
            f"UPDATE {self.relation()} t SET {IS_DELETE} = true, {DELETED_AT} = ? "
            f"WHERE t.{IS_DELETE} IS NOT TRUE AND {among}",
            removed.at,
        )

    def _check(self, read: int, written: int, what: str) -> None:
        if read != written:
            raise CountMismatchError(
                f"{self.name}: {read} {what} were read and {written} written. Nothing was committed."
            )

    def _count(self) -> tuple[int, int]:
        """All rows, and those that are not marked as deleted; a column may have been added in this transaction."""
        columns = {row[0] for row in self.con.execute(f"DESCRIBE {self.relation()}").fetchall()}
        live = f"count(*) FILTER (WHERE {IS_DELETE} IS NOT TRUE)" if IS_DELETE in columns else "count(*)"
        row = self.con.execute(f"SELECT count(*), {live} FROM {self.relation()}").fetchone()
        assert row is not None
        self._counted = row[0], row[1]
        return self._counted

    def _bytes_of_last_commit(self) -> int:
        """Size of the files that the last commit to this table added."""
        [[size]] = ask(
            self.con,
            f"SELECT coalesce((SELECT sum(file_size_bytes)::int8 FROM {CATALOG}.ducklake_data_file "
            f"WHERE table_id = t.table_id GROUP BY begin_snapshot ORDER BY begin_snapshot DESC LIMIT 1), 0) {self._catalogued}",
        )
        return int(size)

    @property
    def _catalogued(self) -> str:
        """FROM and WHERE of the table's row ``t`` in the catalog."""
        return (
            f"FROM {CATALOG}.ducklake_table t JOIN {CATALOG}.ducklake_schema s USING (schema_id) "
            f"LEFT JOIN {CATALOG}.ducklake_table_stats n USING (table_id) "
            f"WHERE t.table_name = {text(self._table)} AND t.end_snapshot IS NULL "
            f"AND s.schema_name = {text(self._schema)} AND s.end_snapshot IS NULL"
        )

    def _scalar(self, sql: str, *values: Any) -> int:
        row = self.con.execute(sql, list(values)).fetchone()
        assert row is not None
        return int(row[0])
