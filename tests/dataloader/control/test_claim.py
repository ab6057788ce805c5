"""Claiming: one at a time per destination and backfill, never more than a source allows, whoever claims at once."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from quayside.dataloader.control.claim import CLAIM, claim
from quayside.dataloader.control.client import LakebaseClient
from quayside.dataloader.request import LoadRequest

pytestmark = pytest.mark.integration


def at_once(count: int, work: Any) -> list[Any]:
    """What `work(i)` gave in so many threads that began together; what one raised is raised."""
    found: list[Any] = [None] * count
    failed: list[BaseException] = []
    barrier = threading.Barrier(count)

    def run(i: int) -> None:
        barrier.wait()
        try:
            found[i] = work(i)
        except BaseException as error:  # noqa: BLE001 - raised again in the test's own thread
            failed.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return found


def test_a_claim_gives_everything_a_load_needs_and_writes_row_and_history(control: Any) -> None:
    control.source(db_config_value={"host": "SHOP_HOST"}, db_kv_scope="file", application_name="quay", max_connections=3,
                   statement_timeout_seconds=60)  # fmt: skip
    config = control.table(
        load_strategy="incremental", incremental_column="Changed", incremental_type="timestamp",
        incremental_value="2026-01-01", primary_key_cols=["id", 'odd, "name"'], load_cron="0 6 * * *",
        incremental_lookback_hours=2, is_delete=True, delete_mode="hard", schema_contract="freeze",
    )  # fmt: skip
    (request,) = control.client.claim(10)
    assert request.config_id == config
    assert (request.attempt, request.db_type, request.db_kv_scope) == (1, "postgresql", "file")
    assert request.db_config_value == {"host": "SHOP_HOST"}
    assert request.primary_key_cols == ("id", 'odd, "name"')
    assert request.destination == ("bronze", "trade", "orders")
    assert (request.application_name, request.max_connections, request.statement_timeout_seconds) == (
        "quay",
        3,
        60,
    )
    assert (request.incremental_value, request.incremental_lookback_hours) == ("2026-01-01", 2)
    assert LoadRequest.of_json(json.loads(json.dumps(request.to_json()))) == request
    row, (history,) = control.row(config), control.history(config)
    assert (row["last_status"], row["attempt"]) == ("Queued", 1)
    assert history["id"] == request.metadata_id
    assert (history["attempt"], history["load_status"], history["cursor_before"]) == (1, None, "2026-01-01")
    assert history["control_key"] == row["control_key"] == request.control_key
    assert control.client.claim(10) == []  # case 13: it is not claimed again


def test_the_row_cap_is_a_setting_and_nothing_else(control: Any) -> None:
    # case 33 - no name of a destination caps a load
    control.source()
    control.table("devices", destination_catalog="dev", destination_schema_name="bronze_devices")
    (request,) = control.client.claim(1)
    assert request.row_cap is None
    capped = LakebaseClient(control.settings.model_copy(update={"dataloader_row_cap": 1000}))
    assert capped.queued()[0].row_cap == 1000
    capped.close()


def test_claims_go_by_priority_then_due_time_and_null_is_due_now(control: Any) -> None:
    # case 13
    control.source()
    now = datetime.now(UTC)
    order = [
        control.table("urgent", priority=9),
        control.table("oldest", next_load_date_time=(now - timedelta(hours=2)).isoformat()),
        control.table("older", next_load_date_time=(now - timedelta(hours=1)).isoformat()),
        control.table("null"),
        control.table("last", priority=-1, next_load_date_time=(now - timedelta(hours=9)).isoformat()),
    ]
    control.table(
        "not due", destination_table_name="x", next_load_date_time=(now + timedelta(hours=1)).isoformat()
    )
    assert [r["config_id"] for r in control.client.get_control_tables()] == order
    assert [r.config_id for r in control.client.claim(2)] == order[
        :2
    ]  # case 15: a tick takes no more than its limit
    assert [r.config_id for r in control.client.claim(9)] == order[2:]


def test_a_failed_row_is_not_claimed_again(control: Any) -> None:
    # case 13
    control.source()
    config = control.table()
    control.begun(config).fail("no such table")
    assert control.client.claim(10) == []
    control.client.reset_for_retry(config, "again", delay_seconds=3600)
    assert control.client.claim(10) == []
    assert control.state(config) == "not due"


def test_one_backfill_per_source_and_one_writer_per_destination_within_a_claim(control: Any) -> None:
    # cases 14, 43, 44
    control.source()
    control.source("other")
    backfill = {
        "load_strategy": "chunked_backfill", "incremental_column": "id", "incremental_type": "integer",
        "primary_key_cols": "id",
    }  # fmt: skip
    first = control.table("b1", **backfill, priority=1)
    second = control.table("b2", **backfill)
    elsewhere = control.table("b3", source="other", **backfill)
    hourly = control.table("orders", load_cron="0 * * * *", priority=2)
    weekly = control.table("orders", load_cron="0 0 * * 0")
    claimed = control.client.claim(10)
    assert [r.config_id for r in claimed] == [hourly, first, elsewhere]
    assert control.client.claim(10) == []
    assert f"config {first} is backfilling" in control.row(second)["reason"]
    # Two schedules of one table have keys, attempts and history of their own.
    assert control.row(hourly)["control_key"] != control.row(weekly)["control_key"]
    attempt = control.of(claimed[0])
    attempt.begin("run")
    attempt.succeed(control.loaded())
    assert [r.config_id for r in control.client.claim(10)] == [weekly]
    assert control.history(weekly)[0]["load_status"] is None
    assert control.history(hourly)[0]["load_status"] == "Succeeded"


def test_many_schedulers_claim_every_row_once(control: Any) -> None:
    # case 12
    control.source()
    rows = [control.table(f"t{i}", priority=i % 3) for i in range(40)]
    clients = [LakebaseClient(control.settings) for _ in range(8)]

    def drain(i: int) -> list[int]:
        found: list[int] = []
        while batch := clients[i].claim(3):
            assert len(batch) <= 3
            found += [r.config_id for r in batch]
        return found

    claimed = [config for batch in at_once(8, drain) for config in batch]
    assert sorted(claimed) == rows
    attempts = control.sql("SELECT config_id, attempt FROM control.historical_metadata")
    assert Counter(row["config_id"] for row in attempts) == Counter(rows)
    for client in clients:
        client.close()


def test_a_claim_waits_for_the_one_before_it_and_sees_what_that_took(control: Any) -> None:
    # case 12
    control.source(max_concurrent_loads=1)
    first, _ = control.table("a", priority=1), control.table("b")
    other = LakebaseClient(control.settings)
    found: list[LoadRequest] = []
    thread = threading.Thread(target=lambda: found.extend(other.claim(1)))
    with control.client.changes() as con:
        assert [row["config_id"] for row in claim(con, 1, timedelta(minutes=1))] == [first]
        thread.start()
        control.wait_until_blocked(thread)
    thread.join()
    other.close()
    assert found == []  # the source's one place was taken


def test_limits_hold_while_many_claim_and_finish_at_once(control: Any) -> None:
    # cases 12, 14 - seeded histories of claiming, starting, ending; the limits are looked at inside of each claim's effect
    dice = random.Random(20260630)
    limits = {"s1": 1, "s2": 2, "s3": 5}
    for key, limit in limits.items():
        control.source(key, max_concurrent_loads=limit)
    total = 0
    for key in limits:
        for i in range(8):
            kind = {"load_strategy": "chunked_backfill", "incremental_column": "i", "incremental_type": "integer",
                    "primary_key_cols": "i"} if i < 3 else {}  # fmt: skip
            control.table(f"{key}_{i}", source=key, **kind)
            total += 1
    # Whoever commits a row must find its source within limits at that moment: the database itself tells.
    control.sql(
        """
        CREATE FUNCTION control.watch_limits() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE running integer; backfills integer; allowed integer;
        BEGIN
            SELECT count(*), count(*) FILTER (WHERE load_strategy = 'chunked_backfill') INTO running, backfills
            FROM control.table_control
            WHERE db_config_key = NEW.db_config_key AND last_status IN ('Queued', 'In Progress');
            SELECT max_concurrent_loads INTO allowed FROM control.table_control_dbconfig
            WHERE db_config_key = NEW.db_config_key;
            IF running > allowed OR backfills > 1 THEN
                RAISE EXCEPTION 'over the limit: % of %, % backfills', running, allowed, backfills;
            END IF;
            RETURN NULL;
        END $$;
        CREATE CONSTRAINT TRIGGER watch_limits AFTER UPDATE OF attempt ON control.table_control
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION control.watch_limits();
        """
    )
    seeds = [dice.random() for _ in range(6)]
    done: list[int] = []
    try:

        def work(i: int) -> None:
            mine = random.Random(seeds[i])
            client = LakebaseClient(control.settings)
            while len(done) < total:
                for request in client.claim(mine.randint(1, 4)):
                    attempt = client.for_attempt(request.config_id, request.attempt)
                    attempt.begin("run")
                    attempt.succeed(control.loaded(strategy=request.load_strategy))
                    done.append(request.config_id)
            client.close()

        at_once(6, work)
    finally:
        control.sql(
            "DROP TRIGGER watch_limits ON control.table_control; DROP FUNCTION control.watch_limits()"
        )
    assert len(done) == len(set(done)) == total  # every due row was loaded, and none twice


def test_a_row_that_somebody_is_writing_is_skipped_and_not_waited_for(control: Any) -> None:
    control.source()
    held, free = control.table("held"), control.table("free")
    with control.client.changes() as con:
        con.execute("UPDATE control.table_control SET priority = 1 WHERE config_id = %s", (held,))
        other = LakebaseClient(control.settings)
        assert [r.config_id for r in other.claim(10)] == [free]
        other.close()


def test_a_changed_schedule_moves_the_next_time(control: Any) -> None:
    control.source()
    config = control.table(load_cron="0 0 1 1 *")
    control.begun(config).succeed(control.loaded())
    assert control.row(config)["next_load_date_time"] > datetime.now(UTC)
    control.sql("UPDATE control.table_control SET load_cron = '* * * * *' WHERE config_id = %s", config)
    control.client.claim(1)
    due = control.row(config)["next_load_date_time"]
    assert due - datetime.now(UTC) <= timedelta(minutes=1)
    control.sql("UPDATE control.table_control SET load_cron = '0 0 30 2 *' WHERE config_id = %s", config)
    control.client.claim(1)
    assert control.row(config)["next_load_date_time"] is None
    assert (control.state(config), "never comes" in control.row(config)["reason"]) == ("bad schedule", True)


def test_a_claim_does_not_get_slower_with_history(control: Any) -> None:
    control.source()
    control.table()
    insert = """
        INSERT INTO control.historical_metadata (config_id, control_key, attempt, source_table, target_catalog,
            target_schema, target_table, load_strategy, load_full, load_status, load_end_time)
        SELECT 1000000 + i % 50, 'k' || i % 50, i, 't', 'bronze', 's', 't', 'full', false, 'Succeeded', now()
        FROM generate_series(1, 20000) AS i
    """
    control.sql(insert)
    control.sql("ANALYZE control.historical_metadata")
    with control.client.changes() as con:
        plan = con.execute(
            "EXPLAIN (ANALYZE, FORMAT JSON) " + CLAIM, {"limit": 10, "lease": timedelta(minutes=1)}
        )
        nodes = list(_nodes(plan.fetchone()["QUERY PLAN"][0]["Plan"]))
    assert any(node["Node Type"] == "ModifyTable" for node in nodes)
    assert [
        n
        for n in nodes
        if n.get("Relation Name") == "historical_metadata" and n["Node Type"] != "ModifyTable"
    ] == []
    for question in (
        "claim",
        "running",
        "stuck_in_queue",
        "running_too_long",
        "expired",
        "queued",
        "close_leftovers",
    ):
        getattr(control.client, question)(*([10] if question == "claim" else []))
    leftovers = control.sql(
        "EXPLAIN (FORMAT JSON) SELECT id FROM control.historical_metadata h WHERE h.load_status IS NULL"
    )
    (scan,) = _nodes(leftovers[0]["QUERY PLAN"][0]["Plan"])
    assert scan.get("Index Name") == "historical_metadata_one_open"


def _nodes(plan: dict[str, Any]) -> Any:
    yield plan
    for child in plan.get("Plans", []):
        yield from _nodes(child)
