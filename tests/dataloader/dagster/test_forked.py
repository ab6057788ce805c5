"""Workers that are forked from their run: the run has no interpreter to start one with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from contextlib import suppress

import dagster as dg
import psutil
import pytest
from tests.dataloader.dagster.conftest import Control, tick
from tests.dataloader.dagster.test_loads import STARTED_BY_HAND, WAITING, until

from quayside.dataloader.dagster.sensors import master_sensor
from quayside.foundation.postgres import connect

pytestmark = [pytest.mark.integration, pytest.mark.slow]

WARM = (
    """
import sys
from quayside.foundation.dagster.launcher import worker
worker._warm = True  # as in a run that the warm launcher forked
sys.executable = "/nowhere/python"
"""
    + STARTED_BY_HAND
)


def ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("what", ["nothing", "worker killed", "run killed", "run cancelled"])
def test_a_forked_worker(control: Control, instance: dg.DagsterInstance, what: str):
    name = f"forked_{what.replace(' ', '_')}"
    control.source()
    control.source_table(name)
    config_id = control.table(name)
    [request] = tick(master_sensor, instance).run_requests
    argument = {
        "job": request.job_name,
        "config": request.run_config,
        "tags": request.tags,
        "run_id": str(uuid.uuid4()),
    }
    with connect(control.settings) as blocker:
        blocker.execute(f"LOCK TABLE public.{name} IN ACCESS EXCLUSIVE MODE".encode())
        run = psutil.Popen(
            [sys.executable, "-W", "ignore", "-c", WARM, json.dumps(argument)],
            env=os.environ | {"DAGSTER_HOME": instance.root_directory},
            stderr=subprocess.DEVNULL,
        )
        try:
            until(lambda: control.execute(WAITING), what="the load reads")
            [(host_and_pid,)] = control.execute("SELECT worker FROM control.table_control")
            worker = next(c for c in run.children() if "-W" in c.cmdline())
            if what == "nothing":
                assert host_and_pid.endswith(f":{run.pid}")  # until the worker's first heartbeat
                blocker.rollback()
                assert run.wait(60) == 0
            elif what == "worker killed":
                worker.kill()
            elif what == "run killed":
                run.kill()
            else:
                run.send_signal(signal.SIGINT)
            until(lambda: control.status(config_id) != "In Progress", what="the row is closed")
            until(lambda: ended(worker), what="the worker ends")
        finally:
            with suppress(psutil.NoSuchProcess):
                run.kill()
            run.wait()
    ending = {"nothing": "Succeeded", "worker killed": "Failed"}.get(what, "Cancelled")
    assert control.history(config_id) == [(1, ending)]
