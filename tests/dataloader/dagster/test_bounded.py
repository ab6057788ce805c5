"""However many tables are due at once, what is started at once is bounded."""

from __future__ import annotations

import dagster as dg
import pytest
import yaml
from tests.dataloader.dagster.conftest import Control, make_runs, tick

from quayside.dataloader.dagster.sensors import master_sensor
from quayside.foundation.settings import project_root

pytestmark = pytest.mark.integration

DUE = 64


def test_many_due_tables_are_bounded_at_every_step(
    control: Control, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    # case 15 - a tick takes its limit and no more, each table once; the queue starts a few of their runs at once
    control.source()
    for number in range(DUE):
        control.table(f"t{number}")
    requested: list[str] = []
    while (data := tick(master_sensor, instance)).run_requests:
        assert len(data.run_requests) <= 10
        requested += [request.tags["config_id"] for request in data.run_requests]
        make_runs(instance, data, dg.DagsterRunStatus.QUEUED)
    assert len(requested) == len(set(requested)) == DUE
    queue = yaml.safe_load((project_root() / "dagster.yaml").read_text("utf-8"))["run_coordinator"]
    assert queue["config"]["max_concurrent_runs"] < DUE


def test_in_batches_many_tables_are_few_processes(
    control: Control, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    # case 15 - 64 tables of one database are six runs, whose tables share one process each
    monkeypatch.setenv("DATALOADER_SENSOR_BATCH_SIZE", str(DUE))
    monkeypatch.setenv("DATALOADER_TABLES_PER_RUN", "12")
    control.source()
    for number in range(DUE):
        control.table(f"t{number}")
    requests = tick(master_sensor, instance).run_requests or []
    assert [int(request.tags["table_count"]) for request in requests] == [12, 12, 12, 12, 12, 4]
