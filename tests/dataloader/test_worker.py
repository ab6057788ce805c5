"""The worker's process: how light it starts, and what it says; its loads are tested as Dagster runs them."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.test_imports import HEAVY_FOR_HELP, loaded_by

from quayside.dataloader.dagster.plane import script
from quayside.dataloader.result import LoadResult
from quayside.dataloader.worker import Outcome, summary
from quayside.dataloader.worker_heartbeat import Progress

pytestmark = pytest.mark.unit


def test_the_worker_starts_light(tmp_path: Path):
    # What takes the time at a start is what is imported: a time itself would depend on the machine.
    allowed = {"pydantic", "pydantic_settings"}
    loaded = loaded_by("quayside.dataloader.dataloader_pipe", tmp_path / "none")
    assert loaded & (HEAVY_FOR_HELP - allowed) == set()
    assert "dagster_pipes" in loaded


def test_pandas_is_not_imported_by_what_the_worker_does():
    """Neither by DuckDB, which looks for it at the first value, nor by pyarrow, which goes on without."""
    code = (
        "import sys; from quayside.dataloader.dataloader_pipe import settle; settle(); "
        "import duckdb, pyarrow; duckdb.execute('SELECT ?', [1]); print(pyarrow.array(['a'])[0], 'pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "a False\n"


def test_started_by_hand_it_says_what_to_do():
    done = subprocess.run([sys.executable, str(script())], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("quayside: dataloader_pipe.py is started by a run")
    assert "Traceback" not in done.stderr


def test_progress_is_said_now_and_then(monkeypatch: pytest.MonkeyPatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    said: list[str] = []
    progress = Progress("trade.parties", threading.Event(), said.append)
    progress.advance(400_000, 6_000_000)
    assert said == []
    now[0] += 15
    progress.advance(1_500_000, 6_000_000)
    progress.advance(1_600_000, 6_000_000)
    assert said == ["trade.parties: 1,500,000 of 6,000,000 rows (25%), 100,000 rows/s, 45 s left"]
    assert (progress.rows, progress.total) == (1_600_000, 6_000_000)
    now[0] += 10
    progress.advance(2_000_000, None)
    assert said[1] == "trade.parties: 2,000,000 rows, 80,000 rows/s"


def test_a_table_that_was_told_to_stop_and_does_not_is_stuck(monkeypatch: pytest.MonkeyPatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    all_of_them = threading.Event()
    one, other = (Progress(name, all_of_them, lambda text: None) for name in ("one", "other"))
    one.stop("its source was paused")
    assert (one.cancelled(), other.cancelled()) == (True, False)
    now[0] += 9
    assert (one.stuck(8), other.stuck(8)) == (True, False)
    all_of_them.set()
    assert (other.cancelled(), other.stuck(8)) == (True, False)


def test_a_load_without_a_row_and_without_work_is_stalled(monkeypatch: pytest.MonkeyPatch):
    now, cpu = [100.0], [1.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("time.process_time", lambda: cpu[0])
    progress = Progress("trade.parties", threading.Event(), lambda text: None)
    now[0] += 9000
    assert not progress.stalled(60)  # it waits for its turn
    progress.begin()

    def after(seconds: float, *, work: float = 0.0, rows: int | None = None) -> bool:
        now[0] += seconds
        cpu[0] += work
        if rows is not None:
            progress.advance(rows, None)
        return progress.stalled(60)

    assert not after(59)
    assert not after(30, rows=10)  # a row came
    assert not after(50, rows=10)
    assert not after(30, work=10)  # it computes
    assert not after(50, work=0.1)  # heartbeats are no work
    assert after(11, work=0.1)


def test_outcomes_travel_as_json():
    result = LoadResult("loaded", "full", 10, rows_inserted=10, rows_deleted=2, capped=True, seconds=0.25)
    outcome = Outcome(1, 2, "Succeeded", summary(result), result)
    assert Outcome.of_json(outcome.to_json()) == outcome
    assert outcome.message == (
        "10 rows read, 10 inserted, 0 updated, 2 deleted (full, cut by the row cap, 0.2 s)."
    )
    failed = Outcome(1, 2, "Failed", "no such table")
    assert Outcome.of_json(failed.to_json()) == failed
