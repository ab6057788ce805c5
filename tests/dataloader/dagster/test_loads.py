"""Loads as Dagster runs them: a real run, a real worker process, a real source, the lake, the control database."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest
from tests.dataloader.dagster.conftest import Control, tick

from quayside.dataloader.dagster.definitions import build_definitions
from quayside.dataloader.dagster.sensors import master_sensor
from quayside.foundation.lake import Lake

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


def materialized(result: dg.ExecuteInProcessResult) -> dict[str, dict[str, Any]]:
    """Asset key → metadata of every materialization of a run."""
    return {
        event.asset_key.to_user_string(): {k: v.value for k, v in event.materialization.metadata.items()}
        for event in result.get_asset_materialization_events()
        if event.asset_key
    }


def failure(result: dg.ExecuteInProcessResult) -> str:
    [event] = [e for e in result.all_events if e.is_step_failure]
    assert event.step_failure_data.error
    return event.step_failure_data.error.message


def test_a_table_from_due_to_loaded(control: Control, instance: dg.DagsterInstance):
    control.source()
    control.source_table("orders", rows=25)
    config_id = control.table("orders", load_strategy="incremental", incremental_column="updated_at",
                              incremental_type="timestamp", primary_key_cols="id")  # fmt: skip
    [request] = tick(master_sensor, instance).run_requests
    result = run(instance, request)
    assert result.success, failure(result)
    row = control.row(config_id)
    assert (row["last_status"], row["attempt"]) == ("Succeeded", 1)
    assert row["last_dagster_run"] == f"http://localhost:3000/runs/{result.run_id}"
    assert row["incremental_value"].startswith("2026-01-01 00:25:00")
    shown = materialized(result)
    assert shown["bronze/trade/orders"]["rows_read"] == 25
    assert shown["bronze/trade/orders"]["dagster/row_count"] == 25
    assert {c.name for c in shown["bronze/trade/orders"]["dagster/column_schema"].columns} == {"id", "label", "updated_at"}
    assert shown["dataloader__table_load"]["table"] == "bronze.trade.orders"
    with Lake(control.settings).connect(read_only=True) as con:
        assert con.execute('SELECT count(*) FROM lake."bronze.trade".orders').fetchall() == [(25,)]
    assert control.history(config_id) == [(1, "Succeeded")]
