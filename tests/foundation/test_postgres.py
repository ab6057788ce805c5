"""Connections, engine and locks on a server that runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from quayside.foundation.errors import ConflictError, ServiceUnavailableError, SettingsError
from quayside.foundation.postgres import EmbeddedPostgres, advisory_lock, connect, database_url, engine
from quayside.foundation.settings import Settings


def settings_of(home: Path, url: str) -> Settings:
    variables: dict[str, Any] = {"QUAYSIDE_HOME": str(home), "QUAYSIDE_DATABASE_URL": url}
    return Settings(_env_file=None, **variables)  # pyright: ignore[reportCallIssue]


@pytest.mark.integration
def test_each_test_has_a_database_of_its_own(settings: Settings) -> None:
    with connect(settings) as connection:
        row = connection.execute("SELECT current_database(), current_setting('TimeZone')").fetchone()
    assert row is not None
    assert row[0].startswith("test_")
    assert row[1] == "UTC"


@pytest.mark.integration
def test_the_embedded_server_starts_by_itself_when_it_is_needed(
    session_settings: Settings, tmp_path: Path
) -> None:
    # The session's server stands in for one that exists; a new one is made in test_postgres_embedded.
    url = database_url(session_settings)
    assert url == EmbeddedPostgres(session_settings.home).url
    with connect(session_settings) as connection:
        assert connection.info.dbname == connection.info.user == "quayside"
        assert connection.info.password == ""


@pytest.mark.integration
def test_engine_is_one_per_process_and_not_shared_over_a_fork(settings: Settings) -> None:
    assert engine(settings) is engine(settings)
    backend = "SELECT pg_backend_pid()"
    with engine(settings).connect() as connection:
        parent = connection.exec_driver_sql(backend).scalar_one()
    child = os.fork()
    if child == 0:
        with engine(settings).connect() as connection:
            os._exit(connection.exec_driver_sql(backend).scalar_one() != parent)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    with engine(settings).connect() as connection:
        assert connection.exec_driver_sql(backend).scalar_one() == parent, (
            "the child closed the parent's connection"
        )


@pytest.mark.integration
def test_engine_survives_a_cut_connection(settings: Settings) -> None:
    with engine(settings).connect() as connection:
        backend = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
    with connect(settings) as other:
        other.execute("SELECT pg_terminate_backend(%s)", [backend])
    with engine(settings).connect() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1


@pytest.mark.integration
def test_a_lock_is_held_once(settings: Settings) -> None:
    with advisory_lock(settings, "batch"):
        with pytest.raises(ConflictError, match=r"'batch'; waited 0 s"), advisory_lock(settings, "batch", 0):
            pass
        with pytest.raises(ConflictError, match=r"waited 0\.1 s"), advisory_lock(settings, "batch", 0.1):
            pass
        with advisory_lock(settings, "another", 0):
            pass
    with advisory_lock(settings, "batch", 0):
        pass


@pytest.mark.integration
def test_a_lock_is_waited_for(settings: Settings) -> None:
    order: list[str] = []

    def second() -> None:
        with advisory_lock(settings, "batch"):
            order.append("second")

    with advisory_lock(settings, "batch"):
        waiting = threading.Thread(target=second)
        waiting.start()
        time.sleep(0.2)
        order.append("first")
    waiting.join(120)
    assert order == ["first", "second"]


@pytest.mark.integration
def test_a_lock_ends_with_its_process(settings: Settings, command_environment: dict[str, str]) -> None:
    code = (
        "import time; from quayside.foundation.settings import load_settings; "
        "from quayside.foundation.postgres import advisory_lock\n"
        "with advisory_lock(load_settings(), 'batch'): print('held', flush=True); time.sleep(1200)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], env=command_environment, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ConflictError), advisory_lock(settings, "batch", 0):
            pass
        holder.send_signal(signal.SIGKILL)
    with advisory_lock(settings, "batch", 120):
        pass


SECRET = "hunter-2"


@pytest.mark.unit
@pytest.mark.parametrize(
    ("url", "kind", "sentence"),
    [
        (
            f"postgresql://me:{SECRET}@127.0.0.1:1/x",
            ServiceUnavailableError,
            "takes no connection: .*Connection refused",
        ),
        (
            f"postgresql://me:{SECRET}@no-such-host.invalid/x",
            ServiceUnavailableError,
            "takes no connection: .*no-such-host",
        ),
        (f"postgresql://me:a@{SECRET}@127.0.0.1/x", SettingsError, "is malformed: it must look like"),
        (f"postgresql://me:a:{SECRET}%@127.0.0.1/x", SettingsError, "is malformed: it must look like"),
        (f"postgresql://me@127.0.0.1/x?passwort={SECRET}", SettingsError, "is malformed: it must look like"),
    ],
)
def test_a_connection_that_fails_is_one_sentence_without_the_password(
    tmp_path: Path, url: str, kind: type[Exception], sentence: str
) -> None:
    with pytest.raises(kind, match=sentence) as caught:
        connect(settings_of(tmp_path, url))
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.integration
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"/test_": "/no_such_"}, r'refuses the connection: .*database "no_such_\w+" does not exist'),
        ({"quayside@": f"stranger:{SECRET}@"}, 'refuses the connection: .*role "stranger" does not exist'),
    ],
)
def test_what_the_server_refuses_is_a_matter_of_settings(
    settings: Settings, change: dict[str, Any], sentence: str
) -> None:
    assert settings.database_url is not None
    url = settings.database_url.get_secret_value()
    for old, new in change.items():
        url = url.replace(old, new, 1)
    with pytest.raises(SettingsError, match=sentence) as caught:
        connect(settings_of(settings.home, url))
    assert SECRET not in str(caught.value)
    with pytest.raises(SettingsError, match=sentence):
        engine(settings_of(settings.home, url)).connect()
