"""A PostgreSQL source on loopback for benchmarks: an embedded server of its own, tuned, with TPC-H's lineitem in it.

``l_updated`` is added as a cursor with an index. Times are of this machine; nothing here has to survive a power cut.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import psycopg

from quayside.foundation import processes
from quayside.foundation.postgres import account

PEERS = Path(__file__).parents[1] / ".tools" / "peers" / "bin" / "python"
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "shared_buffers": "2GB",
    "fsync": "off",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "autovacuum": "off",
}
#: Written by DuckDB in the peers' environment, which has the extension that generates TPC-H.
GENERATE = """
import sys, duckdb
from duckdb_extensions import import_extension
for name in ("tpch", "postgres_scanner"): import_extension(name)
con = duckdb.connect(config={"threads": 2})
con.execute("LOAD tpch; LOAD postgres_scanner")
con.execute(f"CALL dbgen(sf={sys.argv[2]})")
con.execute(f"ATTACH '{sys.argv[1]}' AS pg (TYPE postgres)")
con.execute("INSERT INTO pg.public.lineitem SELECT *, TIMESTAMP '2026-01-01' + INTERVAL (l_orderkey % 86400) SECOND FROM lineitem")
"""
LINEITEM = """
CREATE TABLE lineitem (
    l_orderkey bigint NOT NULL, l_partkey bigint NOT NULL, l_suppkey bigint NOT NULL, l_linenumber bigint NOT NULL,
    l_quantity numeric(15,2) NOT NULL, l_extendedprice numeric(15,2) NOT NULL, l_discount numeric(15,2) NOT NULL,
    l_tax numeric(15,2) NOT NULL, l_returnflag varchar(1) NOT NULL, l_linestatus varchar(1) NOT NULL,
    l_shipdate date NOT NULL, l_commitdate date NOT NULL, l_receiptdate date NOT NULL,
    l_shipinstruct varchar(25) NOT NULL, l_shipmode varchar(10) NOT NULL, l_comment varchar(44) NOT NULL,
    l_updated timestamp NOT NULL)
