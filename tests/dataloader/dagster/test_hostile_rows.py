"""Tables and columns whose names break what is spliced, from their control rows through a run to the lake."""

from __future__ import annotations

from contextlib import closing

import dagster as dg
import pytest
from tests.dataloader.dagster.conftest import Control, tick
from tests.dataloader.dagster.test_loads import failure, run
from tests.dataloader.hostile import HOSTILE

from quayside.dataloader.control.configuration import column_list
from quayside.dataloader.dagster.sensors import master_sensor
from quayside.foundation.lake import Lake
from quayside.foundation.lake.sql import identifier
from quayside.foundation.postgres import connect

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def test_every_hostile_table_of_a_batch_is_loaded_and_loaded_again(
    control: Control, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    # cases 27, 34 and 47: schema, table, key and cursor at once, in row, run config, worker, cursor and merge
    monkeypatch.setenv("DATALOADER_TABLES_PER_RUN", str(len(HOSTILE)))
    monkeypatch.setenv("DATALOADER_SENSOR_BATCH_SIZE", str(len(HOSTILE)))
    control.source()

    def at_source(statement: str) -> None:
        with connect(control.settings) as con:
            for name in HOSTILE:
                place = f"{identifier(name)}.{identifier(name)}"
                con.execute(
                    statement.format(
                        schema=identifier(name), place=place, key=identifier(name), at=identifier(f"{name}_at")
                    ).encode()
                )  # fmt: skip

    at_source("CREATE SCHEMA {schema}")
    at_source(
        "CREATE TABLE {place} AS SELECT g AS {key}, now() - g * interval '1 day' AS {at} FROM generate_series(1, 3) g"
    )
    for number, name in enumerate(HOSTILE):
        control.table(
            name, source_schema_name=name,
            destination_table_name=f"hostile_{number}", load_strategy="incremental", incremental_type="timestamp",
            incremental_column=f"{name}_at", primary_key_cols=column_list([name]),
        )  # fmt: skip
    for rows in (3, 4):
        [request] = tick(master_sensor, instance).run_requests
        result = run(instance, request)
        assert result.success, failure(result)
        assert control.execute("SELECT DISTINCT last_status FROM control.table_control") == [("Succeeded",)]
        totals = "SELECT DISTINCT (result ->> 'rows_total')::int FROM control.historical_metadata WHERE attempt = %s"
        assert control.execute(totals, rows - 2) == [(rows,)]
        at_source("INSERT INTO {place} VALUES (9, now())")
        control.execute("UPDATE control.table_control SET next_load_date_time = now()")
    with closing(Lake(control.settings).connect(read_only=True)) as con:
        for number, name in enumerate(HOSTILE):
            sql = f'SELECT {identifier(name)} FROM lake."bronze.trade".hostile_{number} ORDER BY 1'
            assert con.execute(sql).fetchall() == [(1,), (2,), (3,), (9,)]
