"""Random histories of a source between loads, each strategy against a model of a few lines. Seeds are fixed."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Any

import pytest
from tests.dataloader.tables import NOW, Table

pytestmark = [pytest.mark.integration, pytest.mark.slow]

LOADS = 5
START = NOW.replace(tzinfo=None)


class Source:
    """Rows id → (v, upd) that change as a database's do; late commits reach back at most an hour."""

    def __init__(self, table: Table, seed: int, *, updates: bool) -> None:
        self.table = table
        self.rng = random.Random(seed)
        self.updates = updates
        self.now = START
        self.rows: dict[int, tuple[int, datetime]] = {}
        self.ids = iter(range(10_000))

    def live(self, *, late: timedelta) -> None:
        """A while of life; late rows are older by up to `late`."""
        for _ in range(self.rng.randrange(6)):
            self.now += timedelta(minutes=self.rng.randrange(3))  # often the same moment
            kind = self.rng.choice(["insert", "insert", "late", "update", "delete"])
            if kind == "insert":
                self.put(next(self.ids), self.now)
            elif kind == "late":
                self.put(next(self.ids), self.now - late * self.rng.random())
            elif self.updates and self.rows:
                id_ = self.rng.choice(sorted(self.rows))
                if kind == "update":
                    self.put(id_, self.now)
                else:
                    del self.rows[id_]
                    self.table.execute("DELETE FROM src WHERE id = ?", id_)
        self.table.source.now = self.now.replace(tzinfo=NOW.tzinfo)

    def put(self, id_: int, upd: datetime) -> None:
        self.rows[id_] = (self.rng.randrange(3), upd)
        self.table.execute("DELETE FROM src WHERE id = ?", id_)
        self.table.execute("INSERT INTO src VALUES (?, ?, ?)", id_, *self.rows[id_])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "strategy", ["full", "incremental", "append_only", "rolling", "check_and_load", "scd2"]
)
def test_histories(shared_settings: Any, shared_con: Any, strategy: str, seed: int):
    # cases 16, 19, 20, 22
    t = Table.new(
        shared_settings, shared_con, f"history_{strategy}_{seed}", "id BIGINT, v BIGINT, upd TIMESTAMP",
        load_strategy=strategy, rolling_column="upd", rolling_days=1, is_delete=True, delete_mode="hard",
        incremental_lookback_hours=1,
        **({"incremental_column": "upd", "incremental_type": "timestamp"} if strategy != "full" else {}),
    )  # fmt: skip
    t.settings = shared_settings.model_copy(
        update={"dataloader_delete_check_hours": 0, "dataloader_delete_minimum_share": 0.0}
    )
    append = strategy == "append_only"
    source = Source(t, seed, updates=not append)
    versions: dict[int, list[tuple[int, datetime]]] = {}
    for _ in range(LOADS):
        source.live(late=timedelta(0) if append else timedelta(hours=1))
        t.load()
        expected = sorted((id_, *row) for id_, row in source.rows.items())
        if strategy != "scd2":
            # A source without a single row is not believed to have deleted all of them.
            assert t.rows() == (expected if expected or strategy in ("full", "check_and_load") else t.rows())
            continue
        for id_, row in source.rows.items():
            if versions.setdefault(id_, [])[-1:] != [row]:
                versions[id_].append(row)
        if expected:
            assert t.rows("id, v, upd", "is_current") == expected
        overlapping = "SELECT count(*) FROM {0} a JOIN {0} b USING (id) WHERE a.valid_from < b.valid_from AND a.valid_to > b.valid_from"
        assert t.con.execute(overlapping.format(t.stored)).fetchone() == (0,)
        assert {id_: len(rows) for id_, rows in versions.items()} == dict(
            t.con.execute(f"SELECT id, count(*) FROM {t.stored} GROUP BY 1").fetchall()
        )
