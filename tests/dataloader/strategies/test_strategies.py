"""What each strategy does to a table, on DuckLake: moments are decided by the test, so nothing depends on luck."""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from tests.dataloader.tables import NOW, Table

from quayside.dataloader.errors import CancelledError, CountMismatchError, FencedError
from quayside.dataloader.strategies import append_only, distinct
from quayside.foundation.errors import InputError

pytestmark = pytest.mark.integration

BY_TIME = {"incremental_column": "upd", "incremental_type": "timestamp"}
DDL = "id BIGINT, v VARCHAR, upd TIMESTAMP"


@pytest.fixture
def new(shared_settings, shared_con, request):
    """`new(strategy, …)`: an empty source table of this test's name, and the request that loads it."""

    def make(strategy: str, ddl: str = DDL, **values: Any) -> Table:
        name = request.node.name.replace("test_", "", 1)
        return Table.new(shared_settings, shared_con, name, ddl, load_strategy=strategy, **values)

    return make


def at(hours: float) -> datetime:
    """Hours before the source's clock, as it writes them."""
    return NOW.replace(tzinfo=None) - timedelta(hours=hours)


def put(table: Table, *rows: tuple[Any, ...]) -> None:
    """Insert rows, or replace those of the same id."""
    for row in rows:
        table.execute("DELETE FROM src WHERE id = ?", row[0])
        table.execute(f"INSERT INTO src VALUES ({', '.join('?' * len(row))})", *row)


class Until:
    """A fence that lets a number of commits through; then `fault` happens at the next."""

    def __init__(self, commits: int, fault: Exception) -> None:
        self.commits, self.fault = commits, fault

    def hold(self) -> AbstractContextManager[None]:
        if self.commits == 0:
            raise self.fault
        self.commits -= 1
        return nullcontext()

    def check(self) -> None:
        pass


class AfterCommit:
    """Dies between the destination's commit and whatever follows it."""

    @contextmanager
    def hold(self):
        yield
        raise KeyboardInterrupt

    def check(self) -> None:
        pass


# --- incremental ------------------------------------------------------------------------------------------------------


def test_incremental_loads_changes_and_new_rows_once(new):
    t = new("incremental", **BY_TIME)
    put(t, *[(i, "old", at(100 - i)) for i in range(50)])
    first = t.load()
    assert (first.outcome, first.strategy, first.rows_inserted, first.cursor_before) == (
        "loaded",
        "full",
        50,
        None,
    )
    put(t, (3, "changed", at(2)), (99, "new", at(1)))
    second = t.load()
    assert (second.rows_inserted, second.rows_updated, second.rows_total) == (1, 1, 51)
    assert (second.cursor_before, second.cursor_after) == (str(at(51)), str(at(1)))
    assert t.rows() == t.at_source()
    assert t.load().outcome == "unchanged"


def test_incremental_finds_rows_committed_late_within_the_lookback(new):
    # case 16
    t = new("incremental", **BY_TIME, incremental_lookback_hours=3)
    put(t, (1, "a", at(10)))
    t.load()
    put(t, (2, "late", at(12)), (3, "too late", at(14)))
    assert t.load().rows_inserted == 1
    assert [row[0] for row in t.rows()] == [1, 2]


def test_a_transaction_longer_than_the_lookback_is_found_by_its_keys(new):
    # case 16
    t = new("incremental", **BY_TIME, incremental_lookback_hours=1, is_delete=True)
    put(t, *[(i, "a", at(10)) for i in range(4)])
    t.load()
    put(t, (9, "late", at(50)))
    assert t.load(deletes_checked_at=NOW).rows_inserted == 0
    found = t.load(deletes_checked_at=NOW - timedelta(hours=25))
    assert found.rows_inserted == 1
    assert "1 rows of the source had never arrived" in found.warnings[0]
    assert found.deletes_checked_at == NOW
    assert t.rows("id, v, upd") == t.at_source()


