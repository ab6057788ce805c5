"""What the control database itself makes impossible, by hand-written SQL as well; audit and readiness."""

from __future__ import annotations

import hashlib
import itertools
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from quayside.dataloader.schema import SCHEMA
from quayside.foundation.postgres.schema import revisions

pytestmark = pytest.mark.integration


def test_the_head_is_the_newest_revision() -> None:
    assert revisions(SCHEMA).get_current_head() == SCHEMA.head


def test_control_keys_do_not_collide(control: Any) -> None:
    # case 46
    parts = [None, "", "a", "b", "ab", "1:a", "-", "a,1:b"]
    keys = {
        control.sql("SELECT control.key_of(%s, %s, %s) AS key", *three)[0]["key"]
        for three in itertools.product(parts, repeat=3)
    }
    assert len(keys) == len(parts) ** 3


def test_a_control_key_is_sha_256_over_length_prefixed_parts(control: Any) -> None:
    control.source()
    key = control.row(control.table("Bestellungen ü", load_cron="0 6 * * *", destination_table_name="b"))[
        "control_key"
    ]
    text = "4:shop,-,6:public,15:Bestellungen ü,9:0 6 * * *,3:UTC"
    assert key == hashlib.sha256(text.encode()).hexdigest()


def test_the_same_table_and_schedule_exists_once_also_without_catalog_and_cron(control: Any) -> None:
    # case 46 - null parts are equal
    control.source()
    control.table()
    with pytest.raises(psycopg.errors.UniqueViolation, match="table_control_key"):
        control.sql(
            "INSERT INTO control.table_control (db_config_key, source_schema_name, source_table_name, "
            "destination_schema_name, destination_table_name) VALUES ('shop', 'public', 'orders', 'x', 'y')"
        )


@pytest.mark.parametrize(
    "change, constraint",
    [
        ("load_strategy = 'incremental '", "known_load_strategy"),
        ("last_status = 'queued'", "known_last_status"),
        ("delete_mode = 'sfot'", "known_delete_mode"),  # case 23: a typo is refused where it is made
        ("schema_contract = 'evolves'", "known_schema_contract"),
        ("incremental_type = 'date'", "known_incremental_type"),
        ("destination_table_name = 'a b'", "legal_destination_table"),  # case 34
        ("destination_schema_name = ''", "legal_destination_schema"),
        ("destination_catalog = 'a.b'", "legal_destination_catalog"),
        ("load_cron = '* * * *'", "legal_load_cron"),
        ("load_cron = '60 * * * *'", "legal_load_cron"),
        ("load_cron = '@daily'", "legal_load_cron"),
        ("load_timezone = 'Mars/Olympus'", "legal_load_timezone"),
        ("last_status = 'Queued'", "running_has_a_lease"),
        ("review_required = true", "review_is_of_failed"),
        ("load_strategy = 'append_only'", "strategy_needs_incremental_column"),
        ("load_strategy = 'scd2'", "strategy_needs_primary_key"),
        ("is_delete = true", "strategy_needs_primary_key"),
        ("load_strategy = 'rolling', primary_key_cols = 'id'", "strategy_needs_rolling_column"),
        ("db_config_key = 'nowhere'", "table_control_db_config_key_fkey"),
        ("next_load_date_time = 'infinity'", "table_control_next_load_date_time_check"),
    ],
)
def test_sql_by_hand_is_held_to_the_rules(control: Any, change: str, constraint: str) -> None:
    control.source()
    control.table()
    with pytest.raises(psycopg.IntegrityError) as refused:
        control.sql(f"UPDATE control.table_control SET {change}")
    assert refused.value.diag.constraint_name == constraint


def test_usual_schedules_are_legal(control: Any) -> None:
    control.source()
    config = control.table()
    for cron in (
        "*/5 * * * *",
        "0 6 * * MON-FRI",
        "0,30 8-18/2 1,15 jan-mar *",
        "59 23 31 12 7",
        "  0 6  * * * ",
    ):
        control.sql("UPDATE control.table_control SET load_cron = %s WHERE config_id = %s", cron, config)


def test_two_sources_do_not_write_one_destination(control: Any) -> None:
    # case 44
    control.source()
    control.table()
    insert = (
        "INSERT INTO control.table_control (is_active, db_config_key, source_table_name, destination_schema_name, "
        "destination_table_name, load_strategy, incremental_column, incremental_type, source_schema_name, load_cron) "
        "VALUES (true, 'shop', %s, 'Trade', 'ORDERS', %s, 'id', 'integer', 'public', '0 6 * * *')"
    )
    with pytest.raises(psycopg.errors.UniqueViolation, match="loaded by config"):
        control.sql(insert, "orders_old", "full")
    with pytest.raises(psycopg.errors.UniqueViolation, match="history of its own"):
        control.sql(insert, "orders", "append_only")
    control.sql(insert, "orders", "full")  # another schedule of the same source is fine
    assert len(control.client.get_control_tables(None)) == 2


