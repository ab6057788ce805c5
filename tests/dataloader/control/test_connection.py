"""Where the control database is, and what survives when it goes away for a moment."""

from __future__ import annotations

import os
import select
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.conftest import make_settings

from quayside.dataloader.control import connection
from quayside.dataloader.control.client import LakebaseClient
from quayside.dataloader.control.connection import control_settings
from quayside.dataloader.schema import SCHEMA
from quayside.foundation.errors import SchemaError, ServiceUnavailableError, SettingsError
from quayside.foundation.postgres import connect, database_url, migrate, schema_status
from quayside.foundation.settings import Settings


def url_of(**variables: Any) -> str:
    url = control_settings(make_settings(**variables)).database_url
    assert url is not None
    return url.get_secret_value()


@pytest.mark.unit
def test_the_server_is_the_platforms_unless_lakebase_host_is_set() -> None:
    platform = make_settings(QUAYSIDE_DATABASE_URL="postgresql://p@h/d")
    assert control_settings(platform) is platform
    url = url_of(LAKEBASE_HOST="db.example", LAKEBASE_USER="lo:ader", LAKEBASE_PASSWORD="p@ss/word")
    assert url == "postgresql://lo%3Aader:p%40ss%2Fword@db.example:5432/dataloader?sslmode=require"
    assert (
        url_of(LAKEBASE_HOST="::1", LAKEBASE_USER="u", LAKEBASE_PORT="6000")
        == "postgresql://u@[::1]:6000/dataloader"
    )
    local = url_of(LAKEBASE_HOST="127.0.0.1", LAKEBASE_USER="u", LAKEBASE_DATABASE="dataloader_test")
    assert local == "postgresql://u@127.0.0.1:5432/dataloader_test"
    with pytest.raises(SettingsError, match="LAKEBASE_USER is not"):
        control_settings(make_settings(LAKEBASE_HOST="db.example"))


@pytest.fixture
def lakebase(session_settings: Settings, control_database: Settings) -> Settings:
    """Settings with a control database on another server than the platform's, as far as they can tell."""
    server = urlsplit(database_url(control_database))
    host = (parse_qs(server.query).get("host") or [server.hostname])[0]
    with connect(session_settings, autocommit=True) as con:
        con.execute("DROP DATABASE IF EXISTS lakebase_of_tests")
        con.execute("CREATE DATABASE lakebase_of_tests")
    return make_settings(
        QUAYSIDE_HOME=str(control_database.home),
        QUAYSIDE_DATABASE_URL="postgresql://nobody@127.0.0.1:1/nothing",
        LAKEBASE_HOST=host,
        LAKEBASE_PORT=str(server.port or 5432),
        LAKEBASE_USER=server.username or "postgres",
        LAKEBASE_DATABASE="lakebase_of_tests",
    )


@pytest.mark.integration
def test_a_control_database_of_its_own(lakebase: Settings, session_settings: Settings) -> None:
    with LakebaseClient(lakebase) as client:
        with pytest.raises(SchemaError, match="run `quayside db migrate`"):
            client.get_control_tables()
        migrate(lakebase, SCHEMA)
        assert schema_status(lakebase, SCHEMA).state == "current"
        client.save_source({"db_config_key": "shop", "db_type": "csv"})
        client.save_table({"db_config_key": "shop", "source_table_name": "t", "destination_schema_name": "s"})
        assert len(client.claim(10)) == 1
        (timeout,) = client.ask("SHOW statement_timeout", {})
        assert timeout["statement_timeout"] == "30s"
    with connect(session_settings, autocommit=True) as con:
        con.execute("DROP DATABASE lakebase_of_tests WITH (FORCE)")
    with LakebaseClient(lakebase, patience_seconds=0) as client, pytest.raises(SettingsError) as refused:
        client.get_control_tables()
    assert "Correct the LAKEBASE variables" in str(refused.value)
    with pytest.raises(SettingsError, match="Correct the LAKEBASE variables"):
        migrate(lakebase, SCHEMA)


@pytest.mark.integration
def test_a_result_survives_a_connection_that_is_lost_on_the_way(control: Any) -> None:
    # case 32
    control.source()
    config = control.table()
    attempt = control.begun(config)
    tries: list[int] = []
    losses = [
        "SELECT pg_terminate_backend(pg_backend_pid())",
        "SET LOCAL idle_in_transaction_session_timeout = 1",
    ]

    def write(con: Any) -> None:
        from quayside.dataloader.control import attempts

        attempts.succeed(con, config, 1, control.loaded())
        tries.append(1)
        if losses:
            con.execute(losses.pop())
            select.select([con], [], [], 10)  # until the server has said good-bye

    attempt._connections.retrying(write)
    assert len(tries) == 3
    assert [h["load_status"] for h in control.history(config)] == ["Succeeded"]


@pytest.mark.integration
def test_idle_connections_that_died_are_replaced(control: Any) -> None:
    # case 32
    control.source()
    assert control.client.get_control_tables() == []
    with connect(control.settings, autocommit=True) as con:
        con.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid()"
        )
    assert control.client.get_control_tables() == []
    config = control.table()
    assert control.client.claim(1)[0].config_id == config


@pytest.mark.integration
def test_a_statement_that_takes_too_long_is_tried_again_and_ends_in_a_sentence(
    control: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # case 32 - the 30 s statement timeout in the middle of a result write
    monkeypatch.setattr(connection, "_OPTIONS", connection._OPTIONS.replace("=30s", "=200ms"))
    control.source()
    config = control.table()
    control.begun(config)
    hasty = LakebaseClient(control.settings, attempt=(config, 1), patience_seconds=0)
    with control.client.changes() as con:
        con.execute("SELECT 1 FROM control.table_control FOR UPDATE")
        with pytest.raises(ServiceUnavailableError, match="statement timeout"):
            hasty.succeed(control.loaded())
    hasty.succeed(control.loaded())
    hasty.close()
    assert control.state(config) == "no schedule"


@pytest.mark.integration
def test_a_control_database_that_is_away_is_waited_for(control: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # case 32 - it restarts, and what asks meanwhile is refused, and tried again
    control.source()
    config = control.table()
    attempt = control.begun(config)
    opened = connection.Connections._open
    refusals = [ServiceUnavailableError("PostgreSQL takes no connection: it starts up.")] * 3

    def refusing(self: Any) -> Any:
        if refusals:
            raise refusals.pop()
        return opened(self)

    attempt._connections.close()
    monkeypatch.setattr(connection.Connections, "_open", refusing)
    attempt.succeed(control.loaded())
    assert refusals == []
    assert control.state(config) == "no schedule"


@pytest.mark.integration
def test_connections_do_not_cross_a_fork(control: Any) -> None:
    assert control.client.get_control_tables() == []
    control.client._connections._pid = os.getpid() + 1  # as a child sees it
    kept = [con for _, con in control.client._connections._idle]
    assert control.client.get_control_tables() == []
    assert not any(con.closed for con in kept)
    for con in kept:
        con.close()
