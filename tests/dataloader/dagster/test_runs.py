"""How claimed tables become run requests, and how runs are told from their tags. Needs no service."""

from __future__ import annotations

from dataclasses import replace

import dagster as dg
import pytest

from quayside.dataloader.dagster.config import attempts_in, batch_run_config, table_run_config
from quayside.dataloader.dagster.environment import named, suffix
from quayside.dataloader.dagster.runs import attempts_of, grouped, run_requests
from quayside.dataloader.request import LoadRequest
from quayside.foundation.errors import SettingsError

pytestmark = pytest.mark.unit

ONE = LoadRequest(
    config_id=1, control_key="a" * 64, metadata_id=7, attempt=3, db_config_key="sales", db_type="postgresql",
    db_config_value={"host": "SALES_HOST", "password": "SALES_PASSWORD"}, db_kv_scope="env", source_catalog=None,
    source_schema_name="public", source_table_name="t1", query=None, destination_catalog="bronze",
    destination_schema_name="trade", destination_table_name="t1", load_strategy="incremental",
    primary_key_cols=("id",), incremental_value="2026-01-01T00:00:00",
)  # fmt: skip


def table(config_id: int, **more: object) -> LoadRequest:
    return replace(
        ONE,
        config_id=config_id,
        control_key=f"{config_id:064x}",
        destination_table_name=f"t{config_id}",
        **more,
    )


def test_a_run_per_table_carries_the_row_in_config_key_and_tags():
    [request] = run_requests([ONE], 1)
    assert request.job_name == "dataloader_table_load"
    assert request.run_key == f"{ONE.control_key}:3"
    assert {k: request.tags[k] for k in ("config_id", "attempt", "control_key", "table", "attempts")} == {
        "config_id": "1", "attempt": "3", "control_key": ONE.control_key, "table": "bronze.trade.t1", "attempts": "1:3",
    }  # fmt: skip
    config = request.run_config["ops"]["dataloader__table_load"]["config"]
    assert config["db_config_value"] == ONE.db_config_value
    assert (config["metadata_id"], config["primary_key_cols"]) == (7, ["id"])
    assert "query" not in config


def test_a_backfill_may_run_for_a_day():
    [request] = run_requests([replace(ONE, load_strategy="chunked_backfill")], 1)
    assert request.tags["dagster/max_runtime"] == "86400"


def test_batches_hold_tables_of_one_database_and_one_kind_of_load():
    tables = [
        table(1), table(2, db_config_key="stock"), table(3), table(4, load_strategy="chunked_backfill"),
        table(5, load_full=True), table(6), table(7), table(8, load_strategy="chunked_backfill"),
    ]  # fmt: skip
    assert [[r.config_id for r in group] for group in grouped(tables, 3)] == [
        [1, 3, 6],
        [7],
        [2],
        [4],
        [5],
        [8],
    ]
    batch, *others = run_requests(tables, 3)
    assert batch.job_name == "dataloader_batch_load"
    assert batch.tags["attempts"] == "1:3,3:3,6:3"
    assert (batch.tags["db_config_key"], batch.tags["table_count"]) == ("sales", "3")
    config = batch.run_config["ops"]["dataloader__batch_load"]["config"]
    assert config["db_config_value"] == ONE.db_config_value
    assert [t["config_id"] for t in config["tables"]] == [1, 3, 6]
    assert {other.job_name for other in others} == {"dataloader_table_load"}
    assert len({r.run_key for r in (batch, *others)}) == 6


def test_two_schedules_of_one_table_stay_apart():
    # case 43
    hourly, daily = table(1), replace(table(1), config_id=2, control_key="b" * 64, attempt=1)
    keys = {request.run_key for request in run_requests([hourly, daily], 1)}
    assert len(keys) == 2
    [both] = run_requests([hourly, daily], 10)
    assert both.tags["attempts"] == "1:3,2:1"


@pytest.mark.parametrize(
    ("tags", "config", "found"),
    [
        ({"attempts": "1:3,2:1"}, {}, [(1, 3), (2, 1)]),
        # case 5, when neither can be relied on
        ({"attempts": "nonsense"}, table_run_config(ONE), [(1, 3)]),
        ({}, batch_run_config([ONE, table(2)]), [(1, 3), (2, 3)]),
        ({}, {"ops": {"something_else": {}}}, []),
        ({}, {"ops": None}, []),
        ({"attempts": "1"}, {}, []),
    ],
)
def test_the_attempts_of_a_run(tags: dict[str, str], config: dict[str, object], found: list[tuple[int, int]]):
    run = dg.DagsterRun(job_name="dataloader_table_load", run_id="r", run_config=config, tags=tags)
    assert attempts_of(run) == found
    if not tags:
        assert attempts_in(config) == found


@pytest.mark.parametrize(("value", "name"), [("npd", "x_npd"), ("prod", "x_prod"), ("", "x")])
def test_names_carry_the_environment(monkeypatch: pytest.MonkeyPatch, value: str, name: str):
    monkeypatch.setenv("DAGSTER_ENVIRONMENT", value)
    assert named("x") == name


def test_an_unknown_environment_is_one_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DAGSTER_ENVIRONMENT", "production")
    with pytest.raises(SettingsError, match="DAGSTER_ENVIRONMENT must be npd or prod"):
        suffix()