def test_a_source_with_tables_cannot_be_deleted_and_can_be_renamed(control: Any) -> None:
    control.source()
    config = control.table()
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        control.sql("DELETE FROM control.table_control_dbconfig")
    control.sql("UPDATE control.table_control_dbconfig SET db_config_key = 'store'")
    assert control.row(config)["db_config_key"] == "store"


def test_every_change_of_configuration_is_audited_and_status_is_not(control: Any) -> None:
    # case 39
    control.source(max_concurrent_loads=2)
    config = control.table()
    control.sql("UPDATE control.table_control SET priority = 5, destination_schema_name = 'trade'")  # by hand
    control.sql("UPDATE control.table_control SET priority = 5")  # changes nothing
    attempt = control.begun(config)
    attempt.heartbeat(rows=1)
    attempt.succeed(control.loaded(cursor_after="7"))
    control.sql("UPDATE control.table_control SET incremental_value = '3'")  # a person moves the cursor
    control.sql("UPDATE control.table_control_dbconfig SET is_paused = true")
    control.sql("DELETE FROM control.table_control")
    found = [
        (r["subject"], r["change_type"], r["changed_fields"])
        for r in control.sql("SELECT * FROM control.table_control_history ORDER BY history_id")
    ]
    assert [f[:2] for f in found[:2]] == [("source", "INSERT"), ("table", "INSERT")]
    assert found[2:] == [
        ("table", "UPDATE", ["priority"]),
        ("table", "UPDATE", ["incremental_value"]),
        ("source", "UPDATE", ["is_paused"]),
        ("table", "DELETE", found[-1][2]),
    ]
    changed = control.sql("SELECT * FROM control.table_control_history WHERE changed_fields = '{priority}'")[
        0
    ]
    assert (changed["old_values"]["priority"], changed["new_values"]["priority"]) == (0, 5)
    assert changed["change_source"] == "sql"
    assert changed["changed_by"].startswith("user:")
    assert control.history(config)[0]["load_status"] == "Succeeded"  # deleting the row keeps its history
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
        control.sql("DELETE FROM control.table_control_history")


def test_an_audited_change_names_the_database_user_without_a_session_setting(control: Any) -> None:
    control.source()
    control.table()
    from quayside.foundation.postgres import connect

    with connect(control.settings) as con:  # psql, as it were
        con.execute("UPDATE control.table_control SET priority = 9")
    changed = control.sql("SELECT * FROM control.table_control_history WHERE changed_fields = '{priority}'")[
        0
    ]
    assert changed["changed_by"] == control.sql("SELECT session_user AS me")[0]["me"]
    assert (
        control.sql("SELECT last_modified_user AS who FROM control.table_control")[0]["who"]
        == changed["changed_by"]
    )


