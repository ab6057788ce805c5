"""Real servers to load from: a database of the session's PostgreSQL, and a MariaDB of the test process's own."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import SESSION_HOME

from quayside.dataloader.request import LoadRequest
from quayside.foundation.settings import Settings

PASSWORD = "pl4nted'p\"a\\ss %s w0rd"


def load_request(db_type: str, values: dict[str, Any], table: str = "", **fields: Any) -> LoadRequest:
    """A request of a full load that only differs in what a source looks at."""
    return LoadRequest(
        **{
            "config_id": 1,
            "control_key": "00" * 32,
            "metadata_id": 1,
            "attempt": 1,
            "db_config_key": "the_source",
            "db_type": db_type,
            "db_config_value": values,
            "db_kv_scope": "env",
            "source_catalog": None,
            "source_schema_name": None,
            "source_table_name": table,
            "query": None,
            "destination_catalog": "bronze",
            "destination_schema_name": "s",
            "destination_table_name": "t",
            "load_strategy": "full",
            **fields,
        }
    )


@dataclass(frozen=True)
class SourceServer:
    """A database and how a configuration reaches it."""

    db_type: str
    values: dict[str, Any]
    connect: Callable[[], Any]

    def run(self, *statements: str) -> None:
        connection = self.connect()
        try:
            for statement in statements:
                connection.cursor().execute(statement)
        finally:
            connection.close()

    def request(self, table: str = "", **fields: Any) -> LoadRequest:
        return load_request(self.db_type, self.values, table, **fields)


@pytest.fixture(scope="session")
def source_pg(session_settings: Settings, template_database: str) -> Iterator[SourceServer]:
    """An empty database on the session's server, with a time zone that is not ours."""
    import psycopg

    from quayside.foundation.postgres import connect, database_url

    del template_database  # it also makes the server fast
    name = f"source_{secrets.token_hex(6)}"
    url = database_url(session_settings).replace("/quayside?", f"/{name}?")
    parts = psycopg.conninfo.conninfo_to_dict(url)
    os.environ["SOURCE_PG_PASSWORD"] = PASSWORD
    with connect(session_settings, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE template1")
        admin.execute(f"ALTER DATABASE {name} SET TimeZone = 'America/Denver'")
        yield SourceServer(
            "postgresql",
            {
                "host": {"value": parts["host"]},
                "service_name": {"value": name},
                "user": {"value": parts["user"]},
                "password": "SOURCE_PG_PASSWORD",
            },
            lambda: psycopg.connect(url, autocommit=True),
        )
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def mariadb(require_service: Callable[[str, bool, str], None]) -> Iterator[SourceServer]:
    """A MariaDB on a free port; it dies with this process. Database `source`, user `loader`."""
    import pymysql

    server, install = shutil.which("mariadbd"), shutil.which("mariadb-install-db")
    require_service("MariaDB", bool(server and install), "install mariadb-server")
    assert server is not None
    folder = Path(tempfile.mkdtemp(prefix="mariadb-", dir=os.environ[SESSION_HOME]))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    drop: list[str] = []
    options = ["--no-defaults", f"--datadir={folder / 'data'}"]
    user = []
    if os.geteuid() == 0:  # the server refuses to run as root
        account = pwd.getpwnam("mysql")
        os.chown(folder, account.pw_uid, account.pw_gid)
        folder.chmod(0o711)
        user = ["--user=mysql"]
        drop = [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
    small = [
        "--innodb-log-file-size=16M",
        "--innodb-buffer-pool-size=32M",
        "--innodb-flush-log-at-trx-commit=0",
    ]
    subprocess.run(
        ["mariadb-install-db", *options, *user, "--auth-root-authentication-method=normal", "--skip-test-db"],
        check=True,
        capture_output=True,
    )
    socket_file = str(folder / "s.sock")
    log = (folder / "log").open("wb")
    process = subprocess.Popen(
        ["setpriv", *drop, "--pdeathsig", "KILL", server, *options, *small, f"--port={port}", f"--socket={socket_file}",
         f"--pid-file={folder / 'pid'}", "--bind-address=127.0.0.1", "--skip-name-resolve", "--innodb-doublewrite=0",
         "--max-allowed-packet=64M", "--default-time-zone=-07:00", "--performance-schema=off"],
        stdout=log, stderr=subprocess.STDOUT, cwd=folder,
    )  # fmt: skip

    def connect(**more: Any) -> Any:
        return pymysql.connect(
            unix_socket=socket_file, user="root", autocommit=True, init_command="SET sql_mode = ''", **more
        )

    deadline = time.monotonic() + 240
    while True:
        try:
            # Not by pymysql, which leaves its socket open when nobody answers.
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(socket_file)
            break
        except OSError:
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, "MariaDB does not answer"
            time.sleep(0.05)
    os.environ["MARIADB_PASSWORD"] = PASSWORD
    connection = connect()
    with connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE source CHARACTER SET utf8mb4")
        cursor.execute("CREATE USER 'loader'@'%%' IDENTIFIED BY %s", [PASSWORD])
        cursor.execute("GRANT ALL ON *.* TO 'loader'@'%'")
    connection.close()
    values = {
        "host": {"value": "127.0.0.1"},
        "port": port,
        "service_name": {"value": "source"},
        "user": {"value": "loader"},
        "password": "MARIADB_PASSWORD",
    }
    yield SourceServer("mariadb", values, lambda: connect(database="source"))
    process.kill()
    process.wait()
    log.close()
    shutil.rmtree(folder)
