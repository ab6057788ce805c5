"""However many tables are due at once, what is started at once is bounded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster_pipes import encode_param
from tests.dataloader.dagster.conftest import Control, make_runs, tick

from quayside.dataloader.dagster.plane import script
from quayside.dataloader.dagster.sensors import master_sensor
from quayside.dataloader.request import LoadRequest
from quayside.foundation.lake import Lake
from quayside.foundation.settings import project_root

pytestmark = pytest.mark.integration

DUE = 64


@pytest.mark.slow
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


@pytest.mark.slow
def test_sixty_four_tables_in_eight_workers_at_once(
    control: Control, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """case 15: more workers than the queue starts by itself; nothing is lost or loaded twice, connections are bounded."""
    monkeypatch.setenv("QUAYSIDE_THREADS", "2")
    control.source()
    for number in range(DUE):
        control.source_table(f"c{number}", rows=number + 1)
        control.table(f"c{number}")
    tables = [
        control.client.for_attempt(r.config_id, r.attempt).begin("http://localhost/runs/1")
        for r in control.client.claim(DUE)
    ]
    workers = [started(tables[first::8], tmp_path / str(first)) for first in range(8)]
    most = 0
    while any(worker.poll() is None for worker in workers):
        [(now,)] = control.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        most = max(most, now)
        time.sleep(0.1)
    assert [worker.wait() for worker in workers] == [0] * 8
    assert most <= 8 * 12
    states = "SELECT last_status, count(*) FROM control.table_control GROUP BY 1"
    assert control.execute(states) == [("Succeeded", DUE)]
    loads = "SELECT count(*), count(DISTINCT config_id) FROM control.historical_metadata WHERE load_status = 'Succeeded'"
    assert control.execute(loads) == [(DUE, DUE)]
    assert control.open_history() == 0
    with closing(Lake(control.settings).connect(read_only=True)) as lake:
        each = (f'SELECT {n} AS n, count(*) AS held FROM lake."bronze.trade".c{n}' for n in range(DUE))
        wrong = f"SELECT n FROM ({' UNION ALL '.join(each)}) WHERE held <> n + 1"
        assert lake.execute(wrong).fetchall() == []


def started(tables: list[LoadRequest], folder: Path) -> subprocess.Popen[bytes]:
    """A worker as a run starts it."""
    folder.mkdir()
    context = {"extras": {"tables": [table.to_json() for table in tables]}, "run_id": "1", "job_name": "j", "retry_number": 0,
               "asset_keys": None, "code_version_by_asset_key": None, "provenance_by_asset_key": None,
               "partition_key": None, "partition_key_range": None, "partition_time_window": None}  # fmt: skip
    (folder / "context").write_text(json.dumps(context), "utf-8")
    where = {"DAGSTER_PIPES_CONTEXT": {"path": str(folder / "context")}, "DAGSTER_PIPES_MESSAGES": {"path": str(folder / "messages")}}  # fmt: skip
    environment = os.environ | {name: encode_param(value) for name, value in where.items()}
    with (folder / "log").open("wb") as log:
        return subprocess.Popen([sys.executable, str(script())], env=environment, stdout=log, stderr=log)
