"""The exported SQL, run in real databases, gives the engine's points exactly."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from typing import Any

import duckdb
import numpy as np
import psycopg
import pyarrow as pa
import pytest
import sqlglot
from hypothesis import example, given, settings
from hypothesis import strategies as st
from psycopg import sql as pg

from quayside.foundation.errors import InputError
from quayside.foundation.settings import Settings
from quayside.kycc.scorecard import Characteristic, Rule, Scorecard, evaluate, load_scorecard, points, to_sql
from quayside.kycc.scorecard.sql import conditions_to_sql, points_to_sql, total_to_sql

from .cases import Case, anything_finite, cases

Scored = list[tuple[int, int]]


def expected(case: Case) -> Scored:
    scored = evaluate(case.card, case.columns)
    return list(zip(scored.raw_score.tolist(), scored.total_score.tolist(), strict=True))


def kinds(card: Scorecard) -> dict[str, str]:
    kind_of = {item.feature: item.kind for item in card.characteristics}
    return {name: kind_of.get(name, "numeric") for name in card.required_features}


def scores_in(run: Any, card: Scorecard, dialect: str) -> Scored:
    """Raw and total score per row by the two expressions; the two queries have to agree with them."""
    raw, total = to_sql(card, dialect), to_sql(card, dialect, with_rules=True, pretty=False)
    rows = run(f"SELECT {raw} AS r, {total} AS t FROM cases ORDER BY row_number")
    width = len(card.required_features) + 1
    query = to_sql(card, dialect, "cases", with_rules=True, pretty=False)
    assert sorted(row[width:] for row in run(query)) == sorted(rows)
    return [(int(r), int(t)) for r, t in rows]


def in_duckdb(case: Case) -> Scored:
    with duckdb.connect() as con:
        columns = ", ".join(
            f"{_quoted(name)} {'VARCHAR' if kind == 'categorical' else 'DOUBLE'}"
            for name, kind in kinds(case.card).items()
        )
        con.execute(f"CREATE TABLE cases ({columns}, row_number INTEGER)")
        marks = ", ".join("?" * (len(case.card.required_features) + 1))
        for number, row in enumerate(case.rows):
            con.execute(
                f"INSERT INTO cases VALUES ({marks})",
                [*(row[n] for n in case.card.required_features), number],
            )
        return scores_in(lambda query: con.execute(query).fetchall(), case.card, "duckdb")


def in_sqlite(case: Case) -> Scored:
    con = sqlite3.connect(":memory:")
    try:
        columns = ", ".join(
            f"{_quoted(name)} {'TEXT' if kind == 'categorical' else 'REAL'}"
            for name, kind in kinds(case.card).items()
        )
        con.execute(f"CREATE TABLE cases ({columns}, row_number INTEGER)")
        marks = ", ".join("?" * (len(case.card.required_features) + 1))
        rows = [[*(row[n] for n in case.card.required_features), i] for i, row in enumerate(case.rows)]
        con.executemany(f"INSERT INTO cases VALUES ({marks})", rows)
        return scores_in(lambda query: con.execute(query).fetchall(), case.card, "sqlite")
    finally:
        con.close()


def in_postgres(case: Case, con: psycopg.Connection[Any]) -> Scored:
    with con.transaction(force_rollback=True), con.cursor() as cursor:
        columns = [
            pg.SQL(" ").join(
                [pg.Identifier(name), pg.SQL("text" if kind == "categorical" else "double precision")]
            )
            for name, kind in kinds(case.card).items()
        ]
        table = pg.SQL("CREATE TEMP TABLE cases ({}, row_number int)").format(pg.SQL(", ").join(columns))
        cursor.execute(table.as_string(con).encode())
        with cursor.copy("COPY cases FROM STDIN") as copy:
            for number, row in enumerate(case.rows):
                copy.write_row([*(row[name] for name in case.card.required_features), number])
        return scores_in(lambda query: cursor.execute(query.encode()).fetchall(), case.card, "postgres")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@pytest.fixture(scope="module")
def postgres(session_settings: Settings) -> Iterator[psycopg.Connection[Any]]:
    from quayside.foundation.postgres import connect

    with connect(session_settings) as con:
        yield con
        con.rollback()


@pytest.mark.unit
@settings(max_examples=25)
@given(cases())
@pytest.mark.slow
def test_duckdb_and_sqlite_give_the_engines_scores(case: Case) -> None:
    assert in_duckdb(case) == expected(case)
    assert in_sqlite(case) == expected(case)


@pytest.mark.slow
@pytest.mark.unit
@settings(max_examples=20)
@given(cases())
def test_the_parts_make_the_whole(case: Case) -> None:
    card, columns = case.card, case.columns
    kind = kinds(card)
    table = pa.table(
        {
            n: pa.array(v, pa.string() if kind[n] == "categorical" else pa.float64())
            for n, v in columns.items()
        }
    )
    with duckdb.connect() as con:
        con.register("cases", table)
        earned = list(points_to_sql(card, "duckdb").values())
        fired = list(conditions_to_sql(card, "duckdb").values())
        total = total_to_sql(card, "duckdb", 'the "raw" one')
        rows = con.execute(
            f"SELECT [{', '.join(earned)}], [{', '.join(fired)}]::BOOLEAN[], {total} "
            f'FROM (SELECT *, {to_sql(card, "duckdb")} AS "the ""raw"" one" FROM cases)'
        ).fetchall()
    scored = evaluate(card, columns)
    bits = range(len(card.rules))
    assert [row[0] for row in rows] == points(card, columns).tolist()
    assert [row[1] for row in rows] == [
        [bool(mask >> bit & 1) for bit in bits] for mask in scored.rules.tolist()
    ]
    assert [row[2] for row in rows] == scored.total_score.tolist()


@pytest.mark.integration
@settings(max_examples=25)
@given(case=cases())
@pytest.mark.slow
def test_postgres_gives_the_engines_scores(postgres: psycopg.Connection[Any], case: Case) -> None:
    assert in_postgres(case, postgres) == expected(case)


@pytest.mark.unit
@settings(max_examples=20)
@given(cases(numbers=anything_finite, max_characteristics=3, rules=False))
def test_any_double_can_be_a_cut_in_duckdb_and_sqlite(case: Case) -> None:
    assert in_duckdb(case) == expected(case)
    assert in_sqlite(case) == expected(case)


@pytest.mark.integration
@settings(max_examples=20)
@given(case=cases(numbers=anything_finite, max_characteristics=3, rules=False))
def test_any_double_can_be_a_cut_in_postgres(postgres: psycopg.Connection[Any], case: Case) -> None:
    assert in_postgres(case, postgres) == expected(case)


def v1_case() -> Case:
    card = load_scorecard("v1")
    rng = np.random.default_rng(3)
    rows = []
    for _ in range(400):
        row: dict[str, Any] = {"total_transaction_volume_6m": float(rng.choice([0, 5e5, 500_000.01, 1e7]))}
        for item in card.characteristics:
            near = float(rng.choice(item.cuts)) + float(rng.choice([0, 0, 0.3, -0.3, 1e-9, -1e-9]))
            row[item.feature] = None if rng.random() < 0.1 else math.nan if rng.random() < 0.1 else near
        rows.append(row)
    return Case(card, rows, {})


@pytest.mark.unit
def test_v1_in_duckdb_and_sqlite() -> None:
    case = v1_case()
    wanted = expected(case)
    assert len({total for _, total in wanted}) > 100
    assert in_duckdb(case) == wanted
    assert in_sqlite(case) == wanted


@pytest.mark.integration
def test_v1_in_postgres(postgres: psycopg.Connection[Any]) -> None:
    case = v1_case()
    assert in_postgres(case, postgres) == expected(case)


AWKWARD = Scorecard(
    "awkward",
    (
        Characteristic(
            feature='q"uo`te\'; -- [x] %s \\', label="l", kind="numeric", cuts=(-0.1, 0.1, 1 / 3), closed="right",
            points=(0, 5, 7, 11), missing=2, reason="r", missing_reason="m",
        ),
        Characteristic(
            feature="select", label="l", kind="categorical", categories=(("it's", '"'), ("\\", "", "%s", "\n", "'\a\\\f\v'")),
            points=(20, 40), other=80, missing=160, reason="r", missing_reason="m",
        ),
    ),
    # Not in order of priority, and each moving the score by an amount of its own. In turn: constants computed as doubles;
    # a division by zero is missing; above 900 in between, where a cap that does not fire must not cut.
    rules=(
        Rule("last", 9, "extra <= 10", "adjust", "t", amount=-520),
        Rule("half", 1, "extra == 1 / 2", "adjust", "t", amount=1),
        Rule("thirds", 1, "extra == 0.1 * 3", "adjust", "t", amount=2),
        Rule("zero", 1, "1 / extra > 5 or extra / extra != 1", "adjust", "t", amount=4),
        Rule("not_zero", 1, "not 1 / extra > 5", "adjust", "t", amount=8),
        Rule("nothing", 1, "extra - extra == 0 or extra * 0 != 0", "adjust", "t", amount=16),
        Rule("mixed", 1, "extra / 3 > 0.1 and not (extra != 1 or 1 / extra < 0.3)", "adjust", "t", amount=32),
        Rule("low", 2, "extra == -3", "cap", "t", amount=333),
        Rule("up", 3, "extra <= 10", "adjust", "t", amount=600),
        Rule("high", 4, "extra > 5", "cap", "t", amount=870),
    ),
    extra_features=("extra",),
)  # fmt: skip


def awkward_case() -> Case:
    numbers = [None, math.nan, math.inf, -math.inf, -0.1, 0.1, 1 / 3, math.nextafter(1 / 3, 1), 0.0, 5e300]
    texts = [None, "it's", '"', "\\", "", "%s", "\n", "IT'S", "'\a\\\f\v'", "\\\\"]
    extras = [None, math.nan, math.inf, -math.inf, 0.0, 0.1 * 3, 1.0, 0.5, -3.0, 10.0]
    first, second = AWKWARD.features
    rows = [
        {first: numbers[(i * 3) % 10], second: texts[i % 10], "extra": extras[(i * 7 + i // 10) % 10]}
        for i in range(100)
    ]
    return Case(AWKWARD, rows, {})


@pytest.mark.unit
def test_awkward_names_values_and_arithmetic_in_duckdb_and_sqlite() -> None:
    case = awkward_case()
    assert in_duckdb(case) == in_sqlite(case) == expected(case)


@pytest.mark.integration
def test_awkward_names_values_and_arithmetic_in_postgres(postgres: psycopg.Connection[Any]) -> None:
    case = awkward_case()
    assert in_postgres(case, postgres) == expected(case)


@pytest.mark.unit
@settings(max_examples=50)
@given(st.floats(allow_nan=False, allow_infinity=False))
@example(42038.41078266974)  # as decimal literals, SQLite 3.40 reads these one unit in the last place off
@example(4.144245188391054e-300)
def test_sqlite_reads_every_cut_back_exactly(value: float) -> None:
    card = Scorecard("c", (_step("x", value),))
    expression = to_sql(card, "sqlite", pretty=False)
    con = sqlite3.connect(":memory:")
    try:
        near = [math.nextafter(value, -math.inf), value, math.nextafter(value, math.inf)]
        got = [
            con.execute(f"SELECT {expression} FROM (SELECT ? AS x)", [each]).fetchone()[0] for each in near
        ]
    finally:
        con.close()
    assert got == [301 if each >= value else 300 for each in near]


def _step(feature: str, cut: float) -> Characteristic:
    return Characteristic(
        feature=feature, label="l", kind="numeric", cuts=(cut,), points=(0, 1), missing=0, reason="r",
        missing_reason="m",
    )  # fmt: skip


@pytest.mark.unit
@pytest.mark.parametrize(
    "dialect", ["snowflake", "databricks", "bigquery", "spark", "trino", "redshift", "mysql", "tsql"]
)
@pytest.mark.parametrize("card", [AWKWARD, load_scorecard("v1")], ids=["awkward", "v1"])
def test_text_for_other_dialects_parses_back(dialect: str, card: Scorecard) -> None:
    for with_rules in (False, True):
        for table in (None, "kycc.features"):
            text = to_sql(card, dialect, table, with_rules=with_rules)
            tree = sqlglot.parse_one(text, read=dialect)
            columns = {column.name for column in tree.find_all(sqlglot.exp.Column)} - {"raw_score", "*"}
            assert columns == set(card.required_features if with_rules else card.features)


@pytest.mark.unit
def test_every_score_counts_once() -> None:
    """The text grows with the card and its rules, not with their product."""
    texts = [
        to_sql(
            Scorecard(
                "r",
                (_step("x", 0.5),),
                rules=tuple(Rule(f"r{i}", i, "x > 1", "cap", "t", amount=500) for i in range(count)),
            ),
            "duckdb",
            with_rules=True,
        )
        for count in (1, 2, 4, 8)
    ]
    sizes = [len(text) for text in texts]
    assert sizes[3] < 2.5 * sizes[2] < 6.25 * sizes[1]
    assert texts[3].count("0.5") == 1


@pytest.mark.unit
def test_a_table_name_is_quoted_and_checked() -> None:
    card = Scorecard("c", (_step("x", 0.5),))
    assert to_sql(card, "postgres", "kycc.features", pretty=False) == (
        'SELECT *, 300 + CASE WHEN CAST("x" AS DOUBLE PRECISION) IS NULL '
        "OR CAST(\"x\" AS DOUBLE PRECISION) = CAST('NaN' AS DOUBLE PRECISION) THEN 0 "
        'WHEN CAST("x" AS DOUBLE PRECISION) < 0.5 THEN 0 ELSE 1 END AS "raw_score" FROM "kycc"."features"'
    )
    assert to_sql(card, "spark", '"my ""own"" table".x', pretty=False).endswith('FROM `my "own" table`.`x`')
    for name in (
        "a b",
        "a; DELETE FROM b",
        "(SELECT 1)",
        "",
        "a--",
        "a.b.c.d",
        ".a",
        '"a',
        '""',
        "f('x')",
        "a\n",
    ):
        with pytest.raises(InputError, match="is not a table name"):
            to_sql(card, "duckdb", name)


@pytest.mark.unit
@pytest.mark.parametrize("dialect", ["klingon", "", "DuckDB", "postgres, normalization_strategy=lowercase"])
def test_an_unknown_dialect_is_refused(dialect: str) -> None:
    """Spellings sqlglot would take are refused too: what the card means depends on knowing the database."""
    with pytest.raises(InputError, match="There is no SQL dialect"):
        to_sql(Scorecard("c", (_step("x", 0.5),)), dialect)
