"""What forbids a fork is found in a process that has it, and nothing else is."""

from __future__ import annotations

import json

import pytest
from tests.foundation.dagster.launcher.alone import say

pytestmark = pytest.mark.unit


def found_after(code: str) -> list[str]:
    return json.loads(say(f"{code}\nprint(json.dumps(part('openness').what_is_open()))"))


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("", id="nothing"),
        pytest.param(
            "import threading; t = threading.Thread(target=int); t.start(); t.join()",
            id="a thread that ended",
        ),
        pytest.param("import sqlite3; c = sqlite3.connect(':memory:'); c.close()", id="SQLite, closed"),
        pytest.param("f = open(sys.executable, 'rb')", id="a file"),
        pytest.param("import numpy; numpy.ones((300, 300)) @ numpy.ones((300, 300))", id="OpenBLAS, used"),
        pytest.param(
            "import scipy.linalg as l, numpy as n; l.inv(n.eye(300)); from scipy.sparse import csgraph",
            id="SciPy, used",
        ),
        pytest.param("import pyarrow.dataset, pyarrow as pa; pa.array([1, 2])", id="Arrow"),
        pytest.param("import duckdb", id="duckdb imported"),
        pytest.param("import duckdb; duckdb.connect().close()", id="DuckDB, closed"),
        pytest.param("import grpc, psycopg2, psycopg, sqlalchemy", id="libraries alone"),
    ],
)
def test_what_may_be_forked(code: str):
    assert found_after(code) == []


@pytest.mark.parametrize(
    "code, words",
    [
        pytest.param(
            "import threading; threading.Thread(target=time.sleep, args=(9,), daemon=True).start()",
            "1 thread",
            id="a thread",
        ),
        pytest.param(
            "from concurrent.futures import ThreadPoolExecutor as P; p = P(2); p.submit(time.sleep, 1); p.submit(int)",
            "thread",
            id="a pool of threads",
        ),
        pytest.param("import socket; s = socket.socket()", "a socket (descriptor", id="a socket"),
        pytest.param("import select; e = select.epoll()", "an event queue (eventpoll", id="epoll"),
        pytest.param("import asyncio; l = asyncio.new_event_loop()", "event", id="an event loop"),
        pytest.param("import sqlite3; c = sqlite3.connect(':memory:')", "an SQLite connection", id="SQLite"),
        pytest.param(
            "import sqlite3; C = type('C', (sqlite3.Connection,), {}); c = sqlite3.connect(':memory:', factory=C)",
            "an SQLite connection",
            id="a subclass",
        ),
        pytest.param(
            "import duckdb; c = duckdb.connect(config={'threads': 1})", "a DuckDB connection", id="DuckDB"
        ),
        pytest.param(
            "import duckdb; held = [{'deep': (duckdb.connect(config={'threads': 1}),)}]",
            "a DuckDB connection",
            id="DuckDB in a dict in a list",
        ),
        pytest.param(
            "import duckdb; duckdb.sql('CREATE TABLE t (i INT)')",
            "default connection",
            id="DuckDB's own, used",
        ),
        pytest.param("import grpc; c = grpc.insecure_channel('127.0.0.1:1')", "a gRPC channel", id="gRPC"),
    ],
)
def test_what_may_not(code: str, words: str):
    assert any(words in phrase for phrase in found_after(code))


def test_descriptors_of_the_caller_are_its_own_affair():
    code = "import socket; s = socket.socket()\nprint(part('openness').what_is_open({s.fileno()}))"
    assert say(code) == "[]"
