"""Rows of configuration: every problem named at once, saving twice changes nothing, YAML there and back."""

from __future__ import annotations

from typing import Any

import pytest

from quayside.dataloader.control import configuration, records
from quayside.dataloader.control.client import LakebaseClient
from quayside.dataloader.control.configuration import source_problems, table_problems
from quayside.dataloader.control.rows import column_list, column_names, run_id_of
from quayside.foundation.errors import InputError, NotFoundError, ServiceUnavailableError, UsageError

GOOD = {
    "db_config_key": "shop",
    "source_table_name": "t",
    "destination_schema_name": "s",
    "destination_table_name": "t",
}


@pytest.mark.unit
@pytest.mark.parametrize(
    "names",
    [["id"], ["id", "seq"], ["a,b", 'say "hi"', " padded ", "new\nline"], ["Größe", "select", "x'); DROP"]],
)
def test_key_columns_are_read_as_they_were_written(names: list[str]) -> None:
    assert list(column_names(column_list(names))) == [
        name.strip() if name == " padded " else name for name in names
    ]


@pytest.mark.unit
def test_key_columns_by_hand() -> None:
    assert column_names('id, seq ,"odd, name"') == ("id", "seq", "odd, name")
    assert column_names(None) == column_names("") == ()
    assert column_names('id,"x') == ("id", "x")  # malformed by hand: still something that a load can refuse
    assert column_names("a\nb,c") == ("a\nb", "c")


@pytest.mark.unit
@pytest.mark.parametrize(
    "run, expected",
    [
        ("0a1b", "0a1b"),
        ("http://localhost:3000/runs/0a1b", "0a1b"),
        ("https://x.dagster.cloud/prod/runs/0a1b/", "0a1b"),
        (None, None),
    ],
)
def test_a_run_is_a_url_or_a_bare_id(run: str | None, expected: str | None) -> None:
    assert run_id_of(run) == expected


@pytest.mark.unit
@pytest.mark.parametrize(
    "values, problems",
    [
        ({}, []),
        ({"primary_key_cols": "id", "load_strategy": "rolling", "rolling_column": "d"}, []),
        ({"is_active": False, "load_strategy": "scd2", "db_config_key": None}, []),  # a draft
        # case 34 - illegal destinations are refused on save
        ({"destination_table_name": "a b"}, ["destination_table_name 'a b' is not made of letters"]),
        ({"destination_catalog": "x" * 129}, ["is not made of letters"]),
        ({"destination_schema_name": None}, ["destination_schema_name is missing"]),
        ({"load_strategy": "upsert"}, ["load_strategy 'upsert' is none of full, incremental"]),
        ({"delete_mode": "sfot"}, ["delete_mode 'sfot' is none of soft, hard"]),
        ({"load_cron": "0 25 * * *"}, ["'25' as its hour"]),
        ({"load_timezone": "MEZ"}, ["'MEZ' is not a time zone"]),
        ({"rolling_days": 0, "num_partitions": "many"}, ["rolling_days 0", "num_partitions 'many'"]),
        ({"incremental_lookback_hours": -1}, ["incremental_lookback_hours -1"]),
        ({"load_strategy": "incremental"}, ["incremental_column", "incremental_type", "primary_key_cols"]),
        ({"load_strategy": "rolling"}, ["rolling_column is missing", "primary_key_cols is missing"]),
        ({"load_strategy": "scd2"}, ["primary_key_cols is missing, which scd2 needs"]),
        ({"is_delete": True}, ["primary_key_cols is missing, which is_delete needs"]),
        ({"primary_key_cols": 'id,"x'}, ["primary_key_cols cannot be read"]),
        ({"primary_key_cols": "id,id"}, ["an empty or repeated name"]),
        ({"db_config_key": None}, ["db_config_key is missing"]),
        ({"last_status": None}, ["last_status is not a column"]),
    ],
)
def test_every_problem_of_a_table_is_named(values: dict[str, Any], problems: list[str]) -> None:
    found = table_problems(GOOD | values)
    assert len(found) == len(problems)
    for problem, expected in zip(found, problems, strict=True):
        assert expected in problem


