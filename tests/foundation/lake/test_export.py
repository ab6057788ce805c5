from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest
from deltalake import DeltaTable
from tests.foundation.lake.conftest import Table, result

from quayside.foundation.errors import InputError, NotFoundError, SettingsError, UsageError
from quayside.foundation.lake import Lake
from quayside.foundation.lake.export import export_table

pytestmark = pytest.mark.integration

ALL_TYPES = """
    SELECT 'a' AS v, true AS b, 1::TINYINT AS ti, 2::UBIGINT AS ub, 3::HUGEINT AS h, 1.5::DECIMAL(18,2) AS d, 'nan'::DOUBLE AS f,
           DATE '2026-01-01' AS day, TIMESTAMPTZ '2026-01-01 10:00:00.123456+02' AS ts, TIME '10:00:00' AS t,
           INTERVAL 1 MONTH AS i, '\\x00\\xFF'::BLOB AS bl, uuid() AS u, '{"k": 1}'::JSON AS j, ['x', NULL] AS l,
           {'p': 1, 'q': 'z'} AS s, MAP {'k': 1} AS m, NULL::VARCHAR AS nothing, '"' AS "od""d name"
"""


@pytest.fixture
def filled(lake: Lake, con: duckdb.DuckDBPyConnection, rows_table: Table) -> Lake:
    con.execute("INSERT INTO s.rows SELECT 'a', range FROM range(10)")
    con.execute("INSERT INTO s.rows SELECT 'b', range FROM range(10)")
    con.execute("DELETE FROM s.rows WHERE n >= 6")
    return lake


def test_parquet_has_the_rows_of_the_snapshot_and_says_which(filled: Lake) -> None:
    done = export_table(filled, "s.rows")
    assert done.target == str(filled.settings.home / "exports" / "s.rows.parquet")
    assert (done.rows, done.snapshot_id) == (12, 4)
    assert duckdb.sql(f"SELECT batch, sum(n) FROM '{done.target}' GROUP BY 1 ORDER BY 1").fetchall() == [
        ("a", 15),
        ("b", 15),
    ]
    told = dict(duckdb.sql(f"SELECT key, value FROM parquet_kv_metadata('{done.target}')").fetchall())
    assert told[b"quayside_table"] == b"s.rows"
    assert told[b"quayside_snapshot"] == b"4"
    earlier = export_table(filled, "s.rows", snapshot_id=2)
    assert earlier.rows == 10
    assert duckdb.sql(f"SELECT count(*) FROM '{done.target}'").fetchall() == [(10,)]
    assert sorted(p.name for p in Path(done.target).parent.glob("*")) == [
        ".s.rows.parquet.versions",
        "s.rows.parquet",
    ]


def test_old_parquet_files_stay_for_a_day(filled: Lake) -> None:
    done = export_table(filled, "s.rows")
    first = Path(done.target).resolve()
    export_table(filled, "s.rows")
    assert first.exists()
    os.utime(first, (0, 0))
    export_table(filled, "s.rows")
    assert not first.exists()
    assert len(list(first.parent.iterdir())) == 2


def test_delta_is_replaced_and_keeps_its_history(filled: Lake) -> None:
    done = export_table(filled, "s.rows", format="delta")
    assert done.rows == 12
    again = export_table(filled, "s.rows", format="delta", snapshot_id=2)
    assert again.rows == 10
    table = DeltaTable(done.target)
    assert table.version() == 1
    assert table.history(1)[0]["quayside_snapshot"] == "2"
    assert DeltaTable(done.target, version=0).to_pyarrow_table().num_rows == 12


