"""case 30: memory is bounded without a partition column, whatever the size of the table."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.dataloader.servers import SourceServer

pytestmark = [pytest.mark.integration, pytest.mark.slow]

#: Reads a table into nothing and prints rows and the kilobytes by which its memory grew while it read.
READER = """
import json, resource, sys
import duckdb
from quayside.dataloader.request import LoadRequest
from quayside.dataloader.sources.source import Comparison, open_source
from quayside.foundation.settings import load_settings

con = duckdb.connect(config={"extension_directory": sys.argv[2], "threads": 2, "memory_limit": "64MB",
                             "preserve_insertion_order": False})
with open_source(load_settings(), con, LoadRequest.of_json(json.loads(sys.argv[1]))) as table:
    read = f"COPY (SELECT * FROM {{}}) TO '/dev/null' (FORMAT csv)"
    con.execute("SET enable_progress_bar = false")
    con.execute(read.format(table.relation([Comparison("id", "<=", 100)])))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    con.execute("BEGIN")
    [rows] = con.execute(read.format(table.relation())).fetchone()
    print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
ROWS, BYTES = 50_000, 5000


@pytest.mark.parametrize("kind", ["source_pg", "mariadb"])
def test_a_table_of_hundreds_of_megabytes_streams(kind: str, request: pytest.FixtureRequest, tmp_path: Path):
    server: SourceServer = request.getfixturevalue(kind)
    series = f"generate_series(1, {ROWS}) seq" if kind == "source_pg" else f"seq_1_to_{ROWS}"
    # A view has no pages to cut it by: one stream of 250 MB.
    server.run(f"CREATE VIEW large AS SELECT seq AS id, repeat('x', {BYTES}) AS t FROM {series}")
    done = subprocess.run(
        [sys.executable, "-c", READER, json.dumps(server.request("large").to_json()), str(tmp_path)],
        check=True,
        capture_output=True,
        text=True,
    )
    rows, grown = map(int, done.stdout.split())
    assert rows == ROWS
    assert grown < 150_000, f"{grown} kB"