@pytest.mark.unit
def test_every_problem_of_a_source_is_named() -> None:
    assert source_problems({"db_config_key": "shop_1", "db_type": "oracle"}) == []
    found = source_problems(
        {
            "db_config_key": "a b",
            "db_type": "db2",
            "db_config_value": ["x"],
            "max_connections": 0,
            "color": "red",
        }
    )
    assert [problem.split()[0] for problem in found] == [
        "color", "db_config_key", "db_type", "db_config_value", "max_connections",
    ]  # fmt: skip


@pytest.mark.unit
def test_a_secret_is_stored_by_name_alone() -> None:
    # case 38
    good = {"host": "SHOP_HOST", "port": 5432, "path": {"value": "/data"}, "password": "SHOP_PASSWORD"}
    assert source_problems({"db_config_key": "s", "db_type": "csv", "db_config_value": good}) == []
    for value in ({"value": "hunter2"}, 12345):
        row = {"db_config_key": "s", "db_type": "csv", "db_config_value": {"password": value}}
        assert source_problems(row) == ["password has to be the name of a secret, not the secret"]
    row = {"db_config_key": "s", "db_type": "csv", "db_config_value": {"path": ["/data"]}}
    assert source_problems(row) == ['path is neither the name of a secret nor {"value": …}']


@pytest.mark.integration
def test_saving_again_changes_nothing_and_is_one_row(control: Any) -> None:
    assert (
        control.client.save_source(
            {"db_config_key": "shop", "db_type": "csv", "db_config_value": {"path": "x"}}
        )
        == "added"
    )
    assert (
        control.client.save_source({"db_config_key": "shop", "db_config_value": {"path": "x"}}) == "unchanged"
    )
    assert control.client.save_source({"db_config_key": "shop", "max_connections": 4}) == "changed"
    row = {
        "db_config_key": "shop",
        "source_schema_name": "public",
        "source_table_name": "orders",
        "primary_key_cols": ["a", "b"],
    }
    config, saved = control.client.save_table(row)
    assert saved == "added"
    assert control.client.save_table(row) == (config, "unchanged")
    assert control.client.save_table(row | {"priority": 3}) == (config, "changed")
    assert control.client.save_table({"load_cron": "0 6 * * *"}, config) == (config, "changed")
    other, saved = control.client.save_table(row | {"load_cron": "0 7 * * *"})
    assert (saved, other != config) == ("added", True)
    assert control.row(config)["primary_key_cols"] == "a,b"
    with pytest.raises(NotFoundError, match="no config 999"):
        control.client.save_table({"priority": 1}, 999)


@pytest.mark.integration
def test_a_new_row_takes_what_is_left_out_from_its_source(control: Any) -> None:
    control.source(default_target_schema="landing")
    config, _ = control.client.save_table(
        {"db_config_key": "shop", "source_schema_name": "public", "source_table_name": "t"}
    )
    row = control.row(config)
    assert (row["destination_catalog"], row["destination_schema_name"], row["destination_table_name"]) == (
        "bronze", "landing", "t",
    )  # fmt: skip
    assert row["is_active"]


@pytest.mark.integration
@pytest.mark.parametrize(
    "values, sentence",
    [
        ({"db_config_key": "nowhere"}, "there is no source database 'nowhere'"),
        ({"destination_table_name": "orders"}, "is loaded by config .* already"),
        ({"destination_table_name": "a b", "load_cron": "x"}, "'a b' is not made .*; load_cron 'x' has not"),
        ({"next_load_date_time": "soon"}, "invalid input syntax for type timestamp"),
    ],
)
def test_what_is_refused_says_why(control: Any, values: dict[str, Any], sentence: str) -> None:
    control.source()
    control.table()
    with pytest.raises(InputError, match=sentence) as refused:
        control.table("lines", **values)
    assert str(refused.value).startswith("Table 'lines' is not saved: ")
    assert len(control.client.get_control_tables(None)) == 1