@pytest.mark.parametrize("format_", ["parquet", "delta"])
def test_every_type_can_be_exported(lake: Lake, con: duckdb.DuckDBPyConnection, format_: str) -> None:
    con.execute(f"CREATE SCHEMA s; CREATE TABLE s.types AS {ALL_TYPES}")
    done = export_table(lake, "s.types", format=format_)  # type: ignore[arg-type]
    if format_ == "delta":
        row = DeltaTable(done.target).to_pyarrow_table().to_pylist()[0]
        assert row["ub"] == 2
        assert row["j"] == '{"k": 1}'
        assert row["ts"].isoformat() == "2026-01-01T08:00:00.123456+00:00"
        assert row["s"] == {"p": 1, "q": "z"}
        assert row['od"d name'] == '"'
    else:
        read = duckdb.sql(
            f"SELECT ub, ts = TIMESTAMPTZ '2026-01-01 08:00:00.123456Z', s.q, \"od\"\"d name\" FROM '{done.target}'"
        )
        assert read.fetchall() == [(2, True, "z", '"')]


def test_what_cannot_be_named_is_refused(filled: Lake, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no table s\.nowhere"):
        export_table(filled, "s.nowhere")
    with pytest.raises(NotFoundError, match="no snapshot 99"):
        export_table(filled, "s.rows", snapshot_id=99)
    with pytest.raises(NotFoundError, match=r"no table s\.rows at snapshot 0"):
        export_table(filled, "s.rows", snapshot_id=0)
    data = filled.settings.lake_data_path
    for target in (data, f"{data}/x.parquet", str(Path(data).parent)):
        with pytest.raises(UsageError, match=r"overlaps|folder|not a Delta"):
            export_table(filled, "s.rows", target=target, format="delta")
    with pytest.raises(UsageError, match="overlaps"):
        export_table(filled, "s.rows", target=f"{data}/../lake/x.parquet")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match="not a Delta table"):
        export_table(filled, "s.rows", target=str(tmp_path / "mine"), format="delta")
    with pytest.raises(UsageError, match="not an export"):
        export_table(filled, "s.rows", target=str(tmp_path / "mine" / "thesis.txt"))
    with pytest.raises(UsageError, match="not an export"):
        export_table(filled, "s.rows", target=str(tmp_path / "mine"))
    with pytest.raises(UsageError, match="neither a path"):
        export_table(filled, "s.rows", target="gs://bucket/x")
    with pytest.raises(SettingsError, match="AWS_ACCESS_KEY_ID"):
        export_table(filled, "s.rows", target="s3://bucket/x")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"


def test_a_failed_export_leaves_the_last_one(filled: Lake, con: duckdb.DuckDBPyConnection) -> None:
    done = export_table(filled, "s.rows")
    con.execute(
        "CREATE OR REPLACE VIEW s.bad AS SELECT CASE WHEN n = 5 THEN error('told') END AS x FROM s.rows"
    )
    with pytest.raises(InputError, match=r"s\.bad cannot be exported: .*told"):
        export_table(filled, "s.bad", target=done.target)
    assert duckdb.sql(f"SELECT count(*) FROM '{done.target}'").fetchall() == [(12,)]
    assert len(list(Path(done.target).resolve().parent.iterdir())) == 1


@pytest.mark.slow
@pytest.mark.parametrize("format_", ["parquet", "delta"])
def test_a_reader_never_sees_half(
    lake: Lake,
    con: duckdb.DuckDBPyConnection,
    rows_table: Table,
    start: Callable[..., subprocess.Popen[str]],
    tmp_path: Path,
    format_: str,
) -> None:
    target = str(tmp_path / ("out.parquet" if format_ == "parquet" else "out"))
    con.execute("INSERT INTO s.rows SELECT 'first', range FROM range(20000)")
    export_table(lake, "s.rows", format=format_, target=target)  # type: ignore[arg-type]
    exporter = start("export_often", format_, target, 6)
    seen: set[str] = set()
    while exporter.poll() is None:
        source = f"'{Path(target).resolve()}'"
        if format_ == "delta":
            source = f"read_parquet({DeltaTable(target).file_uris()})"
        found = duckdb.sql(f"SELECT batch, count(*), sum(n) FROM {source} GROUP BY 1").fetchall()
        assert [row[1:] for row in found] == [(20000, 199990000)]
        seen.add(found[0][0])
    assert result(exporter) == 6
    assert len(seen) > 1, "reader and exporter never met"
