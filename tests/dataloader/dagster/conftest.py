"""Sources, control rows and Dagster instances for the tests of the location."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import dagster as dg
import pytest
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from tests.conftest import private_settings

from quayside.dataloader.control.client import LakebaseClient
from quayside.dataloader.dagster.resources import LakebaseResource
from quayside.dataloader.dagster.runs import TABLE_JOB
from quayside.foundation.postgres import connect, database_url
from quayside.foundation.settings import Settings

#: In the environment of the worker alone, and so in nothing that is written down.
PLANTED = "planted-7c1e-secret-value"


@pytest.fixture(scope="module")
def _module_settings(
    session_settings: Settings, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    yield from private_settings(session_settings, tmp_path_factory.mktemp("platform"), template_database)


@pytest.fixture
def platform(_module_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The platform that runs, workers and sensors find through the environment; a module's tests share it, `control` is
    empty for each."""
    settings = _module_settings
    assert settings.database_url is not None
    monkeypatch.setenv("QUAYSIDE_HOME", str(settings.home))
    monkeypatch.setenv("QUAYSIDE_DATABASE_URL", settings.database_url.get_secret_value())
    monkeypatch.setenv("SALES_PASSWORD", PLANTED)
    return settings


@pytest.fixture(scope="module")
def _module_instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        yield instance


@pytest.fixture
def instance(_module_instance: dg.DagsterInstance) -> dg.DagsterInstance:
    """A Dagster instance without any run."""
    _module_instance.wipe()
    return _module_instance


@dataclass
class Control:
    """The control database of a test: rows by SQL, everything else by the client."""

    settings: Settings
    client: LakebaseClient

    def execute(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with connect(self.settings) as con:
            cursor = con.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def source(self, key: str = "sales", /, **fields: Any) -> None:
        """A source database: by default the test's own, where `source_table` makes tables."""
        from psycopg.conninfo import conninfo_to_dict

        parts = conninfo_to_dict(database_url(self.settings))
        value = {
            "host": {"value": str(parts["host"])},
            "service_name": {"value": str(parts["dbname"])},
            "user": {"value": str(parts["user"])},
            "password": "SALES_PASSWORD",
        } | fields.pop("db_config_value", {})
        names = ["db_config_key", "db_type", "db_config_value", *fields]
        self.execute(
            f"INSERT INTO control.table_control_dbconfig ({', '.join(names)}) "
            f"VALUES ({', '.join(['%s'] * len(names))})",
            key, fields.pop("db_type", "postgresql"), json.dumps(value), *fields.values(),
        )  # fmt: skip

    def source_table(self, name: str, rows: int = 10) -> None:
        """``public.<name>`` with `rows` rows, updated a minute apart."""
        self.execute(
            f"CREATE TABLE public.\"{name}\" AS SELECT n AS id, 'row ' || n AS label, "
            f"timestamptz '2026-01-01 00:00:00Z' + n * interval '1 minute' AS updated_at "
            f"FROM generate_series(1, {rows}) n"
        )

    def table(self, name: str, **columns: Any) -> int:
        """An active row that loads ``public.<name>`` into ``bronze.trade.<name>``; its config_id."""
        values = {
            "is_active": True,
            "db_config_key": "sales",
            "source_schema_name": "public",
            "source_table_name": name,
            "destination_catalog": "bronze",
            "destination_schema_name": "trade",
            "destination_table_name": name,
            "load_strategy": "full",
        } | columns
        [(config_id,)] = self.execute(
            f"INSERT INTO control.table_control ({', '.join(values)}) "
            f"VALUES ({', '.join(['%s'] * len(values))}) RETURNING config_id",
            *values.values(),
        )
        return config_id

    def row(self, config_id: int) -> dict[str, Any]:
        return self.client.get_table_details(config_id)

    def status(self, config_id: int) -> str | None:
        return self.row(config_id)["last_status"]

    def message(self, config_id: int) -> str:
        return self.row(config_id)["last_status_message"]

    def age(self, config_id: int, minutes: float) -> None:
        """Let the row's attempt look that much older."""
        self.execute(
            "UPDATE control.table_control SET last_status_date_time = last_status_date_time - %s * interval '1 minute', "
            "last_load_date_time = last_load_date_time - %s * interval '1 minute' WHERE config_id = %s",
            minutes, minutes, config_id,
        )  # fmt: skip

    def history(self, config_id: int) -> list[tuple[int, str | None]]:
        """(attempt, how it ended) of every attempt."""
        return self.execute(
            "SELECT attempt, load_status FROM control.historical_metadata WHERE config_id = %s ORDER BY attempt",
            config_id,
        )

    def open_history(self) -> int:
        return self.execute("SELECT count(*) FROM control.historical_metadata WHERE load_status IS NULL")[0][
            0
        ]


@pytest.fixture
def control(platform: Settings) -> Iterator[Control]:
    with LakebaseClient(platform) as client:
        control = Control(platform, client)
        control.execute(
            "TRUNCATE control.table_control, control.table_control_dbconfig, control.historical_metadata"
        )
        yield control


def tick(sensor: dg.SensorDefinition, instance: dg.DagsterInstance) -> Any:
    """One evaluation of a sensor of the location, with its resources, as the daemon asks for it."""
    with dg.build_sensor_context(instance=instance, resources={"lakebase": LakebaseResource()}) as context:
        return sensor.evaluate_tick(context)


def add_run(
    instance: dg.DagsterInstance, status: dg.DagsterRunStatus, job: str = TABLE_JOB, **more: Any
) -> dg.DagsterRun:
    """A run's record in the state it would have."""
    target = LoadableTargetOrigin(module_name="quayside.dataloader.dagster", attribute="defs")
    location = ManagedGrpcPythonEnvCodeLocationOrigin(target, "dataloader")
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), job)
    run = dg.DagsterRun(
        job_name=job, run_id=str(uuid.uuid4()), status=status, remote_job_origin=origin, **more
    )
    return instance.add_run(run)


def make_runs(instance: dg.DagsterInstance, data: Any, status: dg.DagsterRunStatus) -> list[dg.DagsterRun]:
    """Runs for a tick's requests, as the daemon would make them."""
    return [
        add_run(
            instance,
            status,
            request.job_name,
            run_config=request.run_config,
            tags={**request.tags, "dagster/run_key": request.run_key},
        )
        for request in data.run_requests or []
    ]
