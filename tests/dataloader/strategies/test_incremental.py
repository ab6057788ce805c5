from __future__ import annotations

import pytest
from tests.dataloader.tables import Table

pytestmark = pytest.mark.integration


def test_incremental(shared_settings, shared_con):
    t = Table.new(
        shared_settings,
        shared_con,
        "inc",
        "SELECT range AS id, 'x' || range AS s, TIMESTAMP '2026-05-01' + INTERVAL 1 HOUR * range AS upd FROM range(100)",
        load_strategy="incremental",
        incremental_column="upd",
        incremental_type="timestamp",
    )
    r = t.load()
    print(r)
    assert t.rows() == t.at_source()
    r = t.load()
    print(r)
    t.execute("INSERT INTO src VALUES (1000, 'new', TIMESTAMP '2026-05-20')")
    t.execute("UPDATE src SET s='changed', upd = TIMESTAMP '2026-05-21' WHERE id = 3")
    r = t.load()
    print(r)
    assert t.rows() == t.at_source()
    r = t.load(load_strategy="full")
    print(r)
    r = t.load()
    print(r)
    assert t.rows() == t.at_source()
