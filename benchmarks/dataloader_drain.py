"""Many small tables due at once, loaded by the real daemon: tables per minute and CPU per table.

    make bench-drain

For every line a fresh database, a code server and a `dagster-daemon` are started, and three tables loaded that are not counted.
Then all tables of the line become due together, each of 1,000 rows and five columns in the same PostgreSQL, to be loaded
whole into the lake. The clock runs from the claim of the first to the end of the last. CPU is read from /proc for everything
the line has started (daemon, code server, fork server, runs, workers) and for PostgreSQL apart, which is source, control
database, Dagster's storage and the lake's catalog at once. Afterwards the history must have each table loaded exactly once,
and the lake every row of it.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg
import yaml
from psycopg.conninfo import conninfo_to_dict

from benchmarks import report
from benchmarks.launcher import TOKEN, child, fresh_database, postgres_cpu, tree_cpu, wait_for
from quayside.foundation.settings import load_settings, project_root

ROWS: Final = 1_000
WARM_UP: Final = 3
SECONDS: Final = 3_600


@dataclass(frozen=True)
class Setup:
    """One line: how many tables, how many of them in a run, and whose launcher starts it."""

    name: str
    tables: int
    tables_per_run: int = 1
    warm: bool = True


SETUPS: Final = {
    "default": Setup("Dagster's launcher and queue, a run per table", 200, warm=False),
    "warm": Setup("warm launcher, a run per table", 2_000),
    "batch": Setup("warm launcher, 50 tables in a run", 2_000, tables_per_run=50),
}


@dataclass(frozen=True)
class Measured:
    """What one line measured."""

    seconds: float
    client_cpu: float
    server_cpu: float
    missed: int
    double: int
    wrong: int


def measure(setup: Setup, tables: int) -> Measured:
    """Run one line.

    Raises:
        RuntimeError: the tables were not all done in time.
    """
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-drain-")))
        url, postmaster = stack.enter_context(fresh_database())
        url = url.replace("+psycopg2", "", 1)
        dagster_home = home / "dagster"
        dagster_home.mkdir()
        os.environ.update(
            {
                TOKEN: str(home),
                "QUAYSIDE_HOME": str(home),
                "QUAYSIDE_DATABASE_URL": url,
                "DAGSTER_HOME": str(dagster_home),
                "DATALOADER_SENSOR_BATCH_SIZE": str(tables),
                "DATALOADER_TABLES_PER_RUN": str(setup.tables_per_run),
            }
        )
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        (dagster_home / "dagster.yaml").write_text(yaml.safe_dump(instance_yaml(setup, home)))
        prepare(url, tables)
        stack.enter_context(services(home, environment))
        due(url, "id < 0")
        drained(url, 120, "the first tables")
        clients, server = tree_cpu(), postgres_cpu(postmaster)
        due(url, "id >= 0")
        drained(url, SECONDS, "the drain")
        clients, server = tree_cpu() - clients, postgres_cpu(postmaster) - server
        return Measured(
            *took_missed_double(url, clients / tables, server / tables, tables), wrong=wrong(tables)
        )


def took_missed_double(
    url: str, client_cpu: float, server_cpu: float, tables: int
) -> tuple[float, float, float, int, int]:
    """Seconds, CPU, and what the history says of tables loaded not at all or more than once."""
    seconds, once, more = ask(
        url,
        "WITH loads AS (SELECT config_id, count(*) AS attempts, count(*) FILTER (WHERE load_status = 'Succeeded') AS good, "
        "min(load_queued_time) AS queued, max(load_end_time) AS ended FROM control.historical_metadata "
        "WHERE source_table LIKE 't%%' GROUP BY config_id) "
        "SELECT extract(epoch FROM max(ended) - min(queued)), count(*) FILTER (WHERE good > 0), "
        "count(*) FILTER (WHERE attempts > 1) FROM loads",
    )[0]
    return float(seconds), client_cpu, server_cpu, tables - once, more


def wrong(tables: int) -> int:
    """Tables of the lake that have not exactly their rows."""
    from quayside.foundation.lake import Lake

    found: list[tuple[Any, ...]] = []
    with Lake(load_settings()).connect(read_only=True) as con:
        for start in range(0, tables, 100):
            counts = (
                f'SELECT count(*), count(DISTINCT id) FROM lake."bronze.drain".t{n}'
                for n in range(start, min(tables, start + 100))
            )
            found += con.execute(" UNION ALL ".join(counts)).fetchall()
    return tables - found.count((ROWS, ROWS))


def prepare(url: str, tables: int) -> None:
    """Schemas, source tables, and a row of configuration for each, inactive."""
    from quayside.cli.db import registered_schemas
    from quayside.foundation.postgres import migrate

    settings = load_settings()
    for spec in registered_schemas():
        migrate(settings, spec)
    parts = conninfo_to_dict(url)
    fields = {"host": "host", "port": "port", "dbname": "service_name", "user": "user"}
    value = {field: {"value": str(parts[name])} for name, field in fields.items() if parts.get(name)}
    with psycopg.connect(url) as con:
        con.execute("CREATE SCHEMA drain")
        con.execute(
            "INSERT INTO control.table_control_dbconfig (db_config_key, db_type, db_config_value) "
            "VALUES ('drain', 'postgresql', %s)",
            [json.dumps(value)],
        )
        for n in (*range(tables), *range(-WARM_UP, 0)):
            name = f"t{n}" if n >= 0 else f"warm_up{-n}"
            con.execute(
                f"CREATE TABLE drain.{name} AS SELECT n AS id, md5(n::text) AS label, n * 1.25 AS amount, "  # type: ignore[arg-type]
                f"n %% 7 = 0 AS flag, timestamptz '2026-01-01Z' + n * interval '1 minute' AS changed_at "
                f"FROM generate_series(1, %s) n",
                [ROWS],
            )
            con.execute(
                "INSERT INTO control.table_control (db_config_key, source_schema_name, source_table_name, "
                "destination_catalog, destination_schema_name, destination_table_name, load_strategy) "
                "VALUES ('drain', 'drain', %s, 'bronze', 'drain', %s, 'full')",
                [name, name],
            )


def due(url: str, which: str) -> None:
    """Let the tables that are measured, or those that warm up, become due."""
    like = "t%" if which == "id >= 0" else "warm_up%"
    ask(
        url,
        "UPDATE control.table_control SET is_active = true WHERE source_table_name LIKE %s RETURNING 1",
        like,
    )


def drained(url: str, seconds: float, what: str) -> None:
    """Wait until every active table has come to an end; seldom asked, since the asking is PostgreSQL's work as well.

    Raises:
        RuntimeError: it took longer than `seconds`.
    """
    deadline = time.monotonic() + seconds
    with psycopg.connect(url, autocommit=True) as con:
        while con.execute(
            "SELECT 1 FROM control.table_control WHERE is_active "
            "AND coalesce(last_status, '') NOT IN ('Succeeded', 'Failed') LIMIT 1"
        ).fetchone():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{what} took longer than {seconds:.0f} s")
            time.sleep(1)


def ask(url: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as con:
        return con.execute(statement, values).fetchall()  # type: ignore[arg-type]


def instance_yaml(setup: Setup, home: Path) -> dict[str, Any]:
    """Quayside's own ``dagster.yaml``; for Dagster's launcher with Dagster's queue."""
    config = yaml.safe_load((project_root() / "dagster.yaml").read_text("utf-8"))
    if setup.warm:
        config["run_launcher"]["config"]["base_folder"] = str(home)
    else:
        limit = config["run_coordinator"]["config"]["max_concurrent_runs"]
        del config["run_launcher"], config["run_coordinator"]
        config["run_queue"] = {"max_concurrent_runs": limit}
    return config