@pytest.mark.integration
def test_two_that_take_one_destination_at_once_do_not_both_get_it(control: Any) -> None:
    # case 44
    control.source()
    with control.client.changes() as con:
        row = {
            "db_config_key": "shop",
            "source_schema_name": "a",
            "source_table_name": "t",
            "destination_schema_name": "s",
        }
        configuration.save_table(con, row)
        second = row | {"source_schema_name": "b"}
        with pytest.raises(ServiceUnavailableError, match="lock timeout"):
            _save_soon(control.client, second)  # it waits for the first one's outcome
    with pytest.raises(InputError, match="is loaded by config"):
        control.client.save_table(second)


def _save_soon(client: LakebaseClient, row: dict[str, Any]) -> None:
    with client.changes() as con:
        con.execute("SET LOCAL lock_timeout = '50ms'")
        configuration.save_table(con, row)


@pytest.mark.integration
def test_configuration_goes_to_yaml_and_back(control: Any) -> None:
    import yaml

    control.source(
        max_concurrent_loads=2, load_windows=[{"from": "22:00", "to": "06:00", "zone": "Europe/Zurich"}]
    )
    config = control.table(
        load_cron="0 6 * * *", load_timezone="Europe/Zurich", primary_key_cols=["a,b", "c"]
    )
    control.table("off", is_active=False, load_strategy="scd2")
    text = yaml.safe_dump(records.export(control.client))
    assert records.restore(control.client, yaml.safe_load(text)) == {"added": 0, "changed": 0, "unchanged": 3}
    control.sql("DELETE FROM control.table_control")
    control.sql("DELETE FROM control.table_control_dbconfig")
    assert records.restore(control.client, yaml.safe_load(text)) == {"added": 3, "changed": 0, "unchanged": 0}
    assert yaml.safe_dump(records.export(control.client)) == text
    assert not [r for r in control.client.get_control_tables(None) if r["config_id"] == config]


@pytest.mark.integration
@pytest.mark.parametrize(
    "content", [[], {"tabels": []}, {"tables": {"a": 1}}, {"sources": ["x"]}, "text", None]
)
def test_a_file_of_another_form_is_refused(control: Any, content: Any) -> None:
    with pytest.raises(InputError):
        records.restore(control.client, content)


@pytest.mark.integration
def test_a_file_with_one_wrong_row_changes_nothing(control: Any) -> None:
    rows = {
        "sources": [{"db_config_key": "s", "db_type": "csv"}],
        "tables": [{"source_table_name": "t", "db_config_key": "s"}],
    }
    with pytest.raises(InputError, match="destination_schema_name is missing"):
        records.restore(control.client, rows)
    assert records.sources(control.client) == []


@pytest.mark.integration
def test_a_row_is_found_by_whatever_it_is_called(control: Any) -> None:
    control.source()
    config = control.table("orders")
    key = control.row(config)["control_key"]
    for name in (str(config), key, key[:8], "trade.orders", "Bronze.Trade.Orders"):
        assert records.find(control.client, name)["config_id"] == config
    other = control.table("orders", load_cron="0 6 * * *")
    with pytest.raises(UsageError, match=f"may be config {config}, {other}: give the number"):
        records.find(control.client, "trade.orders")
    for name in ("nothing", "%", "999999"):
        with pytest.raises(NotFoundError):
            records.find(control.client, name)


@pytest.mark.integration
def test_what_loads_cannot_be_removed(control: Any) -> None:
    control.source()
    config = control.table()
    attempt = control.begun(config)
    with pytest.raises(UsageError, match="stop it first"):
        records.remove(control.client, config)
    attempt.succeed(control.loaded())
    records.remove(control.client, config)
    assert control.client.get_control_tables(None) == []
    assert len(records.history(control.client, config, 10)) == 1
    assert [c["change_type"] for c in records.changes(control.client, config, 10)] == ["DELETE", "INSERT"]
