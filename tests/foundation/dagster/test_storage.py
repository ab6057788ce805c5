"""Dagster's state in the platform's PostgreSQL: found by a plain command, pooled, safe over a fork, no secret outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.instance.ref import InstanceRef
from dagster_shared.serdes import serialize_value
from sqlalchemy import event

from quayside.foundation.dagster import storage
from quayside.foundation.errors import ServiceUnavailableError, SettingsError
from quayside.foundation.postgres import connect
from quayside.foundation.settings import Settings, load_settings, project_root

pytestmark = pytest.mark.integration

JOB = """
import dagster as dg

@dg.op
def one(context):
    print("printed")
    return 1

@dg.job(executor_def=dg.in_process_executor)
def tiny():
    one()
"""


@pytest.fixture
def environment(command_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """This process and its children work on `settings`."""
    for variable in ("QUAYSIDE_HOME", "QUAYSIDE_DATABASE_URL"):
        monkeypatch.setenv(variable, command_environment[variable])
    return command_environment


@pytest.fixture
def reference(environment: dict[str, str], tmp_path: Path) -> InstanceRef:
    return InstanceRef.from_dir(str(tmp_path), config_dir=str(project_root()))


@pytest.fixture
def instance(reference: InstanceRef) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_ref(reference) as found:
        yield found


def statuses(settings: Settings) -> list[str]:
    with connect(settings) as connection:
        return [
            row[0] for row in connection.execute("SELECT status FROM dagster.runs ORDER BY id").fetchall()
        ]


@pytest.mark.slow
def test_a_plain_command_in_the_project_keeps_its_run(
    settings: Settings, environment: dict[str, str], tmp_path: Path
):
    (tmp_path / "tiny.py").write_text(JOB)
    command = [
        sys.executable,
        "-m",
        "dagster",
        "job",
        "execute",
        "-f",
        str(tmp_path / "tiny.py"),
        "-j",
        "tiny",
    ]
    with_home = environment | {"DAGSTER_HOME": str(project_root())}
    for variables in (environment, with_home):
        done = subprocess.run(command, cwd=project_root(), env=variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert statuses(settings) == ["SUCCESS", "SUCCESS"]
    # What the runs left, output and values, is under QUAYSIDE_HOME and nowhere else.
    left = {path.name for path in (settings.home / "dagster" / "storage").rglob("*") if path.is_file()}
    assert "result" in left
    assert any(name.endswith(".out") for name in left)
    assert not list(project_root().glob(".tmp_dagster_home_*/storage"))


def test_runs_events_and_schedules_are_in_schema_dagster(settings: Settings, instance: dg.DagsterInstance):
    @dg.op
    def one() -> None: ...

    @dg.job
    def tiny() -> None:
        one()

    run = tiny.execute_in_process(instance=instance)
    assert instance.get_run_by_id(run.run_id) is not None
    assert len(instance.all_logs(run.run_id)) > 5
    with connect(settings) as connection:
        tables = connection.execute(
            "SELECT schemaname FROM pg_tables WHERE tablename = 'event_logs'"
        ).fetchall()
    assert tables == [("dagster",)]


def test_settings_of_the_instance_are_those_of_the_file(instance: dg.DagsterInstance):
    queue = instance.get_concurrency_config().run_queue_config
    assert queue is not None
    assert queue.max_concurrent_runs == 5
    coordinator = instance.run_coordinator
    assert type(coordinator).__name__ == "PromptRunCoordinator"
    assert type(instance.run_launcher).__name__ == "WarmRunLauncher"
    assert type(instance.scheduler).__name__ == "DagsterDaemonScheduler"
    assert instance.run_monitoring_enabled
    assert instance.run_monitoring_poll_interval_seconds == 60
    assert instance.run_monitoring_start_timeout_seconds == 180
    assert instance.run_monitoring_cancel_timeout_seconds == 180
    assert instance.run_monitoring_max_runtime_seconds == 86400
    assert not instance.telemetry_enabled
    assert instance.get_settings("retention")["schedule"]["purge_after_days"] == 90


def test_no_secret_is_in_what_dagster_hands_to_its_processes(
    settings: Settings, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("DAGSTER_POSTGRES_PASSWORD", "hunter2hunter2")
    monkeypatch.setenv("SLACK_BOT_TOKEN", "xoxb-hunter2hunter2")
    text = serialize_value(InstanceRef.from_dir(str(tmp_path), config_dir=str(project_root())))
    assert "hunter2" not in text
    assert environment["QUAYSIDE_DATABASE_URL"] not in text
    assert json.loads(text)["storage_data"]["config_yaml"].strip() == "{}"


def test_one_small_pool_serves_all_stores_and_instances(instance: dg.DagsterInstance, reference: InstanceRef):
    with dg.DagsterInstance.from_ref(reference) as second:
        stores = [
            s for i in (instance, second) for s in (i.run_storage, i.event_log_storage, i.schedule_storage)
        ]
        engines = {id(vars(store)["_engine"]) for store in stores}
    assert len(stores) == 6
    assert len(engines) == 1


def test_connections_that_broke_while_idle_are_replaced(
    settings: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
):
    assert instance.get_runs_count() == 0
    with connect(settings) as connection:
        ended = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
            "AND datname = current_database() AND backend_type = 'client backend'"
        ).fetchall()
    assert ended
    monkeypatch.setattr(storage, "_TRUSTED_SECONDS", 0.0)
    assert instance.get_runs_count() == 0


def test_dagster_asks_once_what_its_tables_look_like(instance: dg.DagsterInstance):
    asked: list[str] = []

    def note(connection: sa.Connection, cursor: object, statement: str, *_: object) -> None:
        if "pg_catalog" in statement:
            asked.append(statement)

    engine = storage.pooled_engine(storage.storage_url(load_settings()))
    event.listen(engine, "before_cursor_execute", note)
    try:
        instance.get_runs()
        first = len(asked)
        instance.get_run_by_id("none")
        instance.event_log_storage.has_table("asset_event_tags")  # pyright: ignore[reportAttributeAccessIssue]
        instance.event_log_storage.has_table("asset_event_tags")  # pyright: ignore[reportAttributeAccessIssue]
        instance.get_run_by_id("none")
    finally:
        event.remove(engine, "before_cursor_execute", note)
    assert len(asked) == first + 2


def test_a_forked_child_opens_connections_of_its_own(settings: Settings, environment: dict[str, str]):
    url = storage.storage_url(settings)
    engine = storage.pooled_engine(url)

    def backend() -> int:
        with engine.connect() as connection:
            return connection.execute(sa.text("SELECT pg_backend_pid()")).scalar_one()

    parent = backend()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, str(backend()).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        child = int(pipe.read())
    assert os.waitpid(pid, 0)[1] == 0
    assert child != parent
    assert backend() == parent  # and ours is still good


@pytest.mark.slow
def test_many_first_processes_create_the_tables_one_after_the_other(
    settings: Settings, environment: dict[str, str]
):
    code = (
        "from quayside.foundation.dagster.storage import *;"
        "from quayside.foundation.settings import load_settings;"
        "create_tables(storage_url(load_settings()))"
    )
    waiting = (
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    command = [sys.executable, "-c", code]
    with connect(settings, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [storage._CREATION_LOCK])
        processes = [
            subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(3)
        ]
        deadline = time.monotonic() + 240
        while connection.execute(waiting).fetchone() != (3,):
            assert time.monotonic() < deadline, "all three have found no tables and wait for their turn"
            time.sleep(0.05)
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert errors == ["", "", ""]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert storage.has_tables(storage.storage_url(settings))


def test_a_database_of_dagsters_own(settings: Settings, tmp_path: Path):
    own = settings.model_copy(
        update={"dagster_postgres_host": "db", "dagster_postgres_user": "me", "dagster_postgres_db": "d/x"}
    )
    url = sa.make_url(storage.storage_url(own))
    assert (url.host, url.port, url.username, url.password, url.database) == ("db", 5432, "me", None, "d/x")
    assert not url.query  # where Dagster itself would put its tables
    with pytest.raises(
        SettingsError, match="DAGSTER_POSTGRES_HOST given without DAGSTER_POSTGRES_USER, DAGSTER_POSTGRES_DB"
    ):
        storage.storage_url(settings.model_copy(update={"dagster_postgres_host": "db"}))


def test_a_database_that_does_not_answer_is_one_sentence():
    with pytest.raises(ServiceUnavailableError) as raised:
        storage.create_tables("postgresql+psycopg2://me:hunter2@127.0.0.1:1/x?connect_timeout=2")
    text = str(raised.value)
    assert text.startswith("Dagster's database postgresql+psycopg2://me:***@127.0.0.1:1/x does not answer: ")
    assert "\n" not in text
    assert "hunter2" not in text
