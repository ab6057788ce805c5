"""On the real lake: one snapshot per load, none for a repetition, one result of two runs, nothing of a killed one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Barrier

import pytest
from tests.kycc.ingest.conftest import GOOD, small_batch, write

from quayside.foundation.errors import InputError
from quayside.foundation.lake import Lake
from quayside.foundation.postgres import advisory_lock
from quayside.foundation.settings import Settings
from quayside.kycc.ingest import ingest

pytestmark = pytest.mark.integration

RUN = """
import os, signal, sys
from quayside.foundation.no_pandas import without_pandas
without_pandas()
from quayside.foundation.lake import Lake
from quayside.foundation.settings import load_settings
from quayside.kycc.ingest import ingest

def die(step):
    if step == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)

ingest(Lake(load_settings()), sys.argv[1], on_progress=die)
"""


def _snapshots(lake: Lake) -> int:
    with lake.connect() as con:
        return len(con.execute("SELECT snapshot_id FROM ducklake_snapshots('lake')").fetchall())


def _count(lake: Lake, table: str) -> int:
    with lake.connect() as con:
        return con.execute(f"SELECT count(*) FROM kycc.{table}").fetchall()[0][0]


@pytest.mark.slow
def test_a_load_is_one_snapshot_and_a_repetition_none(kycc_lake: Lake, tmp_path: Path) -> None:
    start = _snapshots(kycc_lake)
    path = write(small_batch(), tmp_path)
    ingest(kycc_lake, path)
    assert _snapshots(kycc_lake) == start + 1
    assert ingest(kycc_lake, path).already_loaded
    assert _snapshots(kycc_lake) == start + 1
    result = ingest(kycc_lake, write(small_batch(transactions=5), tmp_path))
    assert (result.rows_added["transactions"], _count(kycc_lake, "transactions")) == (1, 5)
    assert _snapshots(kycc_lake) == start + 2
    with pytest.raises(InputError):
        ingest(kycc_lake, GOOD, batch_id="other")
    assert _snapshots(kycc_lake) == start + 2


@pytest.mark.slow
def test_two_runs_of_one_batch_are_one_result(kycc_lake: Lake, settings: Settings) -> None:
    def guard(batch_id: str):
        return advisory_lock(settings, f"kycc:batch:{batch_id}")

    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda _: ingest(kycc_lake, GOOD, guard=guard), range(3)))
    assert sorted(r.already_loaded for r in results) == [False, True, True]
    assert (_count(kycc_lake, "transactions"), _count(kycc_lake, "batches")) == (4, 1)


def test_without_the_guard_they_are_not(kycc_lake: Lake) -> None:
    """The test above would notice: two runs that both looked before either wrote store everything twice."""
    both = Barrier(2, timeout=60)

    def wait(step: str) -> None:
        if step == "write":
            both.wait()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: ingest(kycc_lake, GOOD, on_progress=wait), range(2)))
    assert (_count(kycc_lake, "transactions"), _count(kycc_lake, "batches")) == (8, 2)


@pytest.mark.slow
def test_a_killed_run_leaves_nothing_and_the_next_one_loads(
    kycc_lake: Lake, command_environment: dict[str, str]
) -> None:
    run = partial(subprocess.run, env=command_environment, check=False)
    for step in ("read", "validate transactions", "write", "commit"):
        killed = run([sys.executable, "-c", RUN, str(GOOD), step])
        assert killed.returncode == -signal.SIGKILL, step
        found = [_count(kycc_lake, t) for t in ("parties", "transactions", "batches")]
        assert found == [0, 0, 0], step
    assert run([sys.executable, "-c", RUN, str(GOOD), ""]).returncode == os.EX_OK
    assert [_count(kycc_lake, t) for t in ("parties", "transactions", "batches")] == [3, 4, 1]
