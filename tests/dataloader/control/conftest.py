"""A control database of the test's own, and short ways to fill and read it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from tests.conftest import private_settings

from quayside.dataloader.control.client import LakebaseClient
from quayside.dataloader.request import LoadRequest
from quayside.dataloader.result import LoadResult
from quayside.foundation.postgres import connect
from quayside.foundation.settings import Settings


class Control:
    """The control database of one test: ``client``, and rows by a word each."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.client = LakebaseClient(settings, patience_seconds=5)

    def source(self, key: str = "shop", **values: Any) -> str:
        self.client.save_source(
            {"db_config_key": key, "db_type": "postgresql", "db_config_value": {}} | values
        )
        return key

    def table(self, name: str = "orders", source: str | None = "shop", **values: Any) -> int:
        row = {
            "db_config_key": source,
            "source_schema_name": "public",
            "source_table_name": name,
            "destination_schema_name": "trade",
            "destination_table_name": name,
        }
        return self.client.save_table(row | values)[0]

    def sql(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        with self.client.changes("") as con:
            done = con.execute(statement, values or None)
            return done.fetchall() if done.description else []

    def row(self, config_id: int) -> dict[str, Any]:
        return self.client.get_table_details(config_id)

    def state(self, config_id: int) -> str:
        return self.row(config_id)["state"]

    def history(self, config_id: int) -> list[dict[str, Any]]:
        return self.sql(
            "SELECT * FROM control.historical_metadata WHERE config_id = %s ORDER BY attempt", config_id
        )

    def claimed(self, config_id: int) -> LakebaseClient:
        """The client of a fresh attempt at this row, Queued."""
        found = [r for r in self.client.claim(100) if r.config_id == config_id]
        assert len(found) == 1, self.row(config_id)["reason"]
        return self.of(found[0])

    def begun(self, config_id: int, run: str = "http://localhost:3000/runs/r1") -> LakebaseClient:
        """The client of a fresh attempt at this row, In Progress."""
        attempt = self.claimed(config_id)
        attempt.begin(run)
        return attempt

    def of(self, request: LoadRequest) -> LakebaseClient:
        return self.client.for_attempt(request.config_id, request.attempt)

    def wait_until_blocked(self, thread: threading.Thread) -> None:
        """Until some statement waits for a lock; a failure when the thread that should ends first."""
        with connect(self.settings, autocommit=True) as con:
            waiting = (
                "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            while con.execute(waiting).fetchone() is None:
                assert thread.is_alive(), "it did not wait"
                con.execute("SELECT pg_sleep(0.01)")

    @staticmethod
    def loaded(rows: int = 3, **values: Any) -> LoadResult:
        """What a load of so many new rows tells."""
        found = {"strategy": "full", "rows_read": rows, "rows_inserted": rows, "rows_total": rows} | values
        return LoadResult("loaded", **found)

    def age(self, config_id: int, minutes: float) -> None:
        """As if everything about the row had happened that long ago."""
        self.sql(
            "UPDATE control.table_control c SET last_status_date_time = last_status_date_time - a.by, "
            "last_load_date_time = last_load_date_time - a.by, lease_expires_at = lease_expires_at - a.by "
            "FROM (SELECT %s * interval '1 minute' AS by) a WHERE config_id = %s",
            minutes,
            config_id,
        )


@pytest.fixture(scope="session")
def control_database(
    session_settings: Settings, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    """One database for all tests of this room; `control` empties it."""
    yield from private_settings(session_settings, tmp_path_factory.mktemp("control"), template_database)


@pytest.fixture
def control(control_database: Settings) -> Iterator[Control]:
    with connect(control_database) as con:
        con.execute("SET session_replication_role = replica")  # the audit refuses to be deleted
        for table in (
            "table_control",
            "table_control_dbconfig",
            "historical_metadata",
            "table_control_history",
        ):
            con.execute(f"DELETE FROM control.{table}")
    made = Control(control_database)
    yield made
    made.client.close()