def test_a_row_from_the_future_does_not_hide_those_to_come(new):
    # case 17
    t = new("incremental", **BY_TIME, incremental_lookback_hours=0)
    put(t, (1, "a", at(1)), (2, "future", datetime(2087, 1, 1)))
    first = t.load()
    assert first.cursor_after == str(at(0))
    assert "beyond the source's clock" in first.warnings[0]
    t.source.now = NOW + timedelta(hours=1)
    put(t, (3, "b", at(-0.5)))
    second = t.load()
    assert (second.rows_inserted, second.rows_updated) == (1, 0)
    assert second.cursor_after == str(at(-1))
    # A cursor that was written before cursors were capped counts as the clock.
    t.execute(f"DROP TABLE {t.stored}")
    t.load(load_strategy="full")
    assert t.load(load_strategy="incremental", incremental_value="2087-01-01 00:00:00").cursor_after == str(
        at(-1)
    )


def test_a_cursor_with_a_zone_is_capped_by_the_clock_and_one_without_by_the_sources_own(new):
    # case 37 (the source's zone is not the host's)
    t = new("incremental", "id BIGINT, upd TIMESTAMPTZ, naive TIMESTAMP", **BY_TIME)
    t.source.local_now = NOW.replace(tzinfo=None) + timedelta(hours=7)
    t.execute("INSERT INTO src VALUES (1, '2026-06-01 13:30:00+01', '2026-06-01 18:30:00')")
    assert t.load().cursor_after == "2026-06-01 12:00:00+00:00"
    assert t.load(incremental_column="naive", load_full=True).cursor_after == "2026-06-01 18:30:00"


def test_business_dates_are_reported(new):
    # case 18
    t = new("incremental", "id BIGINT, v VARCHAR, upd DATE", **BY_TIME)
    put(t, (1, "a", date(2026, 5, 31)))
    assert "is a date" in t.load().warnings[0]
    put(t, (2, "b", date(2026, 6, 1)))
    second = t.load()
    assert (second.rows_inserted, second.cursor_after) == (1, "2026-06-01")


def test_an_integer_cursor_has_no_lookback_and_no_clock(new):
    t = new(
        "incremental",
        "id BIGINT, v VARCHAR, version INTEGER",
        incremental_column="version",
        incremental_type="integer",
    )
    put(t, (1, "a", 5), (2, "b", 2_000_000_000))
    assert t.load().cursor_after == "2000000000"
    put(t, (1, "c", 2_000_000_001), (3, "below", 7))
    second = t.load()
    assert (second.rows_read, second.rows_updated, second.cursor_after) == (2, 1, "2000000001")


def test_rows_without_a_cursor_are_loaded_once_and_reported(new):
    t = new("incremental", **BY_TIME)
    put(t, (1, "a", None), (2, "b", at(1)))
    first = t.load()
    assert (first.rows_inserted, first.cursor_after) == (2, str(at(1)))
    assert "1 rows have no value in cursor" in first.warnings[0]


def test_an_empty_window_changes_nothing(new):
    # case 20
    t = new("incremental", **BY_TIME)
    put(t, (1, "a", at(1)))
    cursor = t.load().cursor_after
    t.execute("DELETE FROM src")
    second = t.load()
    assert (second.outcome, second.cursor_after, second.rows_total) == ("unchanged", cursor, 1)
    assert t.load(load_full=True).rows_total == 0
    assert t.load(load_full=False).outcome == "unchanged"


@pytest.mark.parametrize("strategy", ["incremental", "append_only", "scd2"])
def test_a_crash_after_the_commit_loses_and_repeats_nothing(new, strategy):
    # case 45 (the control row still has the cursor of before, and the destination's own goes before it)
    t = new(strategy, **BY_TIME, incremental_lookback_hours=0)
    put(t, (1, "a", at(9)))
    t.load()
    put(t, (2, "b", at(8)), (3, "c", at(8)))
    with pytest.raises(KeyboardInterrupt):
        t.load(fence=AfterCommit())
    again = t.load(incremental_value=str(at(9)))
    assert (again.cursor_before, again.rows_inserted) == (str(at(8)), 0)
    assert t.rows("id, v, upd") == t.at_source()


def test_an_attempt_that_was_given_up_commits_nothing(new):
    # case 11
    t = new("incremental", **BY_TIME)
    put(t, (1, "a", at(9)))
    with pytest.raises(FencedError):
        t.load(fence=Until(0, FencedError("given up")))
    assert t.con.execute(
        "SELECT count(*) FROM duckdb_tables() WHERE table_name = ?", [t.request.destination_table_name]
    ).fetchone() == (0,)
    t.load()
    put(t, (2, "b", at(8)))
    with pytest.raises(FencedError):
        t.load(fence=Until(0, FencedError("given up")))
    assert len(t.rows()) == 1
    assert t.load().rows_inserted == 1


