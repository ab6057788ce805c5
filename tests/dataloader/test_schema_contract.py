"""Contracts of a table's columns, and the types that hold two others."""

from __future__ import annotations

from typing import Any

import pytest
from tests.dataloader.tables import Table

from quayside.dataloader.errors import SchemaContractError
from quayside.dataloader.schema_contract import SchemaPlan, plan, widened
from quayside.dataloader.sources.source import Column

STORED = {"id": "BIGINT", "Name": "VARCHAR", "amount": "DECIMAL(10,2)"}


def planned(source: dict[str, str], contract: Any = "evolve", **options: Any) -> SchemaPlan:
    columns = [Column(name, type_, type_) for name, type_ in source.items()]
    options = {"own": {}, "replaced": False, **options}
    return plan("t", columns, STORED, contract, lambda type_: type_, **options)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("old", "new", "both"),
    [
        ("INTEGER", "BIGINT", "BIGINT"),
        ("BIGINT", "SMALLINT", "BIGINT"),
        ("UINTEGER", "INTEGER", "BIGINT"),
        ("UBIGINT", "BIGINT", "HUGEINT"),
        ("UTINYINT", "UINTEGER", "UINTEGER"),
        ("DECIMAL(10,2)", "DECIMAL(8,4)", "DECIMAL(12,4)"),
        ("INTEGER", "DECIMAL(5,2)", "DECIMAL(12,2)"),
        ("DECIMAL(38,0)", "DECIMAL(10,5)", None),
        ("DATE", "TIMESTAMP", "TIMESTAMP"),
        ("FLOAT", "DOUBLE", "DOUBLE"),
        ("INTEGER", "DOUBLE", "DOUBLE"),
        ("BIGINT", "DOUBLE", None),
        ("DECIMAL(5,2)", "DOUBLE", None),
        ("TIMESTAMP", "TIMESTAMP WITH TIME ZONE", None),
        ("VARCHAR", "INTEGER", None),
        ("VARCHAR", "BLOB", None),
    ],
)
def test_the_type_that_holds_both(old: str, new: str, both: str | None):
    assert widened(old, new) == both
    assert widened(new, old) == both


@pytest.mark.unit
def test_evolve_adds_widens_and_keeps_what_is_gone():
    # case 27 (a rename is a column that is gone and one that is new)
    made = planned({"id": "BIGINT", "title": "VARCHAR", "amount": "DECIMAL(12,2)"})
    assert made.columns == {"id": "BIGINT", "Name": "VARCHAR", "amount": "DECIMAL(12,2)", "title": "VARCHAR"}
    assert made.changes == [
        'added column "title" (VARCHAR)',
        'widened column "amount" from DECIMAL(10,2) to DECIMAL(12,2)',
        'column "Name" is gone at the source: null in new rows',
    ]


@pytest.mark.unit
def test_names_are_compared_as_the_lake_does():
    # case 27
    made = planned({"ID": "INTEGER", "name": "VARCHAR", "amount": "DECIMAL(10,2)"})
    assert (made.changes, made.expressions["id"], made.expressions["Name"]) == (
        [],
        'CAST("ID" AS BIGINT)',
        '"name"',
    )
    with pytest.raises(SchemaContractError, match='Columns "a" and "A" of t have the same name but for case'):
        planned({"a": "INTEGER", "A": "INTEGER"})
    with pytest.raises(SchemaContractError, match=r'"is_delete" \(which DataLoader adds\)'):
        planned({"Is_Delete": "BOOLEAN"}, own={"is_delete": "BOOLEAN"})


@pytest.mark.unit
def test_freeze_refuses_and_a_forced_full_load_is_the_way_out():
    changed = {**STORED, "note": "VARCHAR"}
    with pytest.raises(SchemaContractError, match='schema_contract is freeze: added column "note"'):
        planned(changed, "freeze")
    with pytest.raises(SchemaContractError, match='dropped column "amount"'):
        planned({"id": "BIGINT", "Name": "VARCHAR"}, "freeze", replaced=True)
    assert planned(STORED, "freeze").changes == []
    assert list(planned(changed, "freeze", replaced=True, forced=True).columns) == list(changed)


@pytest.mark.unit
def test_discard_columns_leaves_new_ones_out_and_takes_no_other_types():
    made = planned({**STORED, "note": "VARCHAR"}, "discard_columns")
    assert (made.columns, made.changes) == (STORED, ['left out new column "note" (VARCHAR)'])
    assert planned({**STORED, "id": "INTEGER"}, "discard_columns").expressions["id"] == 'CAST("id" AS BIGINT)'
    with pytest.raises(SchemaContractError, match="forbids"):
        planned({**STORED, "amount": "DECIMAL(20,2)"}, "discard_columns")


@pytest.mark.unit
def test_a_type_that_cannot_hold_both_is_refused_with_what_to_do():
    with pytest.raises(SchemaContractError, match=r"was VARCHAR and is BLOB .* set load_full"):
        planned({**STORED, "Name": "BLOB"})
    with pytest.raises(SchemaContractError, match=r"is BLOB .*: cast the column"):
        planned({**STORED, "Name": "BLOB"}, replaceable=False)
    assert planned({**STORED, "Name": "BLOB"}, replaced=True).columns["Name"] == "BLOB"


@pytest.mark.integration
@pytest.mark.parametrize(
    ("old", "new", "value", "stored"),
    [
        ("INTEGER", "BIGINT", 2**40, "BIGINT"),
        ("UBIGINT", "BIGINT", 7, "HUGEINT"),
        ("UINTEGER", "INTEGER", 7, "BIGINT"),
        ("INTEGER", "DECIMAL(5,2)", "3.25", "DECIMAL(12,2)"),
        ("INTEGER", "DOUBLE", 0.5, "DOUBLE"),
        ("DATE", "TIMESTAMP", "2026-01-01 01:02:03", "TIMESTAMP"),
    ],
)
def test_the_lake_widens_in_the_commit_of_the_rows(
    shared_settings, shared_con, request, old, new, value, stored
):
    # case 27
    t = Table.new(
        shared_settings, shared_con, request.node.name, f"id BIGINT, n INTEGER, x {old}",
        load_strategy="incremental", incremental_column="n", incremental_type="integer",
    )  # fmt: skip
    kept = {"DATE": "2025-12-31"}.get(old, 1)
    t.execute("INSERT INTO src VALUES (1, 1, ?)", kept)
    t.load()
    t.execute(f"ALTER TABLE src ALTER x TYPE {new}")
    t.execute("ALTER TABLE src ADD COLUMN nothing DOUBLE")
    t.execute("INSERT INTO src VALUES (2, 2, ?, NULL)", value)
    result = t.load()
    assert (result.columns["x"], result.columns["nothing"]) == (stored, "DOUBLE")
    assert len(result.schema_changes) == 2
    assert (
        t.rows("x::VARCHAR")
        == t.con.execute(f"SELECT x::{stored}::VARCHAR FROM {t.source.of} ORDER BY 1").fetchall()
    )
    t.execute("ALTER TABLE src DROP COLUMN nothing")
    t.execute("INSERT INTO src VALUES (3, 3, NULL)")
    assert t.load().schema_changes == ['column "nothing" is gone at the source: null in new rows']
