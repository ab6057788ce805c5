"""The loaders `make bench-dataloader` measures beside ours, each the way its own documentation shows it, each in a process of its own.

    python benchmarks/loaders.py full|merge NAME URL TABLE FOLDER [SINCE]

Runs in the environment of requirements-peers.lock and imports nothing of Quayside. Prints one JSON line: the seconds of
the load itself (after imports), and where its result is. `full` loads the whole table into FOLDER; `merge` upserts the
rows whose ``l_updated`` is above SINCE into what `full` left there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

KEY = ("l_orderkey", "l_linenumber")
DECIMALS = ("l_quantity", "l_extendedprice", "l_discount", "l_tax")
LIMITED = 1_000_000  # rows, for those that would take minutes for all


def duckdb_connection(url: str, threads: int) -> Any:
    import duckdb
    from duckdb_extensions import import_extension

    for name in ("postgres_scanner", "ducklake"):
        import_extension(name)
    con = duckdb.connect(config={"threads": threads, "preserve_insertion_order": False})
    con.execute("LOAD postgres_scanner; LOAD ducklake")
    con.execute(f"ATTACH '{url}' AS src (TYPE postgres, READ_ONLY)")
    return con


def duckdb_parquet(url: str, table: str, folder: Path, threads: int = 2) -> Callable[[], Any]:
    con = duckdb_connection(url, threads)
    return lambda: con.execute(
        f"COPY src.public.{table} TO '{folder}/out.parquet' (FORMAT parquet, COMPRESSION zstd)"
    )


def _lake(url: str, folder: Path) -> Any:
    con = duckdb_connection(url, 2)
    con.execute(f"ATTACH 'ducklake:{folder}/catalog.ducklake' AS lake (DATA_PATH '{folder}/data/')")
    con.execute("CALL lake.set_option('parquet_compression', 'zstd')")
    con.execute("CALL lake.set_option('parquet_compression_level', 1)")
    return con


def duckdb_ducklake(url: str, table: str, folder: Path) -> Callable[[], Any]:
    con = _lake(url, folder)
    return lambda: con.execute(f"CREATE TABLE lake.out AS SELECT * FROM src.public.{table}")


def duckdb_merge(url: str, table: str, folder: Path, since: str) -> Callable[[], Any]:
    con = _lake(url, folder)
    on = " AND ".join(f"t.{k} = s.{k}" for k in KEY)

    def work() -> None:
        con.execute(
            f"MERGE INTO lake.out t USING (SELECT * FROM src.public.{table} WHERE l_updated > TIMESTAMP '{since}') s "
            f"ON ({on}) WHEN MATCHED THEN UPDATE WHEN NOT MATCHED THEN INSERT"
        )

    return work


def connectorx_parquet(url: str, table: str, folder: Path) -> Callable[[], Any]:
    import connectorx
    import pyarrow.parquet as pq

    def work() -> None:
        rows = connectorx.read_sql(
            url,
            f"SELECT * FROM {table}",
            return_type="arrow",
            partition_on="l_orderkey",
            partition_num=2,
        )
        pq.write_table(rows, folder / "out.parquet", compression="zstd", compression_level=1)

    return work


def adbc_parquet(url: str, table: str, folder: Path) -> Callable[[], Any]:
    import adbc_driver_postgresql.dbapi as adbc
    import pyarrow as pa
    import pyarrow.parquet as pq

    def work() -> None:
        with adbc.connect(url) as con, con.cursor() as cursor:
            cursor.execute(f"SELECT * FROM {table}")
            reader = cursor.fetch_record_batch()
            kinds = [
                pa.field(f.name, pa.decimal128(15, 2) if f.name in DECIMALS else f.type)
                for f in reader.schema
            ]
            schema = pa.schema(kinds)
            with pq.ParquetWriter(
                folder / "out.parquet", schema, compression="zstd", compression_level=1
            ) as out:
                for batch in reader:
                    columns = [
                        c.cast(f.type) if f.name in DECIMALS else c
                        for c, f in zip(batch.columns, schema, strict=True)
                    ]
                    out.write_batch(pa.record_batch(columns, schema=schema))

    return work


def pandas_parquet(url: str, table: str, folder: Path) -> Callable[[], Any]:
    import pandas
    import sqlalchemy

    engine = sqlalchemy.create_engine(url.replace("postgresql://", "postgresql+psycopg2://"))

    def work() -> None:
        frame = pandas.read_sql(f"SELECT * FROM {table} LIMIT {LIMITED}", engine)
        frame.to_parquet(folder / "out.parquet", compression="zstd")

    return work


def _dlt(url: str, table: str, folder: Path, backend: str, limited: bool) -> Any:
    os.environ |= {
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "RUNTIME__LOG_LEVEL": "ERROR",
        "DLT_DATA_DIR": str(folder / "dlt"),
    }
    import dlt
    from dlt.sources.sql_database import sql_table

    pipeline = dlt.pipeline(
        "bench",
        destination=dlt.destinations.filesystem(bucket_url=f"file://{folder}/out"),
        dataset_name="d",
        pipelines_dir=str(folder / "pipelines"),
    )
    options: dict[str, Any] = {"reflection_level": "full_with_precision"}
    if backend == "connectorx":
        options["backend_kwargs"] = {"conn": url, "return_type": "arrow_stream"}
    if limited:
        options["query_adapter_callback"] = lambda query, _: query.limit(LIMITED)
    source = sql_table(
        credentials=url.replace("postgresql://", "postgresql+psycopg2://"),
        table=table,
        backend=backend,
        chunk_size=200_000,
        **options,
    )
    return dlt, pipeline, source


def dlt_full(
    url: str, table: str, folder: Path, backend: str, form: str, limited: bool = False
) -> Callable[[], Any]:
    _, pipeline, source = _dlt(url, table, folder, backend, limited)
    hints: dict[str, Any] = {"write_disposition": "replace", "primary_key": KEY}
    if form == "delta":
        hints["table_format"] = "delta"
    source.apply_hints(**hints)
    return lambda: pipeline.run(source, loader_file_format="parquet").raise_on_failed_jobs()


def dlt_merge(url: str, table: str, folder: Path, backend: str, since: str) -> Callable[[], Any]:
    from datetime import datetime

    dlt, pipeline, source = _dlt(url, table, folder, backend, False)
    source.apply_hints(
        table_format="delta",
        write_disposition={"disposition": "merge", "strategy": "upsert"},
        primary_key=KEY,
        incremental=dlt.sources.incremental(
            "l_updated", initial_value=datetime.fromisoformat(since), range_start="open"
        ),
    )
    return lambda: pipeline.run(source, loader_file_format="parquet").raise_on_failed_jobs()


def sling_csv(url: str, table: str, folder: Path) -> Callable[[], Any]:
    # Its Parquet is written by a DuckDB it downloads, which a machine without that download has not; CSV it writes itself.
    import sling_linux_amd64

    files = Path(sling_linux_amd64.__file__).parent.rglob("sling*")
    binary = next(p for p in files if p.is_file() and os.access(p, os.X_OK))
    environment = os.environ | {
        "SRC": url + "?sslmode=disable",
        "SLING_HOME_DIR": str(folder / "sling"),
        "SLING_DISABLE_TELEMETRY": "TRUE",
    }
    command = [
        str(binary), "run", "--src-conn", "SRC", "--src-stream", f"SELECT * FROM {table} LIMIT {LIMITED}",
        "--tgt-object", f"file://{folder}/out.csv", "--mode", "full-refresh",
    ]  # fmt: skip

    def work() -> None:
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            lines = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr).strip().splitlines()
            raise SystemExit(f"sling: {' '.join(lines[-4:])}")

    return work


def deltalake_merge(url: str, table: str, folder: Path, since: str) -> Callable[[], Any]:
    import connectorx
    from deltalake import DeltaTable

    on = " AND ".join(f"t.{k} = s.{k}" for k in KEY)

    def work() -> None:
        rows = connectorx.read_sql(
            url, f"SELECT * FROM {table} WHERE l_updated > '{since}'", return_type="arrow"
        )
        target = DeltaTable(folder / "out")
        wanted = target.schema().to_arrow()
        import pyarrow as pa

        rows = rows.cast(pa.schema(wanted))
        merge = target.merge(rows, on, source_alias="s", target_alias="t")
        merge.when_matched_update_all().when_not_matched_insert_all().execute()

    return work


def deltalake_full(url: str, table: str, folder: Path) -> Callable[[], Any]:
    con = duckdb_connection(url, 2)
    from deltalake import write_deltalake

    def work() -> None:
        reader = con.execute(f"SELECT * FROM src.public.{table}").to_arrow_reader(1_000_000)
        write_deltalake(folder / "out", reader)

    return work


FULL: dict[str, Callable[[str, str, Path], Callable[[], Any]]] = {
    "DuckDB → Parquet, 1 thread": lambda u, t, f: duckdb_parquet(u, t, f, 1),
    "DuckDB → Parquet, 2 threads": duckdb_parquet,
    "DuckDB → DuckLake by hand": duckdb_ducklake,
    "DuckDB → Delta by hand": deltalake_full,
    "ConnectorX → Parquet": connectorx_parquet,
    "ADBC → Parquet": adbc_parquet,
    "dlt connectorx → Parquet": lambda u, t, f: dlt_full(u, t, f, "connectorx", "parquet"),
    "dlt connectorx → Delta": lambda u, t, f: dlt_full(u, t, f, "connectorx", "delta"),
    "dlt pyarrow → Parquet (1M)": lambda u, t, f: dlt_full(u, t, f, "pyarrow", "parquet", True),
    "pandas → Parquet (1M)": pandas_parquet,
    "Sling → CSV (1M)": sling_csv,
}
MERGE: dict[str, Callable[[str, str, Path, str], Callable[[], Any]]] = {
    "DuckDB → DuckLake by hand": duckdb_merge,
    "DuckDB → Delta by hand": deltalake_merge,
    "dlt connectorx → Delta": lambda u, t, f, s: dlt_merge(u, t, f, "connectorx", s),
}


def totals(name: str, folder: Path) -> dict[str, Any]:
    """Rows and sum of ``l_extendedprice`` of what a loader left, read back with DuckDB."""
    import duckdb

    if "DuckLake" in name:
        from duckdb_extensions import import_extension

        import_extension("ducklake")
        con = duckdb.connect()
        con.execute(f"LOAD ducklake; ATTACH 'ducklake:{folder}/catalog.ducklake' AS lake (READ_ONLY)")
        relation = "lake.out"
    elif "Delta" in name:
        from deltalake import DeltaTable

        con = duckdb.connect()
        path = next(p.parent for p in folder.rglob("_delta_log") if not p.parent.name.startswith("_dlt"))
        con.register("delta", DeltaTable(path).to_pyarrow_dataset())
        relation = "delta"
    elif "CSV" in name:
        con = duckdb.connect()
        relation = f"read_csv('{folder}/out.csv')"
    else:
        con = duckdb.connect()
        files = [
            str(p) for p in folder.rglob("*.parquet") if "/_dlt" not in str(p) and "/pipelines/" not in str(p)
        ]
        relation = f"read_parquet({files})"
    row = con.execute(
        f"SELECT count(*), sum(l_extendedprice::DECIMAL(20,2))::VARCHAR FROM {relation}"
    ).fetchone()
    assert row is not None
    return {"rows": row[0], "sum": row[1]}


def main() -> None:
    what, name, url, table, where, *since = sys.argv[1:]
    folder = Path(where)
    if what == "totals":
        print(json.dumps(totals(name, folder)))
        return
    if what == "full":
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        work = FULL[name](url, table, folder)
    else:
        work = MERGE[name](url, table, folder, *since)
    started = time.perf_counter()
    work()
    print(json.dumps({"seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    main()