def test_a_table_dropped_by_hand_is_loaded_from_the_beginning(new):
    # case 24 (destination dropped)
    t = new("incremental", **BY_TIME)
    put(t, (1, "a", at(100)), (2, "b", at(1)))
    t.load()
    t.execute(f"DROP TABLE {t.stored}")
    assert t.load(incremental_value=str(at(1))).rows_inserted == 2
    t.execute(f"DROP TABLE {t.stored}")
    t.execute(f"CREATE TABLE {t.stored} ({DDL})")
    assert t.load(incremental_value=None).rows_inserted == 2


@pytest.mark.parametrize(("keys_at_once", "files"), [(distinct.KEYS_AT_ONCE, 1), (1, 256), (1, 2)])
def test_keys_that_repeat_are_reduced_to_their_latest_row(new, monkeypatch, keys_at_once, files):
    # case 28; hashes of the keys are counted all at once, from a file for each, and in several passes over two files
    monkeypatch.setattr(distinct, "KEYS_AT_ONCE", keys_at_once)
    monkeypatch.setattr(distinct, "MOST_FILES", files)
    t = new("incremental", **BY_TIME, primary_key_cols=("id",))
    t.source.key = ()
    for id_, v, hours in ((1, "older", 3), (1, "latest", 2), (2, "x", 2), (2, "y", 2)):
        t.execute("INSERT INTO src VALUES (?, ?, ?)", id_, v, at(hours))
    first = t.load()
    assert "2 rows had the key" in first.warnings[0]
    assert t.rows("id, v") == [(1, "latest"), (2, "y")]
    t.execute("INSERT INTO src VALUES (1, 'newest', ?)", at(1))
    second = t.load()
    assert "3 rows had the key" in second.warnings[0]
    assert (second.rows_updated, t.rows("id, v")) == (1, [(1, "newest"), (2, "y")])


def test_keys_without_a_value_are_refused(new):
    # case 28
    t = new("incremental", **BY_TIME, primary_key_cols=("id",))
    t.source.key = ()
    t.execute("INSERT INTO src VALUES (NULL, 'a', ?), (1, 'b', ?)", at(3), at(3))
    with pytest.raises(InputError, match=r"1 rows of .* have no value in their key"):
        t.load()
    t.execute("DELETE FROM src WHERE id IS NULL")
    t.load()
    t.execute("INSERT INTO src VALUES (NULL, 'a', ?)", at(3))
    with pytest.raises(InputError, match="no value in their key"):
        t.load()
    assert len(t.rows()) == 1


def test_a_key_that_the_table_has_twice_is_noticed(new):
    t = new("incremental", **BY_TIME)
    put(t, (1, "a", at(3)))
    t.load()
    t.execute(f"INSERT INTO {t.stored} SELECT * FROM {t.stored}")
    put(t, (1, "b", at(2)))
    with pytest.raises(CountMismatchError, match=r"holds a key .* more than once"):
        t.load()
    assert t.rows("v") == [("a",), ("a",)]


def test_a_forced_full_load_holds_everything(new):
    # case 26
    t = new("incremental", **BY_TIME, incremental_lookback_hours=0)
    put(t, *[(i, "a", at(500 - i)) for i in range(20)])
    t.load()
    t.execute("UPDATE src SET v = 'changed without a new time'")
    put(t, (77, "b", at(600)))
    assert t.load().rows_updated == 1  # the one at the cursor
    full = t.load(load_full=True)
    assert (full.strategy, full.rows_inserted) == ("full", 21)
    assert t.rows() == t.at_source()
    put(t, (78, "c", at(1)))
    assert t.load(load_full=False).rows_inserted == 1


def test_the_row_cap_is_explicit_and_goes_on_from_the_lowest_cursors(new):
    # case 33
    t = new("incremental", **BY_TIME, incremental_lookback_hours=0, destination_table_name="bronze_devices")
    put(t, *[(i, "a", at(100 - i)) for i in range(30)])
    first = t.load(row_cap=10)
    assert (first.rows_inserted, first.capped, first.cursor_after) == (10, True, str(at(91)))
    assert "row cap of 10 rows" in first.warnings[-1]
    second = t.load()
    assert (second.rows_inserted, second.rows_total) == (9, 19)
    rest = t.load(row_cap=None)
    assert (rest.capped, rest.rows_total) == (False, 30)


