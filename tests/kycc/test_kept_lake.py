"""A lake that is opened once: its connections are as apart from each other as any."""

from __future__ import annotations

import duckdb
import pytest

from quayside.foundation.settings import Settings
from quayside.kycc.kept_lake import KeptLake
from quayside.kycc.tables import OUTCOMES

pytestmark = pytest.mark.integration


def test_connections_of_a_kept_lake_are_apart_and_end_with_it(settings: Settings) -> None:
    lake = KeptLake(settings)
    lake.ensure_tables([OUTCOMES])
    count = "SELECT count(*) FROM kycc.outcomes"
    with lake.kept_open(), lake.kept_open():
        first, second = lake.connect(), lake.connect()
        assert first.execute("SELECT current_database(), current_setting('TimeZone')").fetchone() == (
            "lake",
            "UTC",
        )
        first.execute("CREATE TEMP TABLE mine AS SELECT 1")
        with pytest.raises(duckdb.CatalogException):
            second.execute("FROM mine")
        first.execute("BEGIN")
        first.execute("INSERT INTO kycc.outcomes (batch_id, party_id) VALUES ('B', 'P')")
        assert second.execute(count).fetchone() == (0,), "what is not committed is not seen"
        first.execute("COMMIT")
        assert second.execute(count).fetchone() == (1,)
        first.close()
        assert second.execute(count).fetchone() == (1,), "closing one leaves the others open"
        lake.transaction(lambda con: con.execute("DELETE FROM kycc.outcomes"))
        assert second.execute(count).fetchone() == (0,)
        second.close()
        kept = lake._opened
        assert kept is not None
    assert lake._opened is None
    with pytest.raises(duckdb.ConnectionException):
        kept.execute("SELECT 1")
    with lake.connect() as again:
        assert again.execute(count).fetchone() == (0,)
