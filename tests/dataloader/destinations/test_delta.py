"""The Delta destination by its protocol: every method on real folders, read back by delta-rs as well as by DuckDB."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from deltalake import DeltaTable
from tests.conftest import make_settings
from tests.dataloader.hostile import HOSTILE, LONG

from quayside.dataloader.destinations import delta_commit, delta_files, delta_log
from quayside.dataloader.destinations.delta import DeltaDestination
from quayside.dataloader.destinations.delta_log import DeltaLog
from quayside.dataloader.destinations.destination import LoadState, Removed, Rows, StateOf
from quayside.dataloader.errors import CountMismatchError, FencedError
from quayside.dataloader.request import LoadRequest
from quayside.foundation.errors import ConflictError, PermanentError, ServiceUnavailableError
from quayside.foundation.settings import Settings

pytestmark = pytest.mark.unit

COLUMNS = {"id": "BIGINT", "v": "VARCHAR"}
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@dataclass
class Guard:
    """A fence that lets pass until told otherwise."""

    given_up: bool = False
    held: list[str] = field(default_factory=list)

    def hold(self) -> AbstractContextManager[None]:
        self.check()
        self.held.append("held")
        return nullcontext()

    def check(self) -> None:
        if self.given_up:
            raise FencedError("The attempt was given up.")


OPEN = Guard()


def request_of(attempt: int = 1, config_id: int = 7, table: str = "t", **values: Any) -> LoadRequest:
    return LoadRequest(
        **{
            "config_id": config_id,
            "control_key": "k",
            "metadata_id": 1,
            "attempt": attempt,
            "db_config_key": "d",
            "db_type": "duckdb",
            "db_config_value": {},
            "db_kv_scope": "env",
            "source_catalog": None,
            "source_schema_name": None,
            "source_table_name": "t",
            "query": None,
            "destination_catalog": "delta",
            "destination_schema_name": "s",
            "destination_table_name": table,
            "load_strategy": "incremental",
            **values,
        }
    )


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"threads": 2}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    return make_settings(QUAYSIDE_HOME=str(tmp_path))


@pytest.fixture
def table(home: Settings, con: duckdb.DuckDBPyConnection) -> DeltaDestination:
    return DeltaDestination(home, con, request_of())


def values(
    *rows: Sequence[Any], columns: dict[str, str] = COLUMNS, given: Sequence[str] | None = None
) -> Rows:
    names = list(given or columns)
    listed = ", ".join(f'"{name}"' for name in names)
    casts = ", ".join(f'"{name}"::{columns[name]} AS "{name}"' for name in names)
    body = ", ".join("(" + ", ".join(_literal(value) for value in row) + ")" for row in rows)
    inner = (
        f"(VALUES {body}) r({listed})"
        if rows
        else f"(SELECT {', '.join(f'NULL AS {n}' for n in names)} WHERE false)"
    )
    return Rows(columns, names, lambda: f"SELECT {casts} FROM {inner}")


def _literal(value: Any) -> str:
    return "NULL" if value is None else str(value) if isinstance(value, bool | int) else f"'{value}'"


def state(cursor: str | None = None, attempt: int = 1, config_id: int = 7, **extra: Any) -> StateOf:
    return lambda _relation: LoadState(config_id, attempt, cursor, ("b1", "b2"), extra)


def content(table: DeltaDestination, columns: str = "*") -> list[tuple[Any, ...]]:
    table._seen = None  # as the next load would find it
    return sorted(table.con.execute(f"SELECT {columns} FROM {table.relation()}").fetchall(), key=repr)


def seen_by_others(table: DeltaDestination) -> list[tuple[Any, ...]]:
    """The table as delta-rs reads it."""
    rows = DeltaTable(table.url).to_pyarrow_table().to_pylist()
    return sorted((tuple(row.values()) for row in rows), key=repr)


def parquet_files(table: DeltaDestination) -> set[str]:
    return {
        str(file.relative_to(table.url))
        for file in Path(table.url).rglob("*.parquet")
        if "_delta_log" not in str(file)
    }


def test_a_table_that_is_not_there_says_so(table: DeltaDestination) -> None:
    assert (table.columns(), table.state(), table.rows()) == (None, None, 0)
    table.drop(OPEN)
    with pytest.raises(ConflictError, match=r"delta\.s\.t is gone"):
        table.relation()
    assert not Path(table.url).exists() or not any(Path(table.url).iterdir())


def test_overwrite_append_and_merge_say_what_they_did(table: DeltaDestination) -> None:
    written = table.overwrite(values((1, "a"), (2, "b"), (3, "c")), state("3"), OPEN)
    assert (written.inserted, written.updated, written.deleted) == (3, 0, 0)
    assert written.bytes == sum((Path(table.url) / f).stat().st_size for f in parquet_files(table))
    assert table.append(values((4, "d")), state("4"), OPEN).inserted == 1
    merged = table.merge(
        values((2, "B"), (3, "c"), (5, "e")),
        ["id"],
        state("5"),
        OPEN,
        removed=Removed("(SELECT 4::BIGINT AS id)"),
    )
    assert (merged.inserted, merged.updated, merged.deleted) == (1, 1, 1)
    assert content(table) == seen_by_others(table) == [(1, "a"), (2, "B"), (3, "c"), (5, "e")]
    assert table.rows() == 4
    assert table.columns() == COLUMNS
    assert table.state() == LoadState(7, 1, "5", ("b1", "b2"), {})


def test_the_commit_names_attempt_and_figures(home: Settings, con: duckdb.DuckDBPyConnection) -> None:
    for attempt in (3, 4):
        DeltaDestination(home, con, request_of(attempt)).append(
            values((attempt, "x")), state(attempt=attempt), OPEN
        )
    seen = DeltaTable(f"{home.delta_data_path}/delta/s/t")
    assert seen.transaction_version("quayside.dataloader:7") == 4
    last = seen.history(1)[0]
    assert (last["operation"], last["engineInfo"]) == ("WRITE", "quayside.dataloader")
    assert last["operationMetrics"]["numTargetRowsInserted"] == "1"


def test_a_merge_writes_only_files_that_change(table: DeltaDestination) -> None:
    table.overwrite(values((1, "a"), (2, "b")), state(), OPEN)
    table.append(values((10, "x")), state(), OPEN)
    before = parquet_files(table)
    same = table.merge(values((1, "a"), (10, "x")), ["id"], state("9"), OPEN)
    assert (same.inserted, same.updated, same.bytes) == (0, 0, 0)
    assert parquet_files(table) == before
    assert table.state() == LoadState(7, 1, "9", ("b1", "b2"), {})
    table.merge(values((10, "y")), ["id"], state(), OPEN)
    assert len(DeltaTable(table.url).file_uris()) == 2
    assert len(before & {uri.rpartition("/")[2] for uri in DeltaTable(table.url).file_uris()}) == 1
    assert table.merge(values((1, "a")), ["id"], state(), OPEN, compare=False).updated == 1
    assert content(table) == [(1, "a"), (10, "y"), (2, "b")]


def test_a_key_that_is_stored_twice_is_refused(table: DeltaDestination) -> None:
    table.overwrite(values((1, "a"), (1, "b")), state(), OPEN)
    with pytest.raises(CountMismatchError, match=r"holds a key \(id\) more than once"):
        table.merge(values((1, "c")), ["id"], state(), OPEN)
    assert table.rows() == 2


def test_columns_that_are_not_given_stay_in_updated_rows(table: DeltaDestination) -> None:
    wide = {**COLUMNS, "kept": "INTEGER"}
    table.overwrite(values((1, "a", 10), (2, "b", 20), columns=wide), state(), OPEN)
    table.merge(values((2, "B"), (3, "c"), columns=wide, given=["id", "v"]), ["id"], state(), OPEN)
    table.append(values((4, "d")), state(), OPEN)
    assert (
        content(table)
        == seen_by_others(table)
        == [(1, "a", 10), (2, "B", 20), (3, "c", None), (4, "d", None)]
    )


def test_soft_deletes_are_marked_once_and_returning_rows_live(table: DeltaDestination) -> None:
    """case 22: `deleted_at` is the first time a row was missing, and a row that comes back is live again."""
    table.overwrite(values((1, "a"), (2, "b"), (3, "c")), state(), OPEN)
    gone = Removed("(SELECT unnest([1, 2])::BIGINT AS id)", AT)
    assert table.merge(values(), ["id"], state(), OPEN, removed=gone).deleted == 2
    later = Removed(gone.keys, datetime(2027, 1, 1, tzinfo=UTC))
    assert table.merge(values(), ["id"], state(), OPEN, removed=later).deleted == 0
    assert content(table) == [(1, "a", True, AT), (2, "b", True, AT), (3, "c", None, None)]
    assert table.rows() == 1
    columns = table.columns()
    assert columns is not None
    back = values((1, "a", False, None), columns=columns)
    assert table.merge(back, ["id"], state(), OPEN).updated == 1
    assert content(table, "id, is_delete, deleted_at") == [(1, False, None), (2, True, AT), (3, None, None)]
    assert table.rows() == 2


def test_columns_are_added_and_widened_for_every_reader(table: DeltaDestination) -> None:
    narrow = {"id": "INTEGER", "v": "VARCHAR"}
    wide = {"id": "BIGINT", "v": "VARCHAR", "at": "TIMESTAMP"}
    for change in (table.append, lambda *given: table.merge(given[0], ["id"], *given[1:])):
        table.overwrite(values((1, "a"), columns=narrow), state(), OPEN)
        change(values((2**40, "b", "2026-01-01 00:00:00"), columns=wide), state(), OPEN)
        assert table.columns() == wide
        assert content(table) == seen_by_others(table)
        assert content(table, "id, v") == [(1, "a"), (2**40, "b")]
        types = {
            str(row[0])
            for file in DeltaTable(table.url).file_uris()
            for row in table.con.execute(
                f"SELECT type FROM parquet_schema('{file}') WHERE name = 'id'"
            ).fetchall()
        }
        assert types == {"INT64"}  # a file whose types are not the table's is read by few


def test_an_overwrite_brings_its_own_columns(table: DeltaDestination) -> None:
    table.overwrite(values((1, "a")), state(), OPEN)
    table.overwrite(values(("x",), columns={"other": "VARCHAR"}), state(), OPEN)
    assert table.columns() == {"other": "VARCHAR"}
    assert content(table) == seen_by_others(table) == [("x",)]


def test_an_empty_table_is_a_table(table: DeltaDestination) -> None:
    table.overwrite(values(), state("0"), OPEN)
    assert table.columns() == COLUMNS
    assert (table.rows(), content(table), seen_by_others(table)) == (0, [], [])
    assert not parquet_files(table)
    assert table.merge(values((1, "a")), ["id"], state(), OPEN).inserted == 1


def test_the_state_is_made_from_the_rows_as_they_will_be(table: DeltaDestination) -> None:
    def highest(relation: str) -> LoadState:
        row = table.con.execute(f"SELECT max(id) FROM {relation}").fetchone()
        assert row is not None
        return LoadState(7, 1, str(row[0]))

    table.overwrite(values((1, "a"), (5, "b")), highest, OPEN)
    assert table.state() == LoadState(7, 1, "5")
    table.merge(
        values((9, "c")), ["id"], highest, OPEN, removed=Removed("(SELECT 9::BIGINT AS id WHERE false)")
    )
    assert table.state() == LoadState(7, 1, "9")


def test_each_configuration_has_a_state_of_its_own(home: Settings, con: duckdb.DuckDBPyConnection) -> None:
    """case 44: two configurations may write one table."""
    first, second = (DeltaDestination(home, con, request_of(config_id=n)) for n in (7, 8))
    first.append(values((1, "a")), state("first"), OPEN)
    assert second.state() is None
    second.append(values((2, "b")), state("second", config_id=8), OPEN)
    second.record(LoadState(8, 2, "again", (), {"chunk": 3}), OPEN)
    first = DeltaDestination(home, con, request_of())
    assert first.state() == LoadState(7, 1, "first", ("b1", "b2"))
    assert second.state() == LoadState(8, 2, "again", (), {"chunk": 3})
    assert first.rows() == 2


def test_the_state_outlives_checkpoints_and_the_clean_up_of_the_log(table: DeltaDestination) -> None:
    for number in range(2 * delta_log.CHECKPOINT_INTERVAL + 1):
        table.append(values((number, "x")), state(str(number)), OPEN)
    log = Path(table.url) / "_delta_log"
    assert (log / f"{20:020}.checkpoint.parquet").is_file()
    for version in range(21):  # what a clean-up takes
        (log / f"{version:020}.json").unlink()
    again = DeltaDestination(table._settings, table.con, request_of())
    assert again.state() == LoadState(7, 1, "20", ("b1", "b2"))
    assert again.rows() == 21
    again.append(values((100, "y")), state("100"), OPEN)
    assert len(seen_by_others(again)) == 22


def test_a_given_up_attempt_writes_nothing_and_leaves_no_file(table: DeltaDestination) -> None:
    """case 11: the fence is looked at last, when the files are written."""
    table.overwrite(values((1, "a")), state(), OPEN)
    before = parquet_files(table)
    for change in (table.overwrite, table.append):
        with pytest.raises(FencedError):
            change(values((2, "b")), state("2"), Guard(given_up=True))
    with pytest.raises(FencedError):
        table.merge(values((1, "b")), ["id"], state("2"), Guard(given_up=True))
    with pytest.raises(FencedError):
        table.drop(Guard(given_up=True))
    assert (content(table), parquet_files(table)) == ([(1, "a")], before)


def test_an_error_while_writing_leaves_the_table_and_no_file(table: DeltaDestination) -> None:
    bad = Rows(COLUMNS, list(COLUMNS), lambda: "SELECT i AS id, error('bad') AS v FROM range(9) r(i)")
    for change in (table.overwrite, table.append):
        with pytest.raises(duckdb.Error, match="bad"):
            change(bad, state(), OPEN)
    assert table.columns() is None
    assert not parquet_files(table)


def test_a_file_that_lost_rows_is_noticed_before_the_commit(
    table: DeltaDestination, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files are read again: here a writer that says more than it wrote."""
    honest = delta_files.answer_and_rows_into

    def boast(con: duckdb.DuckDBPyConnection, sql: str) -> tuple[list[tuple[Any, ...]], int]:
        answer, given = honest(con, sql)
        return [(name, count + 1, *rest) for name, count, *rest in answer], given + 1

    monkeypatch.setattr(delta_files, "answer_and_rows_into", boast)
    with pytest.raises(CountMismatchError, match=r"2 rows were given .* and its files hold 1"):
        table.append(values((1, "a")), state(), OPEN)
    assert (table.columns(), parquet_files(table)) == (None, set())


