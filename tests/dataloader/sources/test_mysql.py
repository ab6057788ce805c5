"""MariaDB: windows and ranges, what a query may do, errors. Types and names are in files of their own."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import duckdb
import pytest
from tests.dataloader.servers import PASSWORD, SourceServer

from quayside.dataloader.errors import SourceRefusedError, SourceUnavailableError
from quayside.dataloader.sources.source import Comparison
from quayside.foundation.errors import InputError, QuaysideError

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def numbers(mariadb: SourceServer) -> SourceServer:
    """``numbers``: 5,000 rows, every tenth `part` null; a view of it."""
    mariadb.run(
        "CREATE TABLE numbers (id int PRIMARY KEY, part int, at datetime(6), seen timestamp(6) NULL, d date, "
        "amount decimal(15,2), note varchar(20), KEY (at))",
        "INSERT INTO numbers SELECT seq, IF(seq % 10 = 0, NULL, seq), '2024-01-01' + INTERVAL seq MINUTE, "
        "'2024-01-01' + INTERVAL seq MINUTE, '2024-01-01' + INTERVAL seq DAY, seq / 4, 'x' FROM seq_1_to_5000",
        "CREATE VIEW numbers_view AS SELECT id, part FROM numbers",
    )
    return mariadb


@pytest.mark.parametrize("column", ["id", "part", "at", "seen", "d", "amount", "note"])
@pytest.mark.parametrize("bounds", [(None, None), ("4000", "1"), ("2024-02-01", "x")])
def test_ranges_read_every_row_once(
    numbers: SourceServer, opened: Any, rows: Any, column: str, bounds: tuple[str | None, str | None]
):
    """case 29"""
    request = numbers.request(
        "numbers", partition_column=column, num_partitions=3, lower_bound=bounds[0], upper_bound=bounds[1]
    )
    with opened(request) as table:
        assert not table.snapshot
        assert (table.relation().count("mysql_query") == 1) == (column == "note")
        assert [row[0] for row in rows(table, (), ["id"])] == list(range(1, 5001))


def test_a_window_is_the_servers_to_find(numbers: SourceServer, opened: Any, rows: Any):
    moment = datetime(2024, 1, 4, 11, 15)
    with opened(numbers.request("numbers")) as table:
        for column, value in (
            ("at", moment),
            ("seen", moment.replace(tzinfo=UTC) + timedelta(hours=7)),  # the server's zone is -07:00
            ("id", 4995),
            ("amount", Decimal("1248.75")),
        ):
            where = [Comparison(column, ">", value)]
            assert [row[0] for row in rows(table, where, ["id"])] == [4996, 4997, 4998, 4999, 5000]
            assert table.count(where) == 5
            assert table.bounds("id", where) == (4996, 5000)
        assert table.count([Comparison("part", "is null"), Comparison("id", "<=", 100)]) == 10
        assert table.count([Comparison("d", "=", date(2024, 1, 2)), Comparison("note", "=", "x")]) == 1
        assert table.bounds("seen")[1].astimezone(UTC) == datetime(2024, 1, 4, 18, 20, tzinfo=UTC)
        assert table.bounds("amount") == (Decimal("0.25"), Decimal("1250.00"))
        assert table.bounds("id", [Comparison("id", "<", 0)]) == (None, None)


def test_it_says_what_it_is(numbers: SourceServer, opened: Any):
    with opened(numbers.request("numbers")) as table:
        assert table.primary_key == ["id"]
        assert [(c.name, c.source_type, c.nullable) for c in table.columns][:2] == [
            ("id", "int(11)", False),
            ("part", "int(11)", True),
        ]
        assert abs(table.clock() - datetime.now(UTC)) < timedelta(minutes=5)
        assert table.clock().replace(tzinfo=None) - table.local_clock() == timedelta(hours=7)
    with opened(numbers.request("numbers_view", source_schema_name="source")) as table:
        assert (table.count(), table.primary_key) == (5000, [])


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1; DROP TABLE numbers",
        "DELETE FROM numbers RETURNING id",
        "SELECT 1) AS a; DROP TABLE numbers; SELECT * FROM (SELECT 1",
        "SELECT writes(1) AS a",
        "COMMIT",
    ],
)
def test_a_query_cannot_write(
    numbers: SourceServer, opened: Any, shared_con: duckdb.DuckDBPyConnection, query: str
):
    numbers.run(
        "CREATE OR REPLACE FUNCTION writes(i int) RETURNS int MODIFIES SQL DATA BEGIN DELETE FROM numbers; RETURN i; END"
    )
    with pytest.raises((InputError, SourceRefusedError)), opened(numbers.request(query=query)) as table:  # noqa: PT012
        try:
            shared_con.execute(f"FROM {table.relation()}").fetchall()
        except duckdb.Error as error:
            meaning = table.explain(error)
            assert meaning is not None
            raise meaning from None
    with opened(numbers.request("numbers")) as table:
        assert table.count() == 5000


@pytest.mark.parametrize(
    "changes, error, words",
    [
        ({"source_table_name": "Numbers"}, SourceRefusedError, "no table or view 'source.Numbers'"),
        ({"query": "SELECT nope FROM numbers"}, SourceRefusedError, "Unknown column 'nope'"),
        ({"db_config_value": {"service_name": {"value": "nowhere"}}}, SourceRefusedError, "nowhere"),
        (
            {"db_config_value": {"user": {"value": "nobody"}}},
            SourceRefusedError,
            "Access denied for user 'nobody'",
        ),
        ({"db_config_value": {"password": "WRONG_PASSWORD"}}, SourceRefusedError, "Access denied"),
        ({"db_config_value": {"password": "NOT_SET"}}, QuaysideError, "env:NOT_SET is not set"),
    ],
)
def test_what_is_refused_is_named(
    numbers: SourceServer, opened: Any, monkeypatch: pytest.MonkeyPatch, changes: Any, error: Any, words: str
):
    """case 31: a bad password, a missing secret."""
    monkeypatch.setenv("WRONG_PASSWORD", "pl4nted-wr0ng")
    config = numbers.values | changes.pop("db_config_value", {})
    request = replace(numbers.request("numbers"), db_config_value=config, **changes)
    with pytest.raises(error, match=words) as raised, opened(request):
        pass
    assert PASSWORD not in str(raised.value)
    assert "pl4nted" not in str(raised.value)


def test_a_read_that_takes_too_long_may_be_tried_again(
    numbers: SourceServer, opened: Any, shared_con: duckdb.DuckDBPyConnection
):
    values = numbers.values | {"statement_timeout_seconds": 1}
    query = "SELECT COUNT(*) AS n FROM numbers a, numbers b, numbers c, numbers d"
    with opened(replace(numbers.request(query=query), db_config_value=values)) as table:
        with pytest.raises(duckdb.Error) as raised:
            shared_con.execute(f"FROM {table.relation()}").fetchall()
        assert isinstance(table.explain(raised.value), SourceUnavailableError)
        assert table.explain(duckdb.Error("Constraint Error: of something else")) is None