"""
FINISH = (
    "ALTER TABLE lineitem ADD PRIMARY KEY (l_orderkey, l_linenumber)",
    "CREATE INDEX ON lineitem (l_updated)",
    "VACUUM ANALYZE lineitem",
)


class SourceServer:
    """The server; ``url`` reaches it over TCP on loopback. Removed with everything in it at the end."""

    def __enter__(self) -> SourceServer:
        self.folder = Path(tempfile.mkdtemp(prefix="quayside-bench-source-"))
        self.folder.chmod(0o711)  # as root, the server's own user has to pass
        data = self.folder / "data"
        owner = account.server_account(data)
        binaries = account.binaries(owner)
        processes.private_folder(data, owner)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        options: dict[str, Any] = {
            "env": processes.CLEAN_ENVIRONMENT,
            "cwd": data,
            **processes.as_account(owner),
        }
        subprocess.run(
            [
                binaries / "initdb",
                "-D",
                data,
                "--username",
                "bench",
                "--auth",
                "trust",
                "--no-sync",
                "--encoding",
                "UTF8",
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            **options,
        )
        settings = SETTINGS | {"port": str(self.port), "unix_socket_directories": str(data)}
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [binaries / "postgres", "-D", data, *(f"--{n}={v}" for n, v in settings.items())],
                stdout=log,
                stderr=log,
                **options,
            )
        for _ in range(300):
            try:
                psycopg.connect(self.url).close()
                return self
            except psycopg.OperationalError:
                time.sleep(0.1)
        raise RuntimeError((self.folder / "log").read_text())

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGINT)  # "fast" shutdown
        self.process.wait()
        shutil.rmtree(self.folder)

    @property
    def url(self) -> str:
        return f"postgresql://bench@127.0.0.1:{self.port}/postgres"

    def cpu_seconds(self) -> float:
        """CPU seconds of the server and every process it ever had, once those of the last clients have ended."""
        with psycopg.connect(self.url, autocommit=True) as con:
            clients = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
            for _ in range(100):
                if con.execute(clients).fetchone() == (1,):
                    break
                time.sleep(0.05)
        postmaster, before = psutil.Process(self.process.pid), -1.0
        # One that ends while they are counted is missing once: the same sum twice, or a greater one, has all of them.
        while (now := cpu_seconds(postmaster)) < before or before < 0:
            before = now
        return now

    def load(self, scale: float) -> int:
        """Make ``lineitem`` at TPC-H scale `scale`; its number of rows."""
        with psycopg.connect(self.url, autocommit=True) as con:
            con.execute(LINEITEM)
            subprocess.run([PEERS, "-c", GENERATE, self.url, str(scale)], check=True)
            for statement in FINISH:
                con.execute(statement)
            (rows,) = con.execute("SELECT count(*) FROM lineitem").fetchone() or (0,)
        return rows

    def multiply(self, copies: int) -> None:
        """``lineitem_big``: the rows of lineitem, `copies` times over, with keys of their own."""
        with psycopg.connect(self.url, autocommit=True) as con:
            con.execute("CREATE UNLOGGED TABLE lineitem_big (LIKE lineitem)")
            columns = [
                row[0]
                for row in con.execute(
                    "SELECT attname FROM pg_attribute WHERE attrelid = 'lineitem'::regclass AND attnum > 1 ORDER BY attnum"
                )
            ]
            for copy in range(copies):
                con.execute(
                    f"INSERT INTO lineitem_big SELECT l_orderkey + {copy} * 100000000::bigint, {', '.join(columns)} FROM lineitem"
                )
            con.execute("VACUUM ANALYZE lineitem_big")

    def change(self, moment: str, seed: int) -> int:
        """Update about 0.9 % of lineitem, scattered, and insert 0.1 % new rows; how many. Each gets a time of its own as
        ``l_updated``, in the hour from `moment` on.
        """
        spread = "%s::timestamp + abs(hashint8(l_orderkey * 13 + l_linenumber)) %% 3600000000 * interval '1 microsecond'"
        with psycopg.connect(self.url) as con:
            updated = con.execute(
                f"UPDATE lineitem SET l_quantity = l_quantity + 1, l_updated = {spread}"
                " WHERE abs(hashint8(l_orderkey * 31 + l_linenumber + %s)) %% 1000 < 9",
                [moment, seed],
            ).rowcount
            inserted = con.execute(
                "INSERT INTO lineitem SELECT l_orderkey + %s * 10000000000::bigint, l_partkey, l_suppkey, l_linenumber, l_quantity,"
                " l_extendedprice, l_discount, l_tax, l_returnflag, l_linestatus, l_shipdate, l_commitdate, l_receiptdate,"
                f" l_shipinstruct, l_shipmode, l_comment, {spread} FROM lineitem"
                " WHERE l_orderkey < 10000000000 AND abs(hashint8(l_orderkey * 17 + l_linenumber + %s)) %% 1000 = 0",
                [seed, moment, seed],
            ).rowcount
            con.commit()
            con.autocommit = True
            con.execute("VACUUM ANALYZE lineitem")
        return updated + inserted

    def totals(self, table: str = "lineitem", limit: int | None = None) -> tuple[int, str]:
        """Rows and sum of ``l_extendedprice``."""
        with psycopg.connect(self.url) as con:
            row = con.execute(f"SELECT count(*), sum(l_extendedprice)::text FROM {table}").fetchone()
        assert row is not None
        return row[0], row[1]


def cpu_seconds(process: psutil.Process) -> float:
    """CPU seconds of a process, of its children that have ended, and of those that live."""
    total = sum(process.cpu_times()[:4])
    for child in process.children(recursive=True):
        try:
            total += sum(child.cpu_times()[:4])
        except psutil.NoSuchProcess:  # counted among its parent's ended children from now on
            continue
    return total
