"""What monitors find and close: stuck, too long, dead, orphaned; active or not."""

from __future__ import annotations

from typing import Any

import pytest

from quayside.dataloader.errors import FencedError

pytestmark = pytest.mark.integration


def test_monitors_find_what_is_stuck_also_when_inactive(control: Any) -> None:
    # cases 6, 41, 42
    control.source()
    backfill = {
        "load_strategy": "chunked_backfill", "incremental_column": "id", "incremental_type": "integer",
        "primary_key_cols": "id",
    }  # fmt: skip
    waits, loads, fills = control.table("waits"), control.table("loads"), control.table("fills", **backfill)
    for request in control.client.claim(10):
        if request.config_id != waits:
            control.of(request).begin("http://localhost:3000/runs/r7")
    control.sql("UPDATE control.table_control SET is_active = false")
    for config in (waits, loads, fills):
        control.age(config, 61)
    assert [(a.config_id, a.is_active) for a in control.client.stuck_in_queue(60)] == [(waits, False)]
    assert control.client.stuck_in_queue(62) == []
    assert control.client.running_too_long(180) == []
    assert {a.config_id for a in control.client.expired()} == {loads, fills}
    for config in (loads, fills):
        control.age(config, 125)
    (long,) = control.client.running_too_long()  # 186 minutes are too long for a load and not for a backfill
    assert (long.config_id, long.run_id, long.run) == (loads, "r7", "http://localhost:3000/runs/r7")
    control.age(fills, 24 * 60)
    assert {a.config_id for a in control.client.running_too_long()} == {loads, fills}
    for attempt in control.client.running():
        control.client.give_up(attempt.config_id, attempt.attempt, "Cancelled - stuck", "Cancelled")
    assert control.client.running() == []
    assert {h["load_status"] for c in (waits, loads, fills) for h in control.history(c)} == {"Cancelled"}


def test_a_lease_that_was_extended_is_not_given_up(control: Any) -> None:
    # case 1
    control.source()
    config = control.table()
    attempt = control.begun(config)
    control.age(config, 5)
    (dead,) = control.client.expired()
    attempt.heartbeat()
    with pytest.raises(FencedError):
        control.client.give_up(dead.config_id, dead.attempt, "worker lost", only_expired=True)
    control.age(config, 5)
    control.client.give_up(dead.config_id, dead.attempt, "worker lost", only_expired=True)
    assert control.row(config)["last_status_message"] == "worker lost"


def test_open_history_without_its_row_is_closed(control: Any) -> None:
    control.source()
    gone, moved, runs = control.table("gone"), control.table("moved"), control.table("runs")
    assert len(control.client.claim(10)) == 3
    control.sql("DELETE FROM control.table_control WHERE config_id = %s", gone)
    control.sql("UPDATE control.table_control SET last_status = 'Failed' WHERE config_id = %s", moved)
    closed = control.client.close_leftovers()
    assert sorted(row["config_id"] for row in closed) == [gone, moved]
    assert control.history(runs)[0]["load_status"] is None
    assert control.history(gone)[0]["log_message"] == "Closed: the control row moved on without this attempt"


def test_a_queued_row_without_a_run_is_queued_again_and_fails_in_the_end(control: Any) -> None:
    # case 2
    control.source()
    config = control.table()
    (request,) = control.client.claim(1)
    assert control.client.queued() == [request]  # for whoever creates its run after all
    assert control.client.queued(older_than_seconds=60) == []
    assert control.client.requeue(config, 1, "its run was never created")
    assert control.state(config) == "ready"
    assert control.client.claim(1)[0].attempt == 2
    assert control.client.requeue(config, 2, "its run was never created")
    control.client.claim(1)
    assert not control.client.requeue(config, 3, "its run was never created")
    row = control.row(config)
    assert (row["state"], row["retry_count"]) == ("failed", 3)
    assert [h["load_status"] for h in control.history(config)] == ["Cancelled", "Cancelled", "Failed"]


def test_a_queued_row_whose_run_began_is_not_queued_again(control: Any) -> None:
    control.source()
    config = control.table()
    control.begun(config)
    with pytest.raises(FencedError):
        control.client.requeue(config, 1, "its run was never created")


def test_what_nobody_sees_to_is_told(control: Any) -> None:
    # case 3 - all sensors off, which no sensor can say
    control.source()
    ready, silent, queued = (control.table(name) for name in ("ready", "silent", "queued"))
    assert control.client.unattended() == []  # it has been due for a moment only
    for request in control.client.claim(10):
        if request.config_id == silent:
            control.of(request).begin("http://localhost:3000/runs/r1")
        elif request.config_id == ready:
            control.sql("UPDATE control.table_control SET last_status = NULL WHERE config_id = %s", ready)
    control.sql("UPDATE control.table_control SET next_load_date_time = now() - interval '1 day'")
    assert control.client.unattended() == []  # the last claim was a moment ago
    for config in (ready, silent, queued):
        control.age(config, 90)
    control.sql("UPDATE control.historical_metadata SET load_queued_time = now() - interval '25 minutes'")
    said = control.client.unattended()
    assert [sentence.partition(":")[0] for sentence in said] == [
        "1 tables are ready and none was claimed for 25 minutes",
        "1 tables are In Progress without a heartbeat for more than 10 minutes and were not closed",
        "1 tables have been Queued for more than 80 minutes",
    ]
