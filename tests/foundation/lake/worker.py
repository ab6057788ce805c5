"""Run as a process by tests: one verb, its arguments, and a JSON result on the last line."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from typing import Any

from quayside.foundation.lake import Lake
from quayside.foundation.lake import lake as lake_module
from quayside.foundation.no_pandas import without_pandas
from quayside.foundation.settings import load_settings

without_pandas()


class _Table:
    def __init__(self, qualified: str) -> None:
        self.qualified = qualified

    def ddl(self) -> list[str]:
        return [f"CREATE TABLE IF NOT EXISTS {self.qualified} (batch VARCHAR, n BIGINT)"]


def append(lake: Lake, batch: str, commits: str) -> int:
    """Commit one row at a time."""
    with closing(lake.connect(threads=1)) as con:
        for n in range(int(commits)):
            lake.transaction(lambda c, n=n: c.execute("INSERT INTO s.rows VALUES (?, ?)", [batch, n]), con)
    return int(commits)


def count_up(lake: Lake, commits: str) -> int:
    """Add one to the same row again and again; the number of attempts. The first begins, says so, and waits."""
    attempts = 0
    lake_module.ATTEMPTS = 1000  # type: ignore[misc]  how often one may lose is not what is tested with this

    def work(con: Any) -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            con.execute("SELECT n FROM s.counter").fetchall()
            print("begun", flush=True)
            sys.stdin.readline()
        con.execute("UPDATE s.counter SET n = n + 1")

    with closing(lake.connect(threads=1)) as con:
        for _ in range(int(commits)):
            lake.transaction(work, con)
    return attempts


def ensure(lake: Lake, *names: str) -> int:
    """Make tables, all workers at the same moment."""
    print("ready", flush=True)
    sys.stdin.readline()
    lake.ensure_tables([_Table(name) for name in names])
    return len(names)


def load_once(lake: Lake, batch: str, lock: str = "") -> int:
    """Insert a batch unless it is there, as a loader does, saying when it has looked; 1 when this process did."""

    def work(con: Any) -> int:
        if con.execute("SELECT count(*) FROM s.rows WHERE batch = ?", [batch]).fetchone()[0]:
            return 0
        print("looked", flush=True)
        sys.stdin.readline()
        con.execute("INSERT INTO s.rows SELECT ?, range FROM range(100)", [batch])
        return 1

    return lake.transaction(work, lock=lock or None)


def hold(lake: Lake, batch: str) -> int:
    """Write a batch, say so, and commit when told to."""

    def work(con: Any) -> None:
        con.execute("INSERT INTO s.rows SELECT ?, range FROM range(1000)", [batch])
        print("written", flush=True)
        sys.stdin.readline()

    lake.transaction(work)
    return 1000


def export_often(lake: Lake, format_: str, target: str, times: str) -> int:
    """Replace one batch by another of as many rows and export, again and again."""
    from quayside.foundation.lake.export import export_table

    with closing(lake.connect(threads=1)) as con:
        for n in range(int(times)):

            def work(con: Any, n: int = n) -> None:
                con.execute("DELETE FROM s.rows")
                con.execute("INSERT INTO s.rows SELECT ?, range FROM range(20000)", [f"b{n}"])

            lake.transaction(work, con)
            export_table(lake, "s.rows", format=format_, target=target)  # type: ignore[arg-type]
    return int(times)


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](Lake(load_settings()), *sys.argv[2:])))
