"""The processes under test: two PostgreSQL servers, a code server and a daemon, and a supervisor that starts them again.

One server holds what the platform keeps (control database, Dagster's storage, the lake's catalog), the other is the
source. The code server serves the real location with faster clocks (`location`); runs are forked by the warm launcher,
workers are started by the runs. Every process carries the folder's name in its environment and is found by it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import psycopg
import yaml

from quayside.dataloader.control.client import LakebaseClient
from quayside.foundation.postgres import EmbeddedPostgres
from quayside.foundation.settings import Settings, project_root
from tests.faults.dataloader import workload
from tests.faults.dataloader.points import Points, alive

LEASE_SECONDS: Final = 10
SOURCE: Final = "shop"
FOLDER_PREFIX: Final = "quayside-faults-dataloader-"
#: A server or process that does not come up within this time, tried again and again, will not.
_START_SECONDS: Final = 120.0
#: Variables that would lead a process under test elsewhere.
_FOREIGN: Final = ("PG", "AWS_", "LAKEBASE_", "DAGSTER_", "QUAYSIDE_", "DATALOADER_", "PYTEST_")
_BOOKS: Final = """
CREATE SCHEMA faults;
CREATE TABLE faults.ticks (config_id bigint NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());
"""


class Platform:
    """One platform in a folder of its own. `start` brings up the servers; `start_services` the rest."""

    def __init__(
        self, tables: tuple[workload.Table, ...] = workload.TABLES, lease_seconds: int = LEASE_SECONDS
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
        self.folder.chmod(0o711)  # as root, the database servers' own user has to pass
        self.tables = tables
        self.points = Points(self.folder / "points")
        self.server = EmbeddedPostgres(self.folder / "home")
        self.source = EmbeddedPostgres(self.folder / "source")
        self.environment = self._environment(lease_seconds)
        self.settings = self._settings()
        self.daemon: subprocess.Popen[bytes] | None = None
        self.code_server: subprocess.Popen[bytes] | None = None
        self.restarts = 0
        self.problems: list[str] = []
        self._over = threading.Event()
        self._supervisor: threading.Thread | None = None

    # -- servers and schemas

    def start(self) -> None:
        """Servers, schemas, the source's tables and the rows of configuration; nothing is due before `tick`."""
        from quayside.cli.db import registered_schemas
        from quayside.foundation.postgres import dispose_engines, migrate

        for server in (self.server, self.source):
            server.start()
            with psycopg.connect(server.url, autocommit=True) as con:
                # A killed server loses nothing that it gave to the kernel, and nothing but servers is killed here.
                con.execute("ALTER SYSTEM SET fsync = off")
                con.execute("SELECT pg_reload_conf()")
        self.environment["FAULTS_HOST"] = str(self.source.socket_folder)
        for spec in registered_schemas():
            if spec.name in ("control", "ops"):
                migrate(self.settings, spec)
        dispose_engines()
        workload.create(self.source.url, self.tables)
        with self.control() as con:
            con.execute(_BOOKS)
            con.execute(
                "INSERT INTO control.table_control_dbconfig (db_config_key, db_type, db_config_value, db_kv_scope) "
                "VALUES (%s, 'postgresql', %s, 'env')",
                [
                    SOURCE,
                    '{"host": "FAULTS_HOST", "port": 5432, "service_name": {"value": "quayside"}, '
                    '"user": {"value": "quayside"}}',
                ],
            )
            workload.configure(con, self.tables, SOURCE, due=False)
            con.execute(
                "UPDATE control.table_control SET last_status = 'Succeeded'"
            )  # waits for its first tick

    @contextmanager
    def control(self) -> Iterator[psycopg.Connection[Any]]:
        """A connection to the control database, in a transaction."""
        with psycopg.connect(self.server.url, connect_timeout=5) as con:
            yield con

    def client(self) -> LakebaseClient:
        """The product's own client, which waits out a server that is restarted."""
        return LakebaseClient(self.settings, patience_seconds=30)

    def tick(self, config_id: int | None = None) -> int:
        """Make due what has been loaded since its last tick, or only that row, and note it in the same transaction."""
        with self.control() as con:
            # A backfill that is complete goes on as incremental; every third time it is to begin anew.
            return con.execute(
                "WITH again AS (SELECT config_id FROM control.table_control WHERE source_table_name = ANY(%s) "
                "AND attempt %% 3 = 0), due AS (UPDATE control.table_control c SET next_load_date_time = clock_timestamp(), "
                "load_full = load_full OR EXISTS (SELECT FROM again WHERE again.config_id = c.config_id), "
                "load_strategy = CASE WHEN EXISTS (SELECT FROM again WHERE again.config_id = c.config_id) "
                "THEN 'chunked_backfill' ELSE load_strategy END "
                "WHERE last_status = 'Succeeded' AND next_load_date_time IS NULL AND config_id = coalesce(%s, config_id) "
                "RETURNING config_id) INSERT INTO faults.ticks (config_id) SELECT config_id FROM due",
                [[t.name for t in self.tables if t.strategy == "chunked_backfill"], config_id],
            ).rowcount

    def free_failed(self, config_id: int | None = None) -> int:
        """What a person or the retry analysis does: failed rows (or only that one) may load again; how many there were."""
        with self.control() as con:
            failed = con.execute(
                "SELECT config_id FROM control.table_control WHERE last_status = 'Failed' "
                "AND config_id = coalesce(%s, config_id)",
                [config_id],
            ).fetchall()
        with self.client() as client:
            for (failed_id,) in failed:
                client.reset_for_retry(failed_id, "freed by the fault harness", forget_failures=True)
        return len(failed)

    # -- services

    def start_services(self) -> None:
        """Code server and daemon, and the supervisor of everything."""
        dagster_home = self.folder / "home" / "dagster"
        dagster_home.mkdir(parents=True, exist_ok=True)
        config = yaml.safe_load((project_root() / "dagster.yaml").read_text("utf-8"))
        config["run_launcher"]["config"] |= {"base_folder": str(self.folder / "w"), "grace_seconds": 5.0}
        config["run_monitoring"] |= {"poll_interval_seconds": 2, "start_timeout_seconds": 30}
        (self.folder / "w").mkdir()
        (dagster_home / "dagster.yaml").write_text(yaml.safe_dump(config), "utf-8")
        served = {"grpc_server": {"socket": str(self._socket), "location_name": "dataloader"}}
        (self.folder / "workspace.yaml").write_text(yaml.safe_dump({"load_from": [served]}), "utf-8")
        self._keep_up()
        self._supervisor = threading.Thread(target=self._supervise, name="supervisor")
        self._supervisor.start()

    @property
    def _socket(self) -> Path:
        return self.folder / "code.sock"

    def _keep_up(self) -> None:
        """Start what does not run."""
        self.server.start()
        self.source.start()
        if self.code_server is None or self.code_server.poll() is not None:
            self._socket.unlink(missing_ok=True)
            self.code_server = self._spawn(
                "code", "dagster", "code-server", "start", "--socket", str(self._socket),
                "--location-name", "dataloader", "--module-name", "tests.faults.dataloader.location",
                "--attribute", "defs", "--use-python-environment-entry-point",
            )  # fmt: skip
        if (self.daemon is None or self.daemon.poll() is not None) and self._socket.exists():
            workspace = str(self.folder / "workspace.yaml")
            self.daemon = self._spawn("daemon", "dagster._daemon", "run", "--workspace", workspace)

    def _supervise(self) -> None:
        since = time.monotonic()
        while not self._over.wait(0.1):
            try:
                self._keep_up()
                since = time.monotonic()
            except Exception as error:  # noqa: BLE001 - a server that is killed while it starts is started again
                if time.monotonic() - since > _START_SECONDS:
                    self.problems.append(f"the supervisor could not start something: {error!r}")
                    return

    def _spawn(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        self.restarts += 1
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *command],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=project_root(),
                start_new_session=True,
            )

    # -- the end

    def stop(self) -> None:
        """End every process of this platform, and remove its folder."""
        self._over.set()
        if self._supervisor is not None:
            self._supervisor.join()
        self.points.disarm()
        for process in (self.daemon, self.code_server):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
        for _ in range(100):
            left = self.processes()
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if not left:
                break
            time.sleep(0.05)
        for server in (self.server, self.source):
            server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def processes(self) -> list[int]:
        """Every living process of this platform that is not a database server."""
        wanted = f"QUAYSIDE_FAULTS={self.points.folder}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                pid = int(path.parent.name)
                if wanted in path.read_bytes().split(b"\0") and alive(pid):
                    found.append(pid)
        return found

    def postmaster(self, server: EmbeddedPostgres) -> int | None:
        """Process id of a running server."""
        return server.status().pid

    # -- inside

    def _environment(self, lease_seconds: int) -> dict[str, str]:
        inherited = {
            k: v for k, v in os.environ.items() if not k.startswith(_FOREIGN) and k != "DATABASE_URL"
        }
        hook = Path(__file__).parent / "hook"
        return inherited | {
            "QUAYSIDE_HOME": str(self.folder / "home"),
            "QUAYSIDE_ENV_FILE": os.devnull,
            "DAGSTER_HOME": str(self.folder / "home" / "dagster"),
            "QUAYSIDE_FAULTS": str(self.points.folder),
            "PYTHONPATH": f"{hook}{os.pathsep}{project_root()}",
            "PYTHONWARNINGS": "ignore",
            "PYTHONUNBUFFERED": "1",
            "QUAYSIDE_THREADS": "1",
            "DATALOADER_LEASE_SECONDS": str(lease_seconds),
            "DATALOADER_SENSOR_BATCH_SIZE": "25",
            "DATALOADER_DELETE_CHECK_HOURS": "0",
            "DATALOADER_ROWS_PER_CHUNK": "300",
        }

    def _settings(self) -> Settings:
        saved = {name: os.environ.pop(name) for name in Settings.variables().values() if name in os.environ}
        try:
            own = {
                name: self.environment[name]
                for name in Settings.variables().values()
                if name in self.environment
            }
            return Settings(_env_file=None, **own)  # pyright: ignore[reportCallIssue]
        finally:
            os.environ.update(saved)


def until(condition: Callable[[], Any], seconds: float, what: str, every: float = 0.05) -> Any:
    """What `condition` gives as soon as it is true.

    Raises:
        TimeoutError: it was not within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:.0f} s: {what}")
        time.sleep(every)
    return found
