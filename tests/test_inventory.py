"""The graph of all locations, loaded as the server loads it and held to ``inventory.json``.

A reviewer sees in that file what a change does to assets, jobs, schedules, sensors and checks. After an intended change:
``UPDATE_INVENTORY=1 pytest tests/test_inventory.py``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterInstance
from dagster._core.remote_representation.external import RemoteRepository
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget

from quayside.foundation.settings import project_root

pytestmark = pytest.mark.integration

INVENTORY = Path(__file__).parent / "inventory.json"


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, RemoteRepository]]:
    """Location name → its repository, out of code servers of their own."""
    target = WorkspaceFileTarget(paths=[str(project_root() / "workspace.yaml")])
    folder = str(tmp_path_factory.mktemp("dagster"))
    with DagsterInstance.local_temp(folder) as instance, WorkspaceProcessContext(instance, target) as process:
        found: dict[str, RemoteRepository] = {}
        for name, entry in process.create_request_context().get_code_location_entries().items():
            assert entry.load_error is None, f"{name}: {entry.load_error}"
            assert entry.code_location is not None
            [found[name]] = entry.code_location.get_repositories().values()
        yield found


def inventory(repository: RemoteRepository) -> dict[str, Any]:
    """Everything of a location that somebody else relies on."""
    return {
        "assets": {
            node.asset_key.to_user_string(): {
                "deps": sorted(edge.parent_asset_key.to_user_string() for edge in node.parent_edges),
                "group": node.group_name,
                "kinds": sorted(
                    tag.removeprefix("dagster/kind/") for tag in node.tags or {} if "/kind/" in tag
                ),
                "owners": sorted(node.owners or []),
                "partitions": node.partitions.__class__.__name__ if node.partitions else None,
            }
            for node in repository.get_asset_node_snaps()
        },
        "checks": sorted(
            f"{check.asset_key.to_user_string()}:{check.name}"
            for check in repository.get_asset_check_node_snaps()
        ),
        "jobs": sorted(job.name for job in repository.get_all_jobs() if not job.name.startswith("__")),
        "schedules": {
            schedule.name: {
                "cron": schedule.cron_schedule,
                "time_zone": schedule.execution_timezone,
                "job": schedule.job_name,
                "default_status": schedule.default_status.value,
            }
            for schedule in repository.get_schedules()
        },
        "sensors": {
            sensor.name: {
                "type": sensor.sensor_type.value,
                "interval_seconds": sensor.min_interval_seconds,
                "jobs": sorted(target.job_name for target in sensor.get_targets()),
                "default_status": sensor.default_status.value,
            }
            for sensor in repository.get_sensors()
        },
    }


@pytest.mark.slow
def test_the_inventory_is_the_one_written_down(repositories: dict[str, RemoteRepository]):
    found = {name: inventory(repository) for name, repository in repositories.items()}
    if os.environ.get("UPDATE_INVENTORY") == "1":
        INVENTORY.write_text(json.dumps(found, indent=2, sort_keys=True) + "\n")
    assert found == json.loads(INVENTORY.read_text())


def test_every_asset_says_what_it_is_and_who_looks_after_it(repositories: dict[str, RemoteRepository]):
    missing = []
    for location, repository in repositories.items():
        for node in repository.get_asset_node_snaps():
            said = {
                "description": node.description,
                "group": node.group_name != "default" and node.group_name,
                "kinds": any("/kind/" in tag for tag in node.tags or {}),
                "owner": node.owners,
            }
            missing += [
                f"{location}/{node.asset_key.to_user_string()}: {k}" for k, v in said.items() if not v
            ]
    assert missing == []
    assert all(check.description for r in repositories.values() for check in r.get_asset_check_node_snaps())


def test_the_run_failure_sensor_is_in_exactly_one_location(repositories: dict[str, RemoteRepository]):
    where = [
        (location, sensor.default_status.value)
        for location, repository in repositories.items()
        for sensor in repository.get_sensors()
        if sensor.name == "run_failure_alert"
    ]
    assert where == [("platform", "RUNNING")]
