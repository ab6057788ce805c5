"""Attempts: what they write together, and that one that was given up writes nothing any more."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from quayside.dataloader.control.client import LakebaseClient
from quayside.dataloader.errors import CancelledError, FencedError
from quayside.foundation.errors import NotFoundError, UsageError
from quayside.foundation.secrets import remember

pytestmark = pytest.mark.integration

RUN = "http://localhost:3000/runs/0a1b2c3d"


def test_a_success_is_visible_whole_or_not_at_all(control: Any) -> None:
    # case 12 - status and next due time, cursor, forced full load and history change in one transaction
    control.source()
    config = control.table(load_cron="0 6 1 1 *", load_full=True)
    attempt = control.claimed(config)
    request = attempt.begin(RUN)
    assert request.load_full
    assert control.row(config)["last_dagster_run"] == RUN
    result = control.loaded(10, cursor_after="2026-05-05 12:00:00", bytes_written=77, warnings=["late rows"])
    due = attempt.succeed(result)
    row, (history,) = control.row(config), control.history(config)
    assert (row["last_status"], row["load_full"], row["incremental_value"]) == (
        "Succeeded",
        False,
        "2026-05-05 12:00:00",
    )
    assert row["next_load_date_time"] == due
    assert due > datetime.now(UTC)
    assert due.hour == 6
    assert (row["lease_expires_at"], row["staging_model_processed"], row["retry_count"]) == (None, False, 0)
    assert (history["load_status"], history["rows_read"], history["rows_written"]) == ("Succeeded", 10, 10)
    assert (history["run_id"], history["dagster_run"], history["load_full"]) == ("0a1b2c3d", RUN, True)
    assert (history["bytes_written"], history["cursor_after"]) == (77, "2026-05-05 12:00:00")
    assert history["total_duration"] >= 0
    assert "late rows" in row["last_status_message"]
    assert history["result"]["warnings"] == ["late rows"]


def test_a_success_said_twice_counts_once(control: Any) -> None:
    # case 32 - a connection lost after the commit makes the worker say it again
    control.source()
    config = control.table(load_cron="* * * * *")
    attempt = control.begun(config)
    attempt.succeed(control.loaded(1))
    attempt.succeed(control.loaded(1))
    control.sql("UPDATE control.table_control SET next_load_date_time = NULL")
    control.claimed(config)
    attempt.succeed(control.loaded(1))  # also when the next attempt is there already
    assert (control.row(config)["last_status"], control.row(config)["attempt"]) == ("Queued", 2)
    assert len(control.history(config)) == 2


@pytest.mark.parametrize(
    "given_up", ["failed", "failed and reset", "failed, reset and claimed again", "deleted"]
)
def test_what_was_given_up_writes_nothing(control: Any, given_up: str) -> None:
    # cases 10, 11
    control.source()
    config = control.table()
    late = control.begun(config)
    if given_up == "deleted":
        control.sql("DELETE FROM control.table_control")
    else:
        control.client.give_up(config, 1, "worker lost")
    if "reset" in given_up:
        control.client.reset_for_retry(config, "again")
    if "claimed" in given_up:
        control.begun(config)
    before = control.sql("SELECT * FROM control.table_control")
    history = control.history(config)
    metadata_id = history[0]["id"]
    writes = {
        "begin": lambda: late.begin(RUN),
        "request": late.request,
        "heartbeat": lambda: late.heartbeat(rows=9),
        "check": late.check,
        "hold": lambda: late.hold().__enter__(),
        "succeed": lambda: late.succeed(control.loaded()),
        "update_control_status": lambda: late.update_control_status(config, "Succeeded"),
        "update_run_tracking": lambda: late.update_run_tracking(config, RUN),
        "insert_initial_metadata": lambda: late.insert_initial_metadata(config),
        "requeue": lambda: control.client.requeue(config, 1, "no run"),
    }
    if given_up == "deleted":
        writes["fail"] = lambda: late.fail("too late")
    else:
        writes["update_metadata"] = lambda: late.update_metadata(metadata_id, rows_read=9)
    if "claimed" in given_up:
        writes["fail"] = lambda: late.fail("too late")
        writes["give_up"] = lambda: control.client.give_up(config, 1, "too late")
    for name, write in writes.items():
        with pytest.raises(FencedError, match=r"attempt 1|Attempt 1"):
            write()
        assert control.sql("SELECT * FROM control.table_control") == before, name
    assert control.history(config) == history


def test_a_queued_row_that_was_failed_does_not_begin(control: Any) -> None:
    # case 11
    control.source()
    config = control.table()
    attempt = control.claimed(config)
    control.client.give_up(config, 1, "Cancelled - stuck in queue for >60 minutes", "Cancelled")
    with pytest.raises(FencedError, match="given up and writes nothing: the row is at attempt 1, Failed"):
        attempt.begin(RUN)
    assert control.history(config)[0]["load_status"] == "Cancelled"


def test_a_reset_does_not_touch_what_is_queued_or_running(control: Any) -> None:
    # case 10
    control.source()
    config = control.table()
    attempt = control.claimed(config)
    with pytest.raises(UsageError, match="is not Failed but Queued"):
        control.client.reset_for_retry(config, "impatient")
    attempt.begin(RUN)
    with pytest.raises(UsageError, match="is not Failed but In Progress"):
        control.client.mark_for_review(config, "impatient")
    with pytest.raises(NotFoundError, match="no config 999"):
        control.client.reset_for_retry(999, "who")


def test_a_row_reset_by_hand_while_queued_loads_once(control: Any) -> None:
    # case 10, by SQL
    control.source()
    config = control.table()
    first = control.claimed(config)
    control.sql("UPDATE control.table_control SET last_status = NULL, next_load_date_time = NULL")
    second = control.claimed(config)
    with pytest.raises(FencedError):
        first.begin(RUN)
    second.begin(RUN)
    second.succeed(control.loaded())
    assert [h["load_status"] for h in control.history(config)] == ["Cancelled", "Succeeded"]


def test_only_the_run_that_began_begins_again(control: Any) -> None:
    control.source()
    config = control.table()
    attempt = control.claimed(config)
    attempt.begin(RUN)
    attempt.begin(RUN)  # its answer was lost
    with pytest.raises(FencedError):
        attempt.begin("http://localhost:3000/runs/another")


@pytest.mark.parametrize("change, state", [("is_active", "inactive"), ("is_paused", "source paused"), ("windows", "outside window")])  # fmt: skip
def test_what_may_not_load_any_more_when_its_run_comes_is_given_back(
    control: Any, change: str, state: str
) -> None:
    # case 42
    control.source()
    config = control.table()
    attempt = control.claimed(config)
    if change == "is_active":
        control.sql("UPDATE control.table_control SET is_active = false")
    elif change == "is_paused":
        control.source(is_paused=True)
    else:
        day = (datetime.now(UTC) + timedelta(days=3)).strftime("%a").lower()
        control.source(load_windows=[{"days": [day], "from": "08:00", "to": "09:00"}])
    with pytest.raises(FencedError, match="loads nothing: "):
        attempt.begin(RUN)
    assert control.state(config) == state
    assert (control.history(config)[0]["load_status"], control.row(config)["retry_count"]) == ("Cancelled", 0)


def test_the_cursor_is_read_again_when_the_load_starts(control: Any) -> None:
    control.source()
    config = control.table(incremental_value="1")
    attempt = control.claimed(config)
    control.sql(
        "UPDATE control.table_control SET incremental_value = '5', deletes_checked_at = '2026-01-01 00:00+00'"
    )
    assert attempt.begin(RUN).incremental_value == "5"
    assert attempt.request().deletes_checked_at == datetime(2026, 1, 1, tzinfo=UTC)


def test_a_forced_full_load_asked_for_during_a_load_is_kept(control: Any) -> None:
    # case 26 - the flag clears only on the success of a load that was one
    control.source()
    config = control.table()
    attempt = control.begun(config)
    control.sql("UPDATE control.table_control SET load_full = true")
    assert not attempt.request().load_full
    attempt.succeed(control.loaded())
    assert control.row(config)["load_full"]
    control.sql("UPDATE control.table_control SET next_load_date_time = now()")
    second = control.begun(config)
    assert second.request().load_full
    second.fail("disk full")
    assert control.row(config)["load_full"]
    control.client.reset_for_retry(config, "again")
    control.begun(config).succeed(control.loaded())
    assert not control.row(config)["load_full"]


def test_a_load_asked_for_during_a_load_follows_it(control: Any) -> None:
    control.source()
    config = control.table(load_cron="0 0 1 1 *")
    attempt = control.begun(config)
    control.sql("UPDATE control.table_control SET next_load_date_time = clock_timestamp()")
    attempt.succeed(control.loaded())
    assert control.state(config) == "ready"


def test_missed_intervals_collapse_into_one(control: Any) -> None:
    # case 37 - the load began three years ago, and all the years since make one load
    control.source()
    config = control.table(load_cron="0 0 1 1 *", next_load_date_time="2020-01-01 00:00+00")
    attempt = control.begun(config)
    control.age(config, 3 * 366 * 24 * 60)
    control.sql("UPDATE control.table_control SET lease_expires_at = now() + interval '1 minute'")
    attempt.succeed(control.loaded())
    assert control.state(config) == "ready"
    control.begun(config).succeed(control.loaded())
    assert control.state(config) == "not due"


def test_a_schedule_that_never_comes_does_not_undo_a_load(control: Any) -> None:
    control.source()
    config = control.table()
    control.sql("UPDATE control.table_control SET load_cron = '0 0 30 2 *'")
    control.begun(config).succeed(control.loaded())
    assert control.state(config) == "bad schedule"
    control.sql("UPDATE control.table_control SET load_cron = NULL")
    assert control.state(config) == "no schedule"


def test_a_backfill_goes_on_and_is_handed_over(control: Any) -> None:
    control.source()
    config = control.table(
        load_strategy="chunked_backfill", incremental_column="id", incremental_type="integer", primary_key_cols="id",
        load_cron="0 6 * * *",
    )  # fmt: skip
    control.begun(config).succeed(control.loaded(strategy="chunked_backfill", backfill_cursor="500"))
    assert (control.state(config), control.row(config)["backfill_cursor"]) == ("ready", "500")
    control.begun(config).succeed(
        control.loaded(strategy="chunked_backfill", handed_over=True, cursor_after="900")
    )
    row = control.row(config)
    assert (row["load_strategy"], row["backfill_cursor"], row["incremental_value"]) == (
        "incremental",
        None,
        "900",
    )
    changed = control.sql("SELECT * FROM control.table_control_history WHERE change_type = 'UPDATE'")
    assert [(c["changed_fields"], c["change_source"]) for c in changed] == [(["load_strategy"], "load")]


def test_failures_count_until_a_success_and_messages_hold_no_secret(control: Any) -> None:
    # cases 35, 38
    from pydantic import SecretStr

    remember(SecretStr("hunter2-hunter2"))
    control.source()
    config = control.table()
    for count in (1, 2, 3):
        control.begun(config).fail("password=hunter2-hunter2 refused by postgresql://u:pw12345@h/d")
        row = control.row(config)
        assert (row["retry_count"], row["state"]) == (count, "failed")
        control.client.reset_for_retry(config, "again")
    told = str([control.row(config), control.history(config)])
    assert "hunter2" not in told
    assert "pw12345" not in told
    control.begun(config).succeed(control.loaded(warnings=["password=hunter2-hunter2 is old"]))
    assert control.row(config)["retry_count"] == 0
    assert "hunter2" not in str([control.row(config), control.history(config)])


def test_an_outcome_is_kept_whatever_the_source_put_into_it(control: Any) -> None:
    control.source()
    config = control.table()
    control.begun(config).fail("value 'a\0b\ud800' " + "x" * 10_000)
    message = control.row(config)["last_status_message"]
    assert message.startswith("value 'a\ufffdb?'")
    assert len(message) == 4000
    control.client.reset_for_retry(config, "zero \0 byte")
    control.begun(config).succeed(control.loaded(warnings=["a\0b\ud800"], columns={"c\0": "VARCHAR"}))
    assert control.history(config)[1]["result"]["columns"] == {"c\ufffd": "VARCHAR"}


def test_a_review_waits_for_a_person(control: Any) -> None:
    control.source()
    config = control.table()
    control.begun(config).fail("permission denied")
    control.client.mark_for_review(config, "[AI Analysis - Requires Review] permission")
    assert control.state(config) == "under review"
    control.client.reset_for_retry(config, "granted", forget_failures=True)
    row = control.row(config)
    assert (row["state"], row["review_required"], row["retry_count"]) == ("ready", False, 0)


def test_a_heartbeat_extends_the_lease_and_tells_to_stop(control: Any) -> None:
    control.source()
    config = control.table()
    attempt = control.begun(config)
    control.age(config, 5)
    assert [a.config_id for a in control.client.expired()] == [config]
    assert attempt.heartbeat(rows=10, total=40, phase="reading") == "continue"
    assert control.client.expired() == []
    row = control.row(config)
    assert (row["progress_rows"], row["progress_rows_total"], row["progress_phase"]) == (10, 40, "reading")
    attempt.check()
    assert control.client.request_stop(config, "stopped by a person")
    assert attempt.heartbeat() == "stop"
    with pytest.raises(CancelledError, match="stopped by a person"):
        attempt.check()
    with pytest.raises(CancelledError), attempt.hold():
        pass
    attempt.fail("Cancelled - stopped by a person", "Cancelled")
    assert (control.state(config), control.history(config)[0]["load_status"]) == ("failed", "Cancelled")
    assert not control.client.request_stop(config, "again")


def test_pausing_a_source_stops_what_runs_and_resuming_goes_on(control: Any) -> None:
    control.source()
    config = control.table()
    attempt = control.begun(config)
    control.source(is_paused=True)
    assert attempt.heartbeat() == "stop"
    with pytest.raises(CancelledError, match="Source shop was paused"):
        attempt.check()
    attempt.fail("Cancelled - source paused", "Cancelled")
    assert control.state(config) == "source paused"
    control.source(is_paused=False)
    control.begun(config).succeed(control.loaded())


def test_an_attempt_cannot_be_given_up_while_it_commits(control: Any) -> None:
    # case 11 - between the last look and the commit
    control.source()
    config = control.table()
    attempt = control.begun(config)
    control.age(config, 5)  # its lease is over
    told: list[str] = []

    def monitor() -> None:
        client = LakebaseClient(control.settings)
        try:
            client.give_up(config, 1, "worker lost", only_expired=True)
            told.append("given up")
        except FencedError:
            told.append("refused")
        client.close()

    thread = threading.Thread(target=monitor)
    with attempt.hold():
        thread.start()
        control.wait_until_blocked(thread)
        assert attempt.heartbeat() == "continue"  # it does not wait for itself
        assert told == []
    thread.join()
    assert told == ["refused"]
    attempt.succeed(control.loaded())
    assert control.state(config) == "no schedule"


def test_a_commit_that_fails_lets_go(control: Any) -> None:
    control.source()
    config = control.table()
    attempt = control.begun(config)
    with pytest.raises(ZeroDivisionError), attempt.hold():
        raise ZeroDivisionError
    control.client.give_up(config, 1, "failed")
    with pytest.raises(FencedError), attempt.hold():
        pass


def test_the_signatures_of_the_client(control: Any) -> None:
    # case 9 - only rows that are not terminal are overwritten
    control.source()
    config = control.table(load_cron="* * * * *")
    key = control.row(config)["control_key"]
    assert [r["config_id"] for r in control.client.get_control_tables()] == [config]
    assert control.client.get_table_details(key)["db_type"] == "postgresql"
    with pytest.raises(NotFoundError, match="no table with control_key"):
        control.client.get_table_details("0" * 64)
    with pytest.raises(UsageError, match="carries no attempt"):
        control.client.update_control_status(config, "Failed", "x")
    attempt = control.claimed(config)
    with pytest.raises(UsageError, match=f"asked to write config {config + 1}"):
        attempt.update_control_status(config + 1, "Failed", "x")
    metadata_id = attempt.insert_initial_metadata(config)
    attempt.update_control_status(config, "In Progress", RUN)
    attempt.update_run_tracking(config, RUN, "https://w/jobs/1/runs/2")
    attempt.update_metadata(metadata_id, rows_read=5, log_message="half way")
    with pytest.raises(UsageError, match="takes no load_status"):
        attempt.update_metadata(metadata_id, load_status="Succeeded")
    with pytest.raises(UsageError, match="not 'Queued'"):
        attempt.update_control_status(config, "Queued")
    attempt.update_control_status(config, "Succeeded")
    (history,) = control.history(config)
    assert (history["databricks_run"], history["load_status"]) == ("https://w/jobs/1/runs/2", "Succeeded")
    with pytest.raises(FencedError):
        attempt.update_control_status(config, "Failed", "too late")
    assert control.row(config)["last_status"] == "Succeeded"
