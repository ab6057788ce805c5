"""Loads as Dagster runs them: a real run, a real worker process, a real source, the lake, the control database."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
from tests.dataloader.dagster.conftest import PLANTED, Control, tick

from quayside.dataloader.dagster.definitions import build_definitions
from quayside.dataloader.dagster.monitors import reconcile_monitor
from quayside.dataloader.dagster.sensors import master_sensor
from quayside.foundation.lake import Lake
from quayside.foundation.postgres import connect

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def run(instance: dg.DagsterInstance, request: dg.RunRequest, **resources: Any) -> dg.ExecuteInProcessResult:
    """The run that a request asks for, in this process; its worker is one of its own."""
    job = build_definitions(resources).resolve_job_def(str(request.job_name))
    return job.execute_in_process(
        run_config=request.run_config,
        tags={**request.tags, "dagster/run_key": str(request.run_key)},
        instance=instance,
        raise_on_error=False,
    )


def materialized(instance: dg.DagsterInstance, run_id: str) -> dict[str, dict[str, Any]]:
    """Asset key → metadata of every materialization of a run."""
    return {
        event.asset_key.to_user_string(): {
            k: v.value for k, v in event.step_materialization_data.materialization.metadata.items()
        }
        for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
        if (event := entry.dagster_event) and event.asset_key
    }


def until(condition: Callable[[], Any], seconds: float = 300, *, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)


def failure(result: dg.ExecuteInProcessResult) -> str:
    [event] = [e for e in result.all_events if e.is_step_failure]
    assert event.step_failure_data.error
    return event.step_failure_data.error.message


def test_a_table_from_due_to_loaded(control: Control, instance: dg.DagsterInstance):
    control.source()
    control.source_table("orders", rows=25)
    config_id = control.table(
        "orders",
        load_strategy="incremental",
        incremental_column="updated_at",
        incremental_type="timestamp",
        primary_key_cols="id",
    )
    [request] = tick(master_sensor, instance).run_requests
    result = run(instance, request)
    assert result.success, failure(result)
    row = control.row(config_id)
    assert (row["last_status"], row["attempt"]) == ("Succeeded", 1)
    assert row["last_dagster_run"] == f"http://localhost:3000/runs/{result.run_id}"
    assert row["incremental_value"].startswith("2026-01-01 00:25:00")
    shown = materialized(instance, result.run_id)
    assert shown["bronze/trade/orders"]["rows_read"] == 25
    assert shown["bronze/trade/orders"]["dagster/row_count"] == 25
    assert {c.name for c in shown["bronze/trade/orders"]["dagster/column_schema"].columns} == {
        "id",
        "label",
        "updated_at",
    }
    assert shown["dataloader__table_load"]["table"] == "bronze.trade.orders"
    with Lake(control.settings).connect(read_only=True) as con:
        assert con.execute('SELECT count(*) FROM lake."bronze.trade".orders').fetchall() == [(25,)]
    assert control.history(config_id) == [(1, "Succeeded")]


def test_a_run_whose_attempt_was_given_up_loads_nothing(control: Control, instance: dg.DagsterInstance):
    # cases 10 and 11: reset, claimed again, and only then the first run starts
    control.source()
    control.source_table("late")
    config_id = control.table("late")
    [first] = tick(master_sensor, instance).run_requests
    control.client.give_up(config_id, 1, "Cancelled - stuck in queue for >60 minutes", "Cancelled")
    control.client.reset_for_retry(config_id, "by hand")
    [second] = tick(master_sensor, instance).run_requests
    assert first.run_key != second.run_key
    result = run(instance, first)
    assert result.success
    assert materialized(instance, result.run_id) == {}
    assert control.status(config_id) == "Queued"
    found = instance.get_run_by_id(result.run_id)
    assert found is not None
    assert found.tags["outcome"] == "Fenced"
    assert run(instance, second).success
    assert control.history(config_id) == [(1, "Cancelled"), (2, "Succeeded")]


class Plane:
    """A plane on which something goes wrong; what happens before that is up to the test."""

    def __init__(self, happens: Callable[[Any, Any], None]) -> None:
        self.happens = happens

    def run(self, context: Any, extras: Any, listen: Any) -> None:
        self.happens(extras, listen)


def test_silence_is_failure_and_the_row_has_the_last_word(
    control: Control, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
):
    # cases 8 and 9: one table is left out, of one the message was lost after its row was written, one is fenced meanwhile
    from quayside.dataloader.result import LoadResult

    monkeypatch.setenv("DATALOADER_TABLES_PER_RUN", "5")
    control.source()
    ids = [control.table(name) for name in ("omitted", "unheard", "taken")]

    def happens(extras: Any, listen: Any) -> None:
        assert [t["config_id"] for t in extras["tables"]] == ids
        assert [control.status(c) for c in ids] == ["In Progress"] * 3
        control.client.for_attempt(ids[1], 1).succeed(LoadResult("loaded", "full", 7))
        control.client.give_up(ids[2], 1, "by somebody else")
        control.client.reset_for_retry(ids[2], "by hand")
        control.client.claim(1)
        raise OSError("no such machine")

    [request] = tick(master_sensor, instance).run_requests
    result = run(instance, request, execution_plane=Plane(happens))
    assert not result.success
    assert "Partial: 1 Failed, 1 Succeeded, 1 Fenced" in failure(result)
    assert [control.status(c) for c in ids] == ["Failed", "Succeeded", "Queued"]
    assert control.message(ids[0]) == "The worker said nothing of this table: no such machine"
    assert set(materialized(instance, result.run_id)) == {"bronze/trade/unheard"}
    assert control.open_history() == 1


def test_one_bad_table_of_a_batch(
    control: Control, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
):
    # case 7
    monkeypatch.setenv("DATALOADER_TABLES_PER_RUN", "12")
    monkeypatch.setenv("DATALOADER_SENSOR_BATCH_SIZE", "12")
    control.source()
    for n in range(11):
        control.source_table(f"good_{n}", rows=n + 1)
    good = [control.table(f"good_{n}") for n in range(11)]
    bad = control.table("not_there")
    [request] = tick(master_sensor, instance).run_requests
    result = run(instance, request)
    assert not result.success
    assert "Partial: 11 Succeeded, 1 Failed. 1 × " in failure(result)
    assert "not_there" in control.message(bad)
    assert [control.status(c) for c in good] == ["Succeeded"] * 11
    shown = materialized(instance, result.run_id)
    assert {key: m["rows_read"] for key, m in shown.items()} == {
        f"bronze/trade/good_{n}": n + 1 for n in range(11)
    }
    assert control.open_history() == 0


@pytest.mark.parametrize("wrong", ["secret", "host"])
def test_what_is_wrong_with_the_database_fails_a_batch_once(
    control: Control, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, wrong: str
):
    # case 31
    monkeypatch.setenv("DATALOADER_TABLES_PER_RUN", "12")
    if wrong == "secret":
        monkeypatch.delenv("SALES_PASSWORD")
    nobody = {"host": {"value": "127.0.0.1"}, "port": {"value": "1"}}
    control.source(db_config_value=nobody if wrong == "host" else {})
    ids = [control.table(f"t{n}") for n in range(6)]
    [request] = tick(master_sensor, instance).run_requests
    result = run(instance, request)
    assert "Failed: 6 Failed. 6 × " in failure(result)
    assert {control.status(c) for c in ids} == {"Failed"}
    [message] = {control.message(c) for c in ids}
    assert ("SALES_PASSWORD" if wrong == "secret" else "Source sales does not answer") in message


def test_a_planted_secret_is_nowhere(control: Control, instance: dg.DagsterInstance, tmp_path: Path):
    # case 38 (a success, a refusal and an unreachable source; every store, event and log is looked through)
    control.source()
    control.source("refusing", db_config_value={"user": {"value": "nobody_of_that_name"}})
    control.source("away", db_config_value={"host": {"value": "127.0.0.1"}, "port": {"value": "1"}})
    control.source_table("kept")
    ids = [control.table("kept")]
    ids += [control.table(key, db_config_key=key) for key in ("refusing", "away")]
    results = [run(instance, request) for request in tick(master_sensor, instance).run_requests]
    assert [result.success for result in results] == [True, False, False]
    assert [control.status(c) for c in ids] == ["Succeeded", "Failed", "Failed"]
    seen = [str(entry) for result in results for entry in instance.all_logs(result.run_id)]
    tables = control.execute(
        "SELECT format('%%I.%%I', table_schema, table_name) FROM information_schema.tables "
        "WHERE table_schema IN ('control', 'ops', 'usage', 'lake') AND table_type = 'BASE TABLE'"
    )
    for (table,) in tables:
        seen += [str(row) for row in control.execute(f"SELECT to_jsonb(t) FROM {table} t")]
    assert len(seen) > 100
    assert not [text for text in seen if PLANTED in text]
    folders = (control.settings.home, Path(instance.root_directory), tmp_path)
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [path for path in files if PLANTED.encode() in path.read_bytes()]


STARTED_BY_HAND = """
import json, sys
import dagster as dg
from dagster._utils.interrupts import capture_interrupts
from quayside.dataloader.dagster.definitions import build_definitions
from quayside.dataloader.dagster.plane import LocalPlane