# --- append_only ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kept", [append_only.KEPT_DIGESTS, 1])
@pytest.mark.parametrize("keyed", [True, False])
def test_append_only_is_exact_at_equal_timestamps(new, keyed, kept, monkeypatch):
    # case 19; with `kept` = 1 the digests are too many to keep and are taken from the table
    monkeypatch.setattr(append_only, "KEPT_DIGESTS", kept)
    t = new("append_only", **BY_TIME)
    t.source.key = ("id",) if keyed else ()
    same = datetime(2026, 6, 1, 11, 59, 59, 123456)
    for row in [(1, "a", same), (2, "a", same), (2, "a", same)][: 2 if keyed else 3]:
        t.execute("INSERT INTO src VALUES (?, ?, ?)", *row)
    assert t.load().cursor_after == "2026-06-01 11:59:59.123456"
    assert t.load().outcome == "unchanged"
    t.execute("INSERT INTO src VALUES (3, 'a', ?), (4, 'a', ?)", same, same + timedelta(microseconds=1))
    if not keyed:
        t.execute("INSERT INTO src VALUES (2, 'a', ?)", same)
    assert t.load().rows_inserted == (2 if keyed else 3)
    assert t.load().outcome == "unchanged"
    assert t.rows() == t.at_source()


def test_append_only_loads_a_row_from_the_future_once(new):
    # case 17
    t = new("append_only", **BY_TIME)
    put(t, (1, "a", at(1)), (2, "future", at(-2)))
    t.load()
    for hours in (1, 3, 4):
        t.source.now = NOW + timedelta(hours=hours)
        put(t, (10 + hours, "b", at(-hours + 0.5)))
        assert t.load().rows_inserted == 1
    assert t.rows() == t.at_source()


def test_append_only_without_a_key_is_exact_across_a_new_column(new):
    t = new("append_only", **BY_TIME)
    t.source.key = ()
    put(t, (1, "a", at(1)), (2, "b", at(1)))
    t.load()
    t.execute("ALTER TABLE src ADD COLUMN extra INTEGER DEFAULT 7")
    t.execute("INSERT INTO src VALUES (3, 'c', ?, 8)", at(1))
    assert t.load().rows_inserted == 1
    assert t.load().outcome == "unchanged"
    assert t.rows("id, extra") == [(1, None), (2, None), (3, 8)]


def test_append_only_keeps_every_version_and_does_not_see_rows_below_the_cursor(new):
    t = new("append_only", **BY_TIME)
    put(t, (1, "a", at(5)))
    t.load()
    put(t, (1, "b", at(4)), (2, "late", at(6)))
    assert t.load().rows_inserted == 1
    assert t.rows("id, v") == [(1, "a"), (1, "b")]


# --- rolling ----------------------------------------------------------------------------------------------------------

ROLLING = {"rolling_column": "upd", "rolling_days": 2}


def test_rolling_removes_inside_the_window_only(new):
    t = new("rolling", **ROLLING)
    put(t, (1, "outside", at(100)), (2, "a", at(30)), (3, "b", at(10)))
    t.load()
    t.execute("DELETE FROM src WHERE id IN (1, 2)")
    put(t, (3, "changed", at(10)), (4, "new", at(1)))
    second = t.load()
    assert (second.rows_read, second.rows_inserted, second.rows_updated, second.rows_deleted) == (2, 1, 1, 1)
    assert t.rows("id, v") == [(1, "outside"), (3, "changed"), (4, "new")]


def test_rolling_removes_nothing_when_the_window_is_empty(new):
    # cases 20, 21
    t = new("rolling", **ROLLING)
    put(t, (1, "a", at(10)))
    t.load()
    t.execute("DELETE FROM src")
    assert t.load().outcome == "unchanged"
    assert len(t.rows()) == 1