@contextmanager
def services(home: Path, environment: dict[str, str]) -> Iterator[None]:
    """A code server and the daemon."""
    socket, workspace = home / "code.sock", home / "workspace.yaml"
    module = ["--module-name", "benchmarks.drain_location", "--attribute", "defs"]
    command = [
        "dagster",
        "code-server",
        "start",
        "--socket",
        str(socket),
        "--location-name",
        "dataloader",
        *module,
    ]
    workspace.write_text(
        yaml.safe_dump(
            {"load_from": [{"grpc_server": {"socket": str(socket), "location_name": "dataloader"}}]}
        )
    )
    with child([*command, "--use-python-environment-entry-point"], environment, home / "code.log"):
        wait_for(socket.exists, 60, "the code server")
        with child(["dagster._daemon", "run", "-w", str(workspace)], environment, home / "daemon.log"):
            yield


def main() -> int:
    """Measure, print as it goes, and write RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--setups", nargs="*", choices=list(SETUPS), default=list(SETUPS))
    parser.add_argument("--tables", type=int, help="instead of each line's own number")
    parser.add_argument("--dry", action="store_true", help="do not write RESULTS.md")
    asked = parser.parse_args()
    about = f"{report.machine()}. {report.versions('dagster', 'duckdb', 'quayside')}."
    rows: list[dict[str, object]] = []
    original = dict(os.environ)
    base = 0.0
    for key in asked.setups:
        setup = SETUPS[key]
        tables = asked.tables or setup.tables
        measured = measure(setup, tables)
        os.environ.clear()
        os.environ.update(original)
        per_minute = 60 * tables / measured.seconds
        base = base or per_minute
        rows.append(
            {
                "launcher": setup.name,
                "tables": tables,
                "seconds": f"{measured.seconds:.1f}",
                "tables/minute": f"{per_minute:,.0f}",
                "times the first": f"{per_minute / base:.1f}",
                "CPU s/table": f"{measured.client_cpu:.3f}",
                "PostgreSQL CPU s/table": f"{measured.server_cpu:.3f}",
                "missed": measured.missed,
                "double": measured.double,
                "wrong": measured.wrong,
            }
        )
        print(" | ".join(f"{name}: {value}" for name, value in rows[-1].items()), flush=True)
    if not asked.dry:
        report.write_section("drain", "make bench-drain", about, f"{__doc__}\n\n{report.table(rows)}")
    return int(any(row[name] for row in rows for name in ("missed", "double", "wrong")))


if __name__ == "__main__":
    raise SystemExit(main())