defs = build_definitions({"execution_plane": LocalPlane(stop_seconds=5)})
request = json.loads(sys.argv[1])
with dg.DagsterInstance.get() as instance, capture_interrupts():
    defs.resolve_job_def(request["job"]).execute_in_process(
        run_config=request["config"], tags=request["tags"], run_id=request["run_id"], instance=instance)
"""


#: The server is shared with other tests, the database is not.
WAITING = (
    "SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'relation' "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)

EXPIRED = "SELECT 1 FROM control.table_control WHERE config_id = %s AND lease_expires_at < now()"


def workers(run: psutil.Process) -> list[psutil.Process]:
    """The worker among what a run has started; the others copy its output."""
    found = []
    for process in run.children():
        with suppress(psutil.Error):
            if any("dataloader_pipe" in word for word in process.cmdline()):
                found.append(process)
    return found


@contextmanager
def run_apart(instance: dg.DagsterInstance, request: dg.RunRequest, run_id: str) -> Iterator[psutil.Process]:
    """The run in a process of its own, as a launcher starts it."""
    argument = {"job": request.job_name, "config": request.run_config, "tags": request.tags, "run_id": run_id}
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", STARTED_BY_HAND, json.dumps(argument)],
        env=os.environ | {"DAGSTER_HOME": instance.root_directory},
        stderr=subprocess.DEVNULL,
    )
    try:
        yield psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("what", "ending", "status"),
    [
        ("worker killed", "Failed", "Failed"),
        ("run killed", "Cancelled", "Failed"),
        ("run cancelled", "Cancelled", "Failed"),
        ("source paused", "Cancelled", None),
        ("worker stopped", "Failed", "Failed"),
    ],
)
def test_ended_in_the_middle(
    control: Control,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    ending: str,
    status: str | None,
):
    # cases 1 and 3; the source lets go of nothing, so that no load could end by itself
    monkeypatch.setenv("DATALOADER_LEASE_SECONDS", "3")
    name = f"locked_{what.replace(' ', '_')}"
    control.source()
    control.source_table(name)
    config_id = control.table(name)
    [request] = tick(master_sensor, instance).run_requests
    with connect(control.settings) as blocker, run_apart(instance, request, str(uuid.uuid4())) as process:
        blocker.execute(f"LOCK TABLE public.{name} IN ACCESS EXCLUSIVE MODE".encode())
        until(lambda: control.execute(WAITING), what="the load reads")
        [worker] = workers(process)
        if what == "worker killed":
            worker.kill()
        elif what == "run killed":
            process.kill()
        elif what == "run cancelled":
            process.send_signal(signal.SIGINT)
        elif what == "worker stopped":  # it takes no signal but one
            worker.suspend()
            until(lambda: control.execute(EXPIRED, config_id), what="the lease runs out")
            tick(reconcile_monitor, instance)
            process.send_signal(signal.SIGINT)  # as the launcher does whose run the monitor cancels
        else:
            control.execute("UPDATE control.table_control_dbconfig SET is_paused = true")
        until(lambda: control.status(config_id) != "In Progress", what="the row is closed")
        until(
            lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE, what="the worker ends"
        )
    assert control.status(config_id) == status
    assert control.history(config_id) == [(1, ending)]
    with Lake(control.settings).connect(read_only=True) as con:
        assert not con.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = ?", [name]).fetchall()
