"""Batches, outcomes and labels in a DuckDB in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import pytest
from tests.kycc.features.batches import create

from quayside.kycc import features, tables
from quayside.kycc.labels import LabelResult, make_labels
from quayside.kycc.labels.window import Window
from quayside.kycc.scorecard import Scorecard, load_scorecard

MOMENT = datetime(2026, 1, 31, 12, tzinfo=UTC)
DAY = timedelta(days=1)
PARTIES = ("P1", "P2", "P3")


@dataclass
class World:
    """The tables that labels are made of, and how a test fills them."""

    con: duckdb.DuckDBPyConnection
    card: Scorecard = field(default_factory=lambda: load_scorecard("v1"))

    def batch(self, batch_id: str = "B", moment: datetime = MOMENT, parties: Sequence[str] = PARTIES) -> None:
        self.con.execute(
            "INSERT INTO kycc.batches (batch_id, as_of, loaded_at) VALUES (?, ?, now())", [batch_id, moment]
        )
        for party in parties:
            self.con.execute(
                "INSERT INTO kycc.parties (batch_id, party_id, kyc_verified, party_type) VALUES (?, ?, 1, 'supplier')",
                [batch_id, party],
            )

    def file(self, through: datetime, covers: str = "batch", batch_id: str = "B") -> None:
        self.con.execute(
            "INSERT INTO kycc.outcome_files (batch_id, content_sha256, observed_through, covers) VALUES (?, ?, ?, ?)",
            [batch_id, str(through), through, covers],
        )

    def event(self, party: str, at: datetime, what: str = "write_off", batch_id: str = "B") -> None:
        self.con.execute(
            "INSERT INTO kycc.outcomes (batch_id, party_id, event, event_date) VALUES (?, ?, ?, ?)",
            [batch_id, party, what, at],
        )

    def verdict(self, party: str, will_default: int | None, through: datetime, batch_id: str = "B") -> None:
        self.con.execute(
            "INSERT INTO kycc.outcomes (batch_id, party_id, will_default, observed_through) VALUES (?, ?, ?, ?)",
            [batch_id, party, will_default, through],
        )

    def transaction(self, batch_id: str, party: str, txn_type: str, ts: datetime, **columns: Any) -> None:
        row = {"batch_id": batch_id, "party_id": party, "txn_type": txn_type, "ts": ts, **columns}
        self.con.execute(
            f"INSERT INTO kycc.transactions ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})",
            list(row.values()),
        )

    def make(
        self, days: int = 180, as_of: datetime = MOMENT, rate: float = 0.15, batch_id: str = "B"
    ) -> LabelResult:
        return make_labels(self.con, Window(batch_id, as_of, days), rate, self.card)

    def extract(self, batch_id: str = "B", as_of: datetime = MOMENT) -> None:
        for extract in (
            features.extract_kyc,
            features.extract_transactions,
            features.extract_network,
            features.extract_features,
        ):
            extract(self.con, batch_id, as_of)

    def labels(
        self, source: str = "observed", days: int = 180, as_of: datetime = MOMENT
    ) -> dict[str, tuple[int, str, bool]]:
        """party → (label, reason, window_over)."""
        rows = self.con.execute(
            "SELECT party_id, label, reason, window_over FROM kycc.labels WHERE batch_id = 'B' AND label_source = ? "
            "AND observation_window_days = ? AND as_of = ?",
            [source, days, as_of],
        ).fetchall()
        return {party: tuple(rest) for party, *rest in rows}

    def clear(self) -> None:
        for table in (*tables.ALL, *features.TABLES):
            self.con.execute(f"DELETE FROM {table.qualified}")


@pytest.fixture(scope="module")
def database() -> Iterator[World]:
    with duckdb.connect(config={"threads": 2}) as con:
        con.execute("SET TimeZone = 'UTC'")
        create(con, (*tables.ALL, *features.TABLES))
        yield World(con)


@pytest.fixture
def world(database: World) -> World:
    """An empty world, then batch B with three parties."""
    database.clear()
    database.batch()
    return database