def test_a_window_begins_at_midnight_of_the_sources_own_day(new):
    t = new(
        "rolling",
        "id BIGINT, naive TIMESTAMP, zoned TIMESTAMPTZ, day DATE",
        rolling_days=0,
        rolling_column="naive",
    )
    t.source.local_now = NOW.replace(tzinfo=None) - timedelta(hours=7)  # 05:00, its midnight is 07:00 UTC
    t.load()
    for column, lower in (
        ("naive", datetime(2026, 6, 1)), ("zoned", datetime(2026, 6, 1, 7, tzinfo=UTC)), ("day", date(2026, 6, 1)),
    ):  # fmt: skip
        t.source.reads.clear()
        t.load(rolling_column=column)
        assert t.source.reads[0][0][0].value == lower


# --- check_and_load ---------------------------------------------------------------------------------------------------


def test_check_and_load_reads_only_what_has_changed(new):
    t = new("check_and_load", **BY_TIME)
    put(t, (1, "a", at(5)), (2, "b", at(4)))
    assert t.load().rows_inserted == 2
    t.source.reads.clear()
    assert (t.load().outcome, t.source.reads) == ("unchanged", [])
    t.execute("DELETE FROM src WHERE id = 1")
    assert (t.load().rows_total, t.rows("id")) == (1, [(2,)])
    put(t, (2, "changed", at(3)))
    assert t.load().outcome == "loaded"
    assert t.rows() == t.at_source()
    assert t.load(incremental_column=None).rows_read == 1  # other things are looked at: read again
    assert t.load().outcome == "unchanged"


def test_check_and_load_notices_that_not_all_arrived(new):
    t = new("check_and_load")
    put(t, (1, "a", at(5)), (2, "b", at(4)))
    t.source.count = lambda where=(): 3
    with pytest.raises(CountMismatchError, match="counts 3 rows and gave 2"):
        t.load()
    assert t.con.execute(
        "SELECT count(*) FROM duckdb_tables() WHERE table_name = ?", [t.request.destination_table_name]
    ).fetchone() == (0,)


# --- deletes ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["incremental", "append_only", "rolling", "check_and_load"])
def test_rows_that_are_gone_are_marked_once_and_restored_when_they_return(new, strategy):
    # case 22
    t = new(strategy, **BY_TIME, **ROLLING, is_delete=True)
    put(t, *[(i, "a", at(60 if i < 5 else 20)) for i in range(10)])
    t.load()
    t.execute("DELETE FROM src WHERE id IN (3, 8)")
    gone = t.load()
    assert (gone.rows_deleted, gone.rows_total) == (2, 8)
    t.source.now = NOW + timedelta(days=1)
    t.load()
    assert t.rows("id, deleted_at", "is_delete") == [(3, NOW), (8, NOW)]
    put(t, (3, "back", at(60)))
    assert t.load().rows_total == 9
    assert t.rows("v, deleted_at", "id = 3") == [("back", None)]


@pytest.mark.parametrize(("mode", "left"), [("hard", 4), ("sotf", 5)])
def test_hard_deletes_remove_and_a_typing_error_does_not(new, mode, left):
    # case 23
    t = new("incremental", **BY_TIME, is_delete=True, delete_mode=mode)
    put(t, *[(i, "a", at(60)) for i in range(5)])
    t.load()
    t.execute("DELETE FROM src WHERE id = 3")
    assert (t.load().rows_deleted, len(t.rows())) == (1, left)


@pytest.mark.parametrize("left", [0, 4])
def test_a_source_that_gives_no_or_few_keys_is_not_believed(new, left):
    # case 21
    t = new("incremental", **BY_TIME, is_delete=True, delete_mode="hard")
    put(t, *[(i, "a", at(60)) for i in range(10)])
    t.load()
    t.execute("DELETE FROM src WHERE id >= ?", left)
    second = t.load()
    assert (second.rows_deleted, second.rows_total, second.deletes_checked_at) == (0, 10, None)
    assert f"gave {left} keys and the table has 10 rows" in second.warnings[0]
    put(t, *[(i, "a", at(60)) for i in range(5)])
    assert t.load().rows_deleted == 5


# --- chunked_backfill -------------------------------------------------------------------------------------------------


