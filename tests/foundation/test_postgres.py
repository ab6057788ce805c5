"""Connections, engine and locks on a server that runs."""

from __future__ import annotations

import pytest

from quayside.foundation.errors import ConflictError
from quayside.foundation.postgres import advisory_lock, connect, engine
from quayside.foundation.settings import Settings

pytestmark = pytest.mark.integration


def test_each_test_has_a_database_of_its_own(settings: Settings) -> None:
    with connect(settings) as connection:
        row = connection.execute("SELECT current_database(), current_setting('TimeZone')").fetchone()
    assert row is not None
    assert row[0].startswith("test_")
    assert row[1] == "UTC"


def test_engine_is_one_per_process(settings: Settings) -> None:
    assert engine(settings) is engine(settings)
    with engine(settings).connect() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1


def test_a_lock_is_held_once(settings: Settings) -> None:
    with advisory_lock(settings, "batch"):
        with pytest.raises(ConflictError, match="'batch'"), advisory_lock(settings, "batch", wait_seconds=0):
            pass
        with (
            pytest.raises(ConflictError, match=r"0\.1 s"),
            advisory_lock(settings, "batch", wait_seconds=0.1),
        ):
            pass
        with advisory_lock(settings, "another", wait_seconds=0):
            pass
    with advisory_lock(settings, "batch", wait_seconds=0):
        pass
