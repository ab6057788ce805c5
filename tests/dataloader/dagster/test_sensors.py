"""The sensors on a real control database and an ephemeral instance with real run records."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest
from dagster._core.events import JobFailureData
from tests.dataloader.dagster.conftest import Control, add_run, make_runs, tick

from quayside.dataloader.dagster.monitors import longqueued_monitor, longrunning_monitor, reconcile_monitor
from quayside.dataloader.dagster.resources import LakebaseResource
from quayside.dataloader.dagster.run_status import run_canceled_sensor, run_failed_sensor
from quayside.dataloader.dagster.sensors import master_sensor
from quayside.dataloader.result import LoadResult

pytestmark = pytest.mark.integration

QUEUED, STARTED, SUCCESS = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.SUCCESS,
)


def test_a_tick_claims_requests_and_says_when_there_is_nothing(
    control: Control, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
):
    # case 15 (a tick takes no more than its limit, whatever is due; the run queue bounds what runs at once)
    monkeypatch.setenv("DATALOADER_SENSOR_BATCH_SIZE", "2")
    control.source()
    first, second, third = (control.table(name, priority=p) for name, p in (("a", 5), ("b", 1), ("c", 3)))
    data = tick(master_sensor, instance)
    assert [r.tags["config_id"] for r in data.run_requests] == [str(first), str(third)]
    assert [control.status(c) for c in (first, second, third)] == ["Queued", None, "Queued"]
    make_runs(instance, data, QUEUED)
    data = tick(master_sensor, instance)
    assert [r.tags["config_id"] for r in data.run_requests] == [str(second)]
    make_runs(instance, data, QUEUED)
    data = tick(master_sensor, instance)
    assert not data.run_requests
    assert "No table is ready" in data.skip_message


def test_what_a_tick_claimed_and_did_not_request_the_next_one_requests(
    control: Control, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
):
    # case 2 (the daemon died between the claim and the run)
    control.source()
    ids = [control.table(name) for name in ("a", "b", "c")]
    lost = tick(master_sensor, instance)
    made = make_runs(instance, lost, QUEUED)
    instance.delete_run(made[0].run_id)
    instance.delete_run(made[2].run_id)
    assert not tick(master_sensor, instance).run_requests  # too young
    for config_id in ids:
        control.age(config_id, 1)
    again = tick(master_sensor, instance)
    keys = [r.run_key for r in lost.run_requests]
    assert [r.run_key for r in again.run_requests] == [keys[0], keys[2]]
    assert [control.row(c)["attempt"] for c in ids] == [1, 1, 1]

    # the same in batches, of which one holds a table that has a run
    monkeypatch.setenv("DATALOADER_TABLES_PER_RUN", "5")
    again = tick(master_sensor, instance)
    [batch] = again.run_requests
    assert batch.tags["attempts"] == f"{ids[0]}:1,{ids[2]}:1"
    make_runs(instance, again, QUEUED)
    assert not tick(master_sensor, instance).run_requests


def test_a_row_whose_run_never_comes_is_queued_anew_and_fails_the_third_time(
    control: Control, instance: dg.DagsterInstance
):
    # case 2, with the master sensor switched off meanwhile
    control.source()
    config_id = control.table("a")
    for attempt, status in ((1, None), (2, None), (3, "Failed")):
        control.client.claim(1)
        assert "No table was left behind" in tick(reconcile_monitor, instance).skip_message
        control.age(config_id, 6)
        tick(reconcile_monitor, instance)
        assert control.status(config_id) == status
        assert control.history(config_id)[-1] == (attempt, "Failed" if status else "Cancelled")
    assert control.open_history() == 0


def test_a_deferred_backfill_is_named(
    control: Control, instance: dg.DagsterInstance, capsys: pytest.CaptureFixture[str]
):
    # case 14 - it waits, and the log of the tick says which one and why
    control.source()
    backfill = {"load_strategy": "chunked_backfill", "incremental_column": "id", "incremental_type": "integer",
                "primary_key_cols": "id"}  # fmt: skip
    control.table("a", **backfill)
    control.table("b", **backfill)
    data = tick(master_sensor, instance)
    assert [r.tags["dagster/max_runtime"] for r in data.run_requests] == ["86400"]
    said = capsys.readouterr().err  # where a tick's log goes without a daemon
    assert "bronze.trade.b is deferred: config " in said
    assert "bronze.trade.a is deferred" not in said
    [row] = control.client.get_control_tables("backfill gate")
    assert row["destination_table_name"] == "b"


def test_stuck_in_the_queue(control: Control, instance: dg.DagsterInstance):
    # cases 6, 11 and 42: the row was deactivated meanwhile; its run is cancelled and, should it start, loads nothing
    control.source()
    config_id = control.table("a")
    [run] = make_runs(instance, tick(master_sensor, instance), QUEUED)
    control.execute("UPDATE control.table_control SET is_active = false WHERE config_id = %s", config_id)
    assert "No table" in tick(longqueued_monitor, instance).skip_message
    control.age(config_id, 61)
    tick(longqueued_monitor, instance)
    assert control.status(config_id) == "Failed"
    assert control.message(config_id) == "Cancelled - stuck in queue for >60 minutes"
    assert control.history(config_id) == [(1, "Cancelled")]
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    assert found.status == dg.DagsterRunStatus.CANCELED


@pytest.mark.parametrize("form", ["https://dagster.example/runs/{}", "{}"])
def test_loading_for_too_long(control: Control, instance: dg.DagsterInstance, form: str):
    # cases 5 and 6: neither the run's config nor an active row is needed, and the run is named by URL or id
    control.source()
    config_id = control.table("a")
    run = add_run(instance, QUEUED)
    [request] = control.client.claim(1)
    control.client.for_attempt(config_id, request.attempt).begin(form.format(run.run_id))
    control.execute("UPDATE control.table_control SET is_active = false WHERE config_id = %s", config_id)
    control.age(config_id, 184)
    tick(longrunning_monitor, instance)
    assert control.status(config_id) == "In Progress"
    control.age(config_id, 2)
    tick(longrunning_monitor, instance)
    assert control.message(config_id) == "Cancelled - exceeded 180 minute timeout"
    assert control.history(config_id) == [(1, "Cancelled")]
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    assert found.status == dg.DagsterRunStatus.CANCELED


def test_a_backfill_has_a_day(control: Control, instance: dg.DagsterInstance):
    # case 41
    control.source()
    config_id = control.table("a", load_strategy="chunked_backfill", incremental_column="id",
                              incremental_type="integer", primary_key_cols="id")  # fmt: skip
    [request] = control.client.claim(1)
    control.client.for_attempt(config_id, request.attempt).begin("nowhere")
    control.age(config_id, 24 * 60)
    tick(longrunning_monitor, instance)
    assert control.status(config_id) == "In Progress"
    control.age(config_id, 6)
    tick(longrunning_monitor, instance)
    assert control.message(config_id) == "Cancelled - exceeded 1440 minute timeout"


def test_one_slow_table_of_a_batch_does_not_take_its_run_away_from_the_others(
    control: Control, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DATALOADER_TABLES_PER_RUN", "5")
    control.source()
    ids = [control.table(name) for name in ("a", "b")]
    [run] = make_runs(instance, tick(master_sensor, instance), QUEUED)
    for config_id in ids:
        control.client.for_attempt(config_id, 1).begin(run.run_id)
    control.age(ids[0], 190)
    tick(longrunning_monitor, instance)
    assert [control.status(c) for c in ids] == ["Failed", "In Progress"]
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    assert found.status == QUEUED
    control.age(ids[1], 190)
    tick(longrunning_monitor, instance)
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    assert found.status == dg.DagsterRunStatus.CANCELED


def test_reconcile_closes_what_was_left_behind(control: Control, instance: dg.DagsterInstance):
    # cases 1, 4, 5, 6: worker dead, run over without a word, run gone; and what is alive stays
    control.source()
    names = ("dead", "over", "gone", "alive", "waiting", "never_began", "young")
    ids = {name: control.table(name) for name in names}
    made = make_runs(instance, tick(master_sensor, instance), STARTED)
    runs = dict(zip(names, sorted(made, key=lambda r: int(r.tags["config_id"])), strict=True))
    for name in ("dead", "over", "gone", "alive", "young"):
        control.client.for_attempt(ids[name], 1).begin(f"http://x/runs/{runs[name].run_id}")
        control.age(ids[name], 4)
    for name in ("over", "never_began", "young"):
        run = runs[name]
        ended = datetime.now(UTC).timestamp() - (-600 if name == "young" else 100)
        instance.report_run_failed(run) if name == "never_began" else instance.run_storage.handle_run_event(
            run.run_id, _ended(run), datetime.fromtimestamp(ended, UTC)
        )
    instance.delete_run(runs["gone"].run_id)
    control.execute(
        "UPDATE control.table_control SET is_active = false, lease_expires_at = now() - interval '1 s' "
        "WHERE config_id IN (%s, %s)", ids["dead"], ids["gone"],
    )  # fmt: skip
    tick(reconcile_monitor, instance)
    status = {name: control.status(config_id) for name, config_id in ids.items()}
    assert status == {
        "dead": "Failed", "over": "Failed", "gone": "Failed", "alive": "In Progress", "waiting": "Queued",
        "never_began": "Queued", "young": "In Progress",
    }  # fmt: skip
    assert control.message(ids["dead"]).startswith("Worker lost: no heartbeat")
    assert "the worker wrote no outcome" in control.message(ids["over"])
    assert control.open_history() == 4


def test_the_run_of_a_worker_that_hangs_is_cancelled(control: Control, instance: dg.DagsterInstance):
    # case 1 - one that is stopped does not beat, and its run would wait for it for hours
    control.source()
    config_id = control.table("a")
    run = add_run(instance, QUEUED)
    [request] = control.client.claim(1)
    control.client.for_attempt(config_id, request.attempt).begin(run.run_id)
    control.execute("UPDATE control.table_control SET lease_expires_at = now() - interval '1 s'")
    tick(reconcile_monitor, instance)
    assert control.message(config_id).startswith("Worker lost: no heartbeat")
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    assert found.status == dg.DagsterRunStatus.CANCELED


@pytest.mark.parametrize("told_by", ["tags", "config", "row"])
def test_a_run_that_ends_badly_takes_its_open_rows_along(
    control: Control, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, told_by: str
):
    # cases 3 and 5 (with tags or config gone, the row that names the run is enough), 9 (what is over stays)
    monkeypatch.setenv("DATALOADER_TABLES_PER_RUN", "5")
    control.source()
    ids = [control.table(name) for name in ("loading", "loaded", "waiting")]
    [request] = tick(master_sensor, instance).run_requests
    run = add_run(
        instance,
        STARTED,
        str(request.job_name),
        run_config=request.run_config if told_by == "config" else {"ops": "unreadable"},
        tags=request.tags if told_by == "tags" else {},
    )
    for config_id in ids[:2]:
        control.client.for_attempt(config_id, 1).begin(f"http://x/runs/{run.run_id}")
    control.client.for_attempt(ids[1], 1).succeed(LoadResult("loaded", "full", 3))
    status_of(run_canceled_sensor, instance, run)
    waiting = "Queued" if told_by == "row" else "Failed"
    assert [control.status(c) for c in ids] == ["Failed", "Succeeded", waiting]
    assert control.message(ids[0]) == "Cancelled - its run was cancelled"
    assert control.history(ids[0]) == [(1, "Cancelled")]


def test_a_run_that_could_not_be_started_fails_its_row(control: Control, instance: dg.DagsterInstance):
    control.source()
    config_id = control.table("a")
    [run] = make_runs(instance, tick(master_sensor, instance), STARTED)
    status_of(run_failed_sensor, instance, run)
    assert control.message(config_id) == "Its run failed: no such image"
    assert control.history(config_id) == [(1, "Failed")]


def status_of(sensor: Any, instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """What the daemon does when a run has ended."""
    event = dg.DagsterEvent(
        dg.DagsterEventType.RUN_FAILURE.value,
        job_name=run.job_name,
        message="no such image",
        event_specific_data=JobFailureData(None),
    )
    context = dg.build_run_status_sensor_context(
        sensor_name=sensor.name,
        dagster_event=event,
        dagster_instance=instance,
        dagster_run=run,
        resources={"lakebase": LakebaseResource()},
    )
    sensor(context.for_run_failure() if sensor is run_failed_sensor else context)


def _ended(run: dg.DagsterRun) -> dg.DagsterEvent:
    return dg.DagsterEvent(
        event_type_value=dg.DagsterEventType.RUN_SUCCESS.value, job_name=run.job_name, message="over"
    )