@pytest.fixture
def chunks(new, shared_settings):
    """`chunks(n, …)`: a table of 100 rows that is read in n chunks."""

    def make(number: int, **values: Any) -> Table:
        t = new("chunked_backfill", **{**BY_TIME, "partition_column": "id", **values})
        t.settings = shared_settings.model_copy(update={"dataloader_rows_per_chunk": -(-100 // number)})
        t.execute(
            "INSERT INTO src SELECT range, 'a', ?::TIMESTAMP + INTERVAL 1 MINUTE * range FROM range(1, 101)",
            at(200),
        )
        return t

    return make


def shadow(t: Table) -> list[tuple[Any, ...]]:
    found = t.con.execute(
        "SELECT 1 FROM duckdb_tables() WHERE table_name = ?", [t.name + "__backfill"]
    ).fetchone()
    return (
        t.con.execute(f'SELECT id FROM lake."bronze.trade"."{t.name}__backfill" ORDER BY 1').fetchall()
        if found
        else []
    )


def test_a_backfill_holds_every_row_and_hands_over(chunks):
    # case 24 (the greatest row is there at the end)
    t = chunks(7)
    done = t.load()
    assert (done.rows_read, done.rows_inserted, done.handed_over, done.rows_total) == (100, 100, True, 100)
    assert t.rows() == t.at_source()
    assert len([r for r in t.source.reads if r[1] is None]) == 8  # seven chunks, and rows without a value
    assert done.cursor_after == str(at(200) + timedelta(minutes=100))
    put(t, (5, "changed", at(1)))
    assert t.load(load_strategy="incremental").rows_updated == 1


@pytest.mark.slow
@pytest.mark.parametrize("commits", [1, 3])
def test_a_killed_backfill_goes_on_and_nobody_sees_it_before_its_end(chunks, commits):
    # cases 24, 25, 45 (a chunk and its mark are one commit)
    t = chunks(5)
    put(t, (0, "old", at(300)))
    t.load(load_strategy="full")
    fence = Until(commits, FencedError("given up"))
    with pytest.raises(FencedError):
        t.load(load_strategy="chunked_backfill", fence=fence)
    assert len(shadow(t)) == {1: 16, 3: 50}[commits]
    assert len(t.rows()) == 101
    before = t.load(load_strategy="check_and_load").rows_total
    assert before == 101
    put(t, (1, "changed meanwhile", at(2)), (200, "new meanwhile", at(2)))
    t.source.reads.clear()
    done = t.load(load_strategy="chunked_backfill")
    assert (
        len([r for r in t.source.reads if r[1] is None]) == 7 - commits
    )  # six chunks, and rows without a value
    assert (done.rows_total, shadow(t), done.handed_over) == (102, [], True)
    t.load(load_strategy="incremental")
    assert t.rows() == t.at_source()


def test_a_backfill_whose_mark_is_past_what_the_source_still_has_ends(chunks):
    # case 24 (mark past MAX)
    t = chunks(5)
    with pytest.raises(FencedError):
        t.load(fence=Until(3, FencedError("given up")))
    t.execute("DELETE FROM src WHERE id > 20")
    done = t.load()
    assert (done.handed_over, shadow(t)) == (True, [])
    assert {(n,) for n in range(1, 21)} <= set(t.rows("id"))
    put(t, (101, "new", at(1)))
    assert t.load(load_strategy="incremental").rows_inserted == 1


@pytest.mark.slow
def test_a_row_that_moves_between_chunks_of_a_resumed_backfill_is_there_once(chunks):
    # case 24 (updates during the backfill)
    t = chunks(4, partition_column=None)
    with pytest.raises(FencedError):
        t.load(fence=Until(1, FencedError("given up")))
    put(t, (1, "moved to the last chunk", at(1)))
    t.load()
    t.load(load_strategy="incremental")
    assert t.rows() == t.at_source()


def test_a_backfill_that_was_swapped_in_before_the_control_row_knew_is_not_repeated(chunks):
    # case 45
    t = chunks(2)
    t.load()
    t.source.reads.clear()
    again = t.load()
    assert (again.outcome, again.handed_over, t.source.reads) == ("unchanged", True, [])
    assert t.load(load_full=True).rows_inserted == 100


@pytest.mark.slow
def test_a_shadow_of_another_configuration_is_thrown_away(chunks):
    # case 24
    t = chunks(4)
    with pytest.raises(FencedError):
        t.load(fence=Until(2, FencedError("given up")))
    assert len(shadow(t)) == 49
    t.execute("ALTER TABLE src ADD COLUMN more INTEGER DEFAULT 1")
    assert t.load().rows_read == 100
    assert t.rows() == t.at_source()


@pytest.mark.slow
def test_a_backfill_by_numbers_hands_over_the_greatest_of_its_beginning(chunks):
    # case 24 (integer cursor)
    t = chunks(4, incremental_column="id", incremental_type="integer", partition_column=None)
    with pytest.raises(FencedError):
        t.load(fence=Until(1, FencedError("given up")))
    put(t, (150, "meanwhile", at(1)))
    done = t.load()
    assert (done.cursor_after, done.rows_total) == ("100", 101)
    put(t, (151, "after", at(1)))
    t.load(load_strategy="incremental")
    assert t.rows() == t.at_source()


def test_a_backfill_of_nothing(chunks):
    t = chunks(1)
    t.execute("DELETE FROM src")
    assert (t.load().handed_over, t.rows()) == (True, [])
    put(t, (1, "a", at(1)))
    assert t.load(load_strategy="incremental").rows_inserted == 1


# --- scd2 -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("windowed", [True, False])
def test_scd2_keeps_every_version_and_one_current(new, windowed):
    t = new("scd2", **(BY_TIME if windowed else {}), is_delete=True)
    put(t, *[(i, "a", at(60)) for i in range(5)])
    t.load()
    later = NOW + timedelta(hours=1)
    t.source.now = later
    put(t, (1, "b", at(0)), (9, "new", at(0)))
    t.execute("DELETE FROM src WHERE id = 2")
    second = t.load(deletes_checked_at=None)
    assert (second.rows_inserted, second.rows_updated, second.rows_deleted) == (2, 1, 1)
    assert t.rows("v, valid_from, valid_to, is_current", "id = 1") == [
        ("a", NOW, later, False),
        ("b", later, None, True),
    ]
    assert t.rows("valid_to, is_current", "id = 2") == [(later, False)]
    assert t.load().outcome == "unchanged"
    put(t, (2, "back", at(0)))
    t.load()  # the source's clock stands still: no version is empty, none is written over
    assert t.rows("v, valid_from, valid_to", "id = 2") == [("a", NOW, later), ("back", later, None)]
    t.execute("DELETE FROM src WHERE id = 2")
    t.load()
    put(t, (2, "again", at(0)))
    t.load()
    assert t.rows("v", "id = 2 AND valid_to IS DISTINCT FROM valid_from") == [("a",), ("again",), ("back",)]
    assert t.rows("id, v, upd", "is_current") == t.at_source()
    assert t.load(load_full=True).outcome == "unchanged"


# --- errors and the rest ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"incremental_column": None}, "needs an incremental_column"),
        ({"incremental_column": "nope"}, 'no column "nope": correct incremental_column'),
        ({"incremental_column": "v"}, "is VARCHAR, which is no timestamp"),
        ({"incremental_column": "id"}, "is BIGINT, which is no timestamp"),
        ({"primary_key_cols": ("id", "nope")}, 'no column "nope": correct primary_key_cols'),
        ({"load_strategy": "rolling", "rolling_column": "id"}, "is a number: rolling needs dates or times"),
    ],
)
def test_a_row_that_cannot_work_says_so(new, values, sentence):
    t = new("incremental", **{**BY_TIME, **values} if "load_strategy" not in values else BY_TIME)
    t.request = replace(t.request, **values)
    with pytest.raises(InputError, match=sentence):
        t.load()


def test_a_cursor_that_cannot_be_read_says_so(new):
    # case 47
    t = new("incremental", **BY_TIME)
    put(t, (1, "a", at(1)))
    t.load(load_strategy="full")
    t.execute("DELETE FROM lake.dataloader.load_states WHERE config_id = ?", t.request.config_id)
    with pytest.raises(InputError, match="is no value of cursor"):
        t.load(load_strategy="incremental", incremental_value="2026'; DROP TABLE x; --")


def test_a_load_told_to_stop_commits_nothing(new):
    t = new("full")
    put(t, (1, "a", at(1)))
    with pytest.raises(CancelledError):
        t.load(fence=Until(0, CancelledError("stop")))