def test_every_row_is_visible_with_its_reason(control: Any) -> None:
    # cases 13, 14
    later = (datetime.now(UTC) + timedelta(days=2)).isoformat()
    control.source("shop")
    control.source("limited", max_concurrent_loads=1)
    control.source("paused", is_paused=True, paused_reason="month end")
    control.source("nights", load_windows=[_closed_window()])
    control.source("big")
    backfill = {
        "load_strategy": "chunked_backfill", "incremental_column": "id", "incremental_type": "integer",
        "primary_key_cols": "id", "source": "big",
    }  # fmt: skip
    ids = {
        "busy destination": control.table("busy"),
        "limit": control.table("t1", source="limited"),
        "backfill": control.table("b1", **backfill),
        "failed": control.table("failed"),
        "review": control.table("review"),
        "given up": control.table("hopeless"),
        "queued": control.table("queued"),
    }
    attempts = {r.config_id: control.of(r) for r in control.client.claim(50)}
    assert len(attempts) == len(ids)
    for name in ("busy destination", "limit", "backfill", "failed", "review", "given up"):
        attempts[ids[name]].begin("run")
    for name in ("failed", "review", "given up"):
        attempts[ids[name]].fail("disk full")
    control.client.mark_for_review(ids["review"], "looks permanent")
    control.sql("UPDATE control.table_control SET retry_count = 3 WHERE config_id = %s", ids["given up"])

    draft = control.table("draft", source=None, is_active=False)
    control.sql("UPDATE control.table_control SET is_active = true WHERE config_id = %s", draft)
    expected = {
        ids["failed"]: ("failed", "waits for retry analysis or a reset: disk full"),
        ids["review"]: ("under review", "waits for a person: looks permanent"),
        ids["given up"]: ("failed", "3 attempts failed since the last success"),
        ids["queued"]: ("queued", "attempt 1 waits for its run"),
        ids["limit"]: ("in progress", "attempt 1 is loading since"),
        draft: ("missing database", "db_config_key is null"),
        control.table("off", is_active=False): ("inactive", "is_active is false"),
        control.table("later", next_load_date_time=later): ("not due", "due at"),
        control.table("zoned", next_load_date_time="2099-07-01 10:00+00", load_timezone="Europe/Zurich"): (
            "not due", "due at 2099-07-01 12:00:00 Europe/Zurich",
        ),
        control.table("p", source="paused"): ("source paused", "source paused is paused: month end"),
        control.table("n", source="nights"): ("outside window", "takes loads only in"),
        control.table("t2", source="limited"): ("source limit", "source limited has 1 of 1 loads running"),
        control.table("b2", **backfill): ("backfill gate", f"config {ids['backfill']} is backfilling from source big"),
        control.table("busy", load_cron="0 6 * * *"): (
            "destination busy", f"config {ids['busy destination']} is writing the same destination",
        ),
        control.table("now"): ("ready", "due now"),
        control.table("overdue", next_load_date_time="2026-01-01 00:00+00"): ("ready", "due since 2026-01-01 00:00:00 UTC"),
    }  # fmt: skip
    rows = {
        row["config_id"]: (row["state"], row["reason"]) for row in control.client.get_control_tables(None)
    }
    for config, (state, reason) in expected.items():
        assert rows[config][0] == state
        assert reason in rows[config][1]
    assert len(rows) == len(set(ids.values()) | expected.keys())  # nothing is invisible
    ready = {config for config, (state, _) in rows.items() if state == "ready"}
    assert {r.config_id for r in control.client.claim(50)} == ready  # the reason and the claim agree


def _closed_window() -> dict[str, Any]:
    """A window of one day of the week that is not now, nor around now."""
    day = (datetime.now(UTC) + timedelta(days=3)).strftime("%a").lower()
    return {"days": [day], "from": "08:00", "to": "09:00", "zone": "UTC"}


@pytest.mark.parametrize(
    "window, moment, inside",
    [
        ({"from": "08:00", "to": "18:00"}, "2026-06-01 08:00+00", True),
        ({"from": "08:00", "to": "18:00"}, "2026-06-01 18:00+00", False),
        ({"from": "08:00", "to": "18:00", "zone": "Europe/Zurich"}, "2026-06-01 06:30+00", True),
        ({"from": "22:00", "to": "06:00"}, "2026-06-01 23:00+00", True),
        ({"from": "22:00", "to": "06:00"}, "2026-06-01 05:59+00", True),
        ({"from": "22:00", "to": "06:00"}, "2026-06-01 12:00+00", False),
        ({"from": "22:00", "to": "06:00", "days": ["mon"]}, "2026-06-02 05:00+00", True),  # Monday's night
        ({"from": "22:00", "to": "06:00", "days": ["mon"]}, "2026-06-01 05:00+00", False),
        ({"from": "00:00", "to": "24:00", "days": ["sat", "sun"]}, "2026-06-06 23:59+00", True),
        ({"from": "00:00", "to": "24:00", "days": ["sat", "sun"]}, "2026-06-05 23:59+00", False),
    ],
)
def test_load_windows(control: Any, window: dict[str, Any], moment: str, inside: bool) -> None:
    found = control.sql("SELECT control.in_load_window(%s::jsonb, %s) AS yes", json.dumps([window]), moment)
    assert found[0]["yes"] is inside


@pytest.mark.parametrize(
    "windows, problem",
    [
        ({}, "is not a list"),
        ([{"from": "08:00"}], "no from or no to"),
        ([{"from": "08:00", "to": "25:00"}], "a time that is none"),
        ([{"from": "08:00", "to": "09:00", "zone": "Nowhere"}], "unknown zone"),
        ([{"from": "08:00", "to": "09:00", "days": ["Monday"]}], "days other than"),
        ([{"from": "08:00", "to": "09:00", "day": "mon"}], "knows days, from, to and zone"),
    ],
)
def test_a_malformed_window_is_refused(control: Any, windows: Any, problem: str) -> None:
    from quayside.foundation.errors import InputError

    with pytest.raises(InputError, match=problem):
        control.source(load_windows=windows)
