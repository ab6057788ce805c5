"""Who did what: appended with the change, never altered."""

from __future__ import annotations

import getpass
from contextlib import suppress
from datetime import date
from functools import partial

import psycopg
import pytest

from quayside.foundation import audit
from quayside.foundation.postgres import connect, engine
from quayside.foundation.settings import Settings

pytestmark = pytest.mark.integration

COLUMNS = "actor, action, subject_type, subject, details"


def rows(settings: Settings) -> list[tuple[object, ...]]:
    with connect(settings) as connection:
        return connection.execute(f"SELECT {COLUMNS} FROM ops.audit ORDER BY id".encode()).fetchall()


def test_a_record_says_who_did_what_to_what(settings: Settings):
    with connect(settings) as connection:
        audit.record(connection, "user:ada", "activate", "scorecard", "v2", {"from": date(2026, 1, 2)})
    assert rows(settings) == [("user:ada", "activate", "scorecard", "v2", {"from": "2026-01-02"})]


@pytest.mark.parametrize("by", ["psycopg", "sqlalchemy"])
def test_a_change_that_is_rolled_back_leaves_no_record(settings: Settings, by: str):
    transaction = partial(connect, settings) if by == "psycopg" else engine(settings).begin
    with suppress(ZeroDivisionError), transaction() as connection:
        audit.record(connection, "user:ada", "activate", "scorecard", "v2")
        _ = 1 / 0
    assert rows(settings) == []
    with transaction() as connection:
        audit.record(connection, "user:ada", "retire", "scorecard", "v2")
    assert rows(settings) == [("user:ada", "retire", "scorecard", "v2", {})]


@pytest.mark.parametrize(
    "statement", ["UPDATE ops.audit SET actor = 'x'", "DELETE FROM ops.audit", "TRUNCATE ops.audit"]
)
def test_records_cannot_be_changed(settings: Settings, statement: str):
    with connect(settings) as connection:
        audit.record(connection, "user:ada", "activate", "scorecard", "v2")
    with pytest.raises(psycopg.errors.InsufficientPrivilege), connect(settings) as connection:
        connection.execute(statement.encode())


def test_the_actor_is_the_user_unless_somebody_acts_for_another():
    assert audit.actor() == f"user:{getpass.getuser()}"
    with audit.acting_as("dagster:run:1"):
        assert audit.actor() == "dagster:run:1"
    assert audit.actor() == f"user:{getpass.getuser()}"
