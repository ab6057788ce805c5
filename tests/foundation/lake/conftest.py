"""A lake of one's own, a moto server for S3, and processes that write at the same time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from quayside.foundation import processes
from quayside.foundation.lake import Lake
from quayside.foundation.postgres import connect
from quayside.foundation.settings import Settings

WORKER = Path(__file__).with_name("worker.py")


class Table:
    """A lake table as `Lake.ensure_tables` wants it."""

    def __init__(self, qualified: str, columns: str, partition_by: str | None = None) -> None:
        self.qualified = qualified
        self.columns = columns
        self.partition_by = partition_by

    def ddl(self) -> list[str]:
        statements = [f"CREATE TABLE IF NOT EXISTS {self.qualified} ({self.columns})"]
        if self.partition_by:
            statements.append(f"ALTER TABLE {self.qualified} SET PARTITIONED BY ({self.partition_by})")
        return statements


#: The table most tests write: `batch` and `n` are partition and number.
ROWS = Table("s.rows", "batch VARCHAR, n BIGINT", "batch")


@pytest.fixture
def lake(settings: Settings) -> Lake:
    return Lake(settings)


@pytest.fixture
def con(lake: Lake) -> Iterator[duckdb.DuckDBPyConnection]:
    connection = lake.connect(threads=2)
    yield connection
    connection.close()


@pytest.fixture
def rows_table(lake: Lake, con: duckdb.DuckDBPyConnection) -> Table:
    lake.ensure_tables([ROWS], con)
    return ROWS


@pytest.fixture
def start(command_environment: dict[str, str]) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """``start(verb, *arguments)`` runs ``worker.py`` in a process of its own; see there for the verbs."""
    started: list[subprocess.Popen[str]] = []

    def run(verb: str, *arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(WORKER), verb, *map(str, arguments)],
            env=command_environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def result(process: subprocess.Popen[str], timeout: float = 600) -> Any:
    """What a worker printed last, once it ended well."""
    out, _ = process.communicate(timeout=timeout)
    assert process.returncode == 0, out
    return json.loads(out.splitlines()[-1])


def wait_for(process: subprocess.Popen[str], word: str) -> None:
    """Until a worker has printed that line."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == word:
            return
    pytest.fail(f"the worker ended with {process.wait()} before it said {word!r}")


def go_on(process: subprocess.Popen[str]) -> None:
    """What a worker that has said a word waits for."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def wait_for_sessions(settings: Settings, condition: str, gone: bool = False) -> None:
    """Until one of the other sessions on the test's database is so, in the words of ``pg_stat_activity``, or none is."""
    statement = f"SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND {condition}"
    with connect(settings, autocommit=True) as con:
        met = processes.wait_until(lambda: (con.execute(statement.encode()).fetchone() is None) is gone, 240)
    assert met, condition


def data_files(settings: Settings) -> set[Path]:
    return {file for file in Path(settings.lake_data_path).rglob("*") if file.is_file()}