@contextmanager
def interfering(monkeypatch: pytest.MonkeyPatch, *interference: Any) -> Iterator[list[int]]:
    """Before each of the next commits of this process, one of `interference` happens."""
    pending = list(interference)
    commits: list[int] = []
    commit = DeltaLog.commit

    def late(self: DeltaLog, base: Any, change: Any) -> bool:
        commits.append(-1 if base is None else base.version)
        if pending:
            pending.pop(0)()
        return commit(self, base, change)

    with monkeypatch.context() as patched:
        patched.setattr(DeltaLog, "commit", late)
        yield commits


def test_a_faster_writer_is_met_by_working_again(
    table: DeltaDestination, home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.overwrite(values((1, "a"), (2, "b")), state(), OPEN)

    def delete_two() -> None:
        DeltaTable(table.url).delete("id = 2")

    guard = Guard()
    with interfering(monkeypatch, delete_two) as commits:
        written = table.merge(values((1, "A"), (2, "B")), ["id"], state("x"), guard)
    assert (commits, len(guard.held)) == ([0, 1], 2)
    assert (written.inserted, written.updated) == (1, 1)
    assert content(table) == seen_by_others(table) == [(1, "A"), (2, "B")]
    referenced = {uri.rpartition("/")[2] for uri in DeltaTable(table.url).file_uris()}
    assert len(parquet_files(table) - referenced) == 2  # of the first version and of the other writer's


def test_a_writer_that_never_wins_gives_up_and_leaves_no_file(
    table: DeltaDestination, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.overwrite(values((1, "a")), state(), OPEN)
    before = parquet_files(table)
    monkeypatch.setattr(delta_commit, "ATTEMPTS", 2)
    monkeypatch.setattr(DeltaLog, "commit", lambda *_: False)
    for change in (table.overwrite, table.append):
        with pytest.raises(ConflictError, match="2 times in a row"):
            change(values((2, "b")), state(), OPEN)
    assert parquet_files(table) == before


def test_an_overwrite_that_meets_a_faster_writer_reads_its_source_once(
    table: DeltaDestination, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.overwrite(values((1, "a")), state(), OPEN)
    reads: list[int] = []
    rows = values((7, "z"))

    def select() -> str:
        reads.append(1)
        return rows.select()

    def compact() -> None:
        DeltaTable(table.url).delete("id = 1")

    with interfering(monkeypatch, compact):
        table.overwrite(Rows(COLUMNS, list(COLUMNS), select), state(), OPEN)
    assert (len(reads), content(table)) == (1, [(7, "z")])


def test_a_commit_whose_answer_was_lost_is_found_again(
    table: DeltaDestination, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.overwrite(values((1, "a")), state(), OPEN)
    put = type(table._place.log.store).put

    def lossy(self: Any, key: str, data: Any, *, create: bool = False) -> None:
        put(self, key, data, create=create)
        raise ServiceUnavailableError("the answer is lost")

    monkeypatch.setattr(type(table._place.log.store), "put", lossy)
    assert table.append(values((2, "b")), state("2"), OPEN).inserted == 1
    monkeypatch.undo()
    assert content(table) == [(1, "a"), (2, "b")]


def test_a_commit_of_which_nothing_is_known_keeps_its_files(
    table: DeltaDestination, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(self: Any, *_: Any, **__: Any) -> None:
        raise ServiceUnavailableError("the store is away")

    table.overwrite(values((1, "a")), state(), OPEN)
    monkeypatch.setattr(type(table._place.log.store), "put", away)
    with pytest.raises(ServiceUnavailableError, match="is unchanged"):
        table.append(values((2, "b")), state(), OPEN)
    monkeypatch.setattr(type(table._place.log.store), "get", away)
    with pytest.raises(ServiceUnavailableError, match="not known"):
        table.append(values((2, "b")), state(), OPEN)
    monkeypatch.undo()
    assert content(table) == [(1, "a")]
    assert len(parquet_files(table)) == 3


def test_a_shadow_takes_the_place_in_one_commit(table: DeltaDestination) -> None:
    """case 25: until then the readers have the old table, from then on the new one, and no row is copied."""
    table.overwrite(values((1, "old")), state("old"), OPEN)
    shadow = table.sibling("__backfill")
    assert shadow.columns() is None
    columns = {
        "id": "BIGINT",
        "at": "TIMESTAMP",
        "price": "DECIMAL(15,2)",
        "day": "DATE",
        "zone": "TIMESTAMP WITH TIME ZONE",
    }
    row = ("2026-01-01 00:00:00.123456", "1.25", "2026-01-02", "2026-01-03 00:00:00+00")
    shadow.overwrite(values((1, *row), columns=columns), state("1", chunk=1), OPEN)
    shadow.append(values((2, *row), columns=columns), state("2", chunk=2), OPEN)
    assert content(table) == [(1, "old")]
    assert shadow.state() == LoadState(7, 1, "2", ("b1", "b2"), {"chunk": 2})
    stats = _stats(shadow)
    written = table.replace_with(shadow, state("new"), OPEN)
    assert (written.inserted, table.rows(), shadow.columns()) == (2, 2, None)
    assert table.columns() == columns
    assert content(table) == seen_by_others(table)
    assert table.state() == LoadState(7, 1, "new", ("b1", "b2"))
    assert _stats(table) == stats
    assert table.merge(values((2, *row), columns=columns), ["id"], state(), OPEN, compare=False).updated == 1
    shadow.overwrite(values((3, "later")), state(), OPEN)  # the next backfill
    shadow.drop(OPEN)
    assert (shadow.columns(), table.rows(), len(seen_by_others(table))) == (None, 2, 2)


def _stats(table: DeltaDestination) -> list[str]:
    actions = DeltaTable(table.url).get_add_actions(flatten=True)
    names = [name for name in actions.column_names if name.startswith(("min.", "max.", "null_count."))]
    rows = zip(*(actions.column(name).to_pylist() for name in names), strict=True)
    return sorted(repr(dict(zip(names, row, strict=True))) for row in rows)


def test_a_shadow_whose_log_was_left_behind_is_not_taken_twice(
    table: DeltaDestination, monkeypatch: pytest.MonkeyPatch
) -> None:
    """case 24: killed after the swap, before the shadow was tidied up."""
    shadow = table.sibling("__backfill")
    shadow.append(values((1, "a")), state(), OPEN)
    monkeypatch.setattr(DeltaLog, "forget", lambda self: None)
    table.replace_with(shadow, state(), OPEN)
    monkeypatch.undo()
    assert shadow.state() is None
    assert shadow.append(values((2, "b")), state(), OPEN).inserted == 1
    assert (content(table), content(shadow)) == ([(1, "a")], [(2, "b")])


def test_a_shadow_makes_a_table_that_was_not_there(table: DeltaDestination) -> None:
    shadow = table.sibling("__backfill")
    shadow.append(values((1, "a")), state(), OPEN)
    assert table.columns() is None
    table.replace_with(shadow, state(), OPEN)
    assert content(table) == seen_by_others(table) == [(1, "a")]


def test_a_dropped_table_is_gone_and_can_be_made_again(table: DeltaDestination) -> None:
    table.overwrite(values((1, "a")), state("1"), OPEN)
    table.sibling("__backfill").append(values((1, "a")), state(), OPEN)
    table.drop(OPEN)
    assert (table.columns(), table.state(), table.sibling("__backfill").columns()) == (None, None, None)
    assert not [file for file in Path(table.url).rglob("*") if file.is_file()]
    table.append(values((2, "b")), state(), OPEN)
    assert content(table) == [(2, "b")]


FOLDERS = ["a/../b", "%2F", "..", "~", "x" * 300]


@pytest.mark.parametrize("name", [*HOSTILE, LONG, *FOLDERS])
def test_hostile_names_load(home: Settings, con: duckdb.DuckDBPyConnection, name: str) -> None:
    request = request_of(table=name, destination_schema_name=name, destination_catalog="delta_" + name)
    table = DeltaDestination(home, con, request)
    columns = {"id": "BIGINT", name: "VARCHAR"}
    quoted = name.replace('"', '""')
    rows = Rows(columns, list(columns), lambda: f"""SELECT 1::BIGINT AS id, 'v' AS "{quoted}" """)
    table.overwrite(rows, state(), OPEN)
    table.merge(rows, ["id", name], state(), OPEN, compare=False)
    assert content(table) == seen_by_others(table) == [(1, "v")]
    assert Path(table.url).resolve().is_relative_to(Path(home.delta_data_path).resolve())


def test_the_folder_may_have_a_name_that_looks_like_a_pattern(
    tmp_path: Path, con: duckdb.DuckDBPyConnection
) -> None:
    settings = make_settings(QUAYSIDE_HOME=str(tmp_path), QUAYSIDE_DELTA_URL=str(tmp_path / "a[b]*? 'c' #d"))
    table = DeltaDestination(settings, con, request_of())
    table.overwrite(values((1, "a")), state(), OPEN)
    table.merge(values((1, "b")), ["id"], state(), OPEN)
    assert content(table) == seen_by_others(table) == [(1, "b")]


def test_tables_of_others_are_refused_rather_than_broken(table: DeltaDestination) -> None:
    import pyarrow as pa
    from deltalake import write_deltalake

    write_deltalake(table.url, pa.table({"id": [1], "p": ["x"]}), partition_by=["p"])
    with pytest.raises(PermanentError, match="is partitioned by p"):
        table.columns()


def test_features_that_loads_cannot_keep_are_refused(table: DeltaDestination) -> None:
    table.overwrite(values((1, "a")), state(), OPEN)
    DeltaTable(table.url).alter.add_constraint({"positive": "id > 0"})
    with pytest.raises(PermanentError, match="of Delta, which loads cannot write"):
        table.append(values((2, "b")), state(), OPEN)


KILLED = """
import os, signal, sys
import duckdb
from contextlib import nullcontext
sys.path.insert(0, {root!r})
from tests.dataloader.destinations.test_delta import Guard, request_of, state, values
from quayside.dataloader.destinations.delta import DeltaDestination
from quayside.dataloader.destinations.delta_log import DeltaLog
from tests.conftest import make_settings

def die(self, base, commit):
    os.kill(os.getpid(), signal.SIGKILL)

DeltaLog.commit = die
table = DeltaDestination(make_settings(QUAYSIDE_HOME={home!r}), duckdb.connect(), request_of())
table.merge(values((1, "b"), (2, "c")), ["id"], state("2"), Guard())
"""


@pytest.mark.slow
def test_a_writer_killed_before_its_commit_leaves_the_table_as_it_was(
    table: DeltaDestination, tmp_path: Path
) -> None:
    """case 45: what it wrote is named by no commit, and goes when the table is vacuumed."""
    table.overwrite(values((1, "a")), state("1"), OPEN)
    root = str(Path(__file__).parents[3])
    killed = subprocess.run([sys.executable, "-c", KILLED.format(root=root, home=str(tmp_path))], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert content(table) == seen_by_others(table) == [(1, "a")]
    assert table.state() == LoadState(7, 1, "1", ("b1", "b2"))
    assert len(parquet_files(table)) == 2
