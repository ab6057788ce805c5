"""However many tables are due at once, what is started at once is bounded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster_pipes import encode_param
from tests.dataloader.dagster.conftest import Control, make_runs, tick
from tests.dataloader.dagster.test_loads import WAITING, until

from quayside.dataloader.dagster.sensors import master_sensor
from quayside.dataloader.request import LoadRequest
from quayside.foundation.lake import Lake
from quayside.foundation.postgres import connect, embedded
from quayside.foundation.settings import project_root

pytestmark = pytest.mark.integration

DUE = 64
#: `make crowd-dataloader` has 64.
AT_ONCE = int(os.environ.get("WORKERS", "16"))
#: What runs of the warm launcher do: each forks its worker, of an interpreter that has imported everything.
FORKING = """
import json, sys
import duckdb, numpy, psycopg, pyarrow, sqlalchemy.orm, quayside.foundation.lake
from quayside.dataloader import dataloader_pipe
from quayside.dataloader.dagster.forked import ForkedWorker

workers = []
for environment in json.load(sys.stdin):
    workers.append(ForkedWorker(dataloader_pipe.__file__))
    workers[-1].start(environment)  # before the next one inherits the end of its pipe
print(json.dumps([worker.wait() for worker in workers]))
"""


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


@pytest.fixture(scope="session", autouse=True)
def _places() -> Iterator[None]:
    """Room for many workers on the session's own server, where the test of them is all that runs."""
    with pytest.MonkeyPatch.context() as patch:
        if AT_ONCE > 16:
            patch.setitem(embedded._SERVER_SETTINGS, "max_connections", str(8 * AT_ONCE))
        yield


@pytest.mark.slow
def test_many_workers_commit_at_once(
    control: Control, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """case 15: more workers than the queue starts by itself, a process each, all of which wait for their table until the last
    is there. No conflict is anybody's failure, nothing is lost or loaded twice, connections are bounded."""
    monkeypatch.setenv("QUAYSIDE_THREADS", "1")
    control.source()
    for number in range(AT_ONCE):
        control.source_table(f"c{number}", rows=number + 1)
        control.table(f"c{number}")
    environments = [
        pipes_environment(
            control.client.for_attempt(r.config_id, r.attempt).begin("http://localhost/runs/1"), tmp_path
        )
        for r in control.client.claim(AT_ONCE)
    ]
    with connect(control.settings) as blocker:
        for number in range(AT_ONCE):
            blocker.execute(f"LOCK TABLE public.c{number} IN ACCESS EXCLUSIVE MODE".encode())
        run = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", FORKING],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        with run:
            assert run.stdin
            run.stdin.write(json.dumps(environments))
            run.stdin.close()
            try:
                until(
                    lambda: len(control.execute(WAITING)) == AT_ONCE, what="every worker waits for its table"
                )
                [(connections,)] = control.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                )
            finally:
                blocker.rollback()  # or whoever waits for the run's end waits for ever
            assert run.stdout
            assert json.load(run.stdout) == [0] * AT_ONCE
    assert connections <= 6 * AT_ONCE
    states = "SELECT last_status, attempt, count(*) FROM control.table_control GROUP BY 1, 2"
    assert control.execute(states) == [("Succeeded", 1, AT_ONCE)]
    loads = "SELECT count(*), count(DISTINCT config_id) FROM control.historical_metadata WHERE load_status = 'Succeeded'"
    assert control.execute(loads) == [(AT_ONCE, AT_ONCE)]
    assert control.open_history() == 0
    with closing(Lake(control.settings).connect(read_only=True)) as lake:
        each = (f'SELECT {n} AS n, count(*) AS held FROM lake."bronze.trade".c{n}' for n in range(AT_ONCE))
        wrong = f"SELECT n FROM ({' UNION ALL '.join(each)}) WHERE held <> n + 1"
        assert lake.execute(wrong).fetchall() == []


def pipes_environment(table: LoadRequest, folder: Path) -> dict[str, str]:
    """What a run tells its worker by."""
    context = {"extras": {"tables": [table.to_json()]}, "run_id": "1", "job_name": "j", "retry_number": 0,
               "asset_keys": None, "code_version_by_asset_key": None, "provenance_by_asset_key": None,
               "partition_key": None, "partition_key_range": None, "partition_time_window": None}  # fmt: skip
    told, said = folder / f"{table.config_id}.context", folder / f"{table.config_id}.messages"
    told.write_text(json.dumps(context), "utf-8")
    where = {"DAGSTER_PIPES_CONTEXT": {"path": str(told)}, "DAGSTER_PIPES_MESSAGES": {"path": str(said)}}
    return {name: encode_param(value) for name, value in where.items()}
