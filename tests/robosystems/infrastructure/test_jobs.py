"""The jobs and sensors of graphs and keys, executed: on a real database, real graphs, and an instance with real run records."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from tests.robosystems.shared import module_settings  # noqa: F401  a fixture

from quayside.foundation.errors import ServiceUnavailableError
from quayside.foundation.postgres import connect
from quayside.foundation.settings import Settings
from quayside.robosystems.dagster import defs
from quayside.robosystems.dagster.assets.plaid import plaid_transactions
from quayside.robosystems.dagster.resources import DatabaseResource, GraphResource
from quayside.robosystems.dagster.sensors.provisioning import (
    LIMIT,
    ending_subscription_sensor,
    pending_subscription_sensor,
)
from quayside.robosystems.graphs import GraphSchema, GraphStore
from quayside.robosystems.keys import ApiKeys
from quayside.robosystems.keys.hashing import SecretStr
from quayside.robosystems.periods import utc_now
from quayside.robosystems.provisioning import Provisioner
from quayside.robosystems.subscriptions import Subscription, Subscriptions

pytestmark = pytest.mark.integration


@pytest.fixture
def con(
    module_settings: Settings,  # noqa: F811  the fixture
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[psycopg.Connection[Any]]:
    assert module_settings.database_url is not None
    monkeypatch.setenv("QUAYSIDE_HOME", str(module_settings.home))
    monkeypatch.setenv("QUAYSIDE_DATABASE_URL", module_settings.database_url.get_secret_value())
    with connect(module_settings, autocommit=True) as connection:
        yield connection
        connection.execute(
            "UPDATE robosystems.subscriptions SET next_attempt_at = 'infinity' WHERE state IN ('provisioning', 'canceled')"
        )


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def order(con: psycopg.Connection[Any]) -> str:
    subscriptions = Subscriptions(con)
    made = subscriptions.create("c", "standard", request={"kind": "entity"}).subscription_id
    subscriptions.paid(made)
    return made


def tick(sensor: Any, instance: dg.DagsterInstance) -> list[dg.RunRequest]:
    result = sensor(dg.build_sensor_context(instance, resources={"db": DatabaseResource()}))
    return [] if isinstance(result, dg.SkipReason) else list(result.run_requests)


def run(
    request: dg.RunRequest, job: str, instance: dg.DagsterInstance, ok: bool = True
) -> dg.ExecuteInProcessResult:
    result = defs.resolve_job_def(job).execute_in_process(
        run_config=request.run_config, tags=request.tags, instance=instance, raise_on_error=False
    )
    assert result.success is ok
    return result


def seen(con: psycopg.Connection[Any], name: str) -> Subscription:
    return Subscriptions(con).get(name)


def test_from_payment_to_the_end(con: psycopg.Connection[Any], instance: dg.DagsterInstance) -> None:
    """failures 1-4: the config a sensor writes is the config the job takes, and every op runs."""
    name = order(con)
    (request,) = tick(pending_subscription_sensor, instance)
    assert request.run_key == f"provision:{name}:2:1"
    assert tick(pending_subscription_sensor, instance) == []
    result = run(request, "provision_graph_job", instance)
    steps = [e.step_key for e in result.get_step_success_events()]
    assert steps == [
        "get_subscription_details",
        "create_graph_database",
        "install_graph_schema",
        "register_graph",
        "open_credit_account",
        "activate_graph_subscription",
    ]
    made = seen(con, name)
    assert (made.state, made.attempt) == ("active", 1)
    assert made.graph_id is not None
    assert GraphResource().query(made.graph_id, "MATCH (e:Entity) RETURN count(*) AS n").to_pylist() == [
        {"n": 0}
    ]
    actors = {h.actor for h in Subscriptions(con).history(name) if h.to_state == "active"}
    assert actors == {f"dagster:run:{result.run_id}"}
    run(request, "provision_graph_job", instance)  # somebody re-executes it
    assert seen(con, name) == made

    assert tick(ending_subscription_sensor, instance) == []
    Subscriptions(con).cancel(name)
    (ending,) = tick(ending_subscription_sensor, instance)
    run(ending, "deprovision_graph_job", instance)
    assert (seen(con, name).state, GraphResource().store().exists(made.graph_id)) == ("ended", False)


def test_failed_runs_are_followed_by_others_and_then_given_up(
    con: psycopg.Connection[Any], instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """failure 5: attempts are in the run keys, so no failed run stands in the way of the next."""
    name = order(con)

    def away(self: Any, mine: Any) -> None:
        raise ServiceUnavailableError("the disk is away")

    monkeypatch.setattr(Provisioner, "install_schema", away)
    keys = []
    for number in range(1, 6):
        (request,) = tick(pending_subscription_sensor, instance)
        keys.append(request.run_key)
        result = run(request, "provision_graph_job", instance, ok=False)
        assert seen(con, name).state == ("provisioning" if number < 5 else "failed")
        con.execute(
            "UPDATE robosystems.subscriptions SET next_attempt_at = NULL WHERE subscription_id = %s", [name]
        )
    assert len(set(keys)) == 5
    assert "the disk is away" in str(result.failure_data_for_node("install_graph_schema"))
    assert tick(pending_subscription_sensor, instance) == []
    alert = con.execute(
        "SELECT run_id FROM ops.alerts WHERE fingerprint LIKE %s", [f"provisioning:{name}:%"]
    ).fetchall()
    assert alert == [(result.run_id,)]


def test_a_tick_hands_out_a_bounded_number_whatever_happened_before(
    con: psycopg.Connection[Any], instance: dg.DagsterInstance
) -> None:
    """failure 51"""
    con.execute(
        "INSERT INTO robosystems.subscriptions (subscription_id, customer_id, plan, state, graph_id, activated_at, state_at)"
        " SELECT 'bulk' || to_char(n, 'FM000'), 'c', 'standard', 'provisioning', NULL, NULL, now() - make_interval(mins => 500 - n)"
        " FROM generate_series(1, %s) AS n",
        [LIMIT + 10],
    )
    first, second, third = (tick(pending_subscription_sensor, instance) for _ in range(3))
    assert (len(first), len(second), third) == (LIMIT, 10, [])
    names = [r.tags["quayside/subscription"] for r in [*first, *second]]
    assert names == [f"bulk{n:03d}" for n in range(1, LIMIT + 11)]


def test_a_run_for_something_else_fails_with_its_sentence(
    con: psycopg.Connection[Any], instance: dg.DagsterInstance
) -> None:
    config = {"ops": {"get_subscription_details": {"config": {"subscription_id": "nobody"}}}}
    request = dg.RunRequest(run_config=config)
    result = run(request, "provision_graph_job", instance, ok=False)
    data = result.failure_data_for_node("get_subscription_details")
    assert data is not None
    assert data.user_failure_data is not None
    assert data.user_failure_data.description == "There is no subscription 'nobody'."


def test_key_cleanup(con: psycopg.Connection[Any], instance: dg.DagsterInstance) -> None:
    moments = iter([utc_now() - timedelta(days=2)])
    keys = ApiKeys(con, SecretStr("x" * 32), lambda: next(moments))
    made = keys.create("c", expires_at=utc_now() - timedelta(days=1)).key.key_id
    for dry_run, state in [(True, None), (False, "deactivated"), (False, "deactivated")]:
        config = {"ops": {"cleanup_expired_api_keys": {"config": {"dry_run": dry_run}}}}
        run(dg.RunRequest(run_config=config), "hourly_auth_cleanup_job", instance)
        assert (keys.get(made).deactivated_at is not None) is (state is not None)
    config = {"ops": {"cleanup_expired_api_keys": {"config": {"grace_days": 0}}}}
    result = run(dg.RunRequest(run_config=config), "hourly_auth_cleanup_job", instance)
    assert result.output_for_node("cleanup_expired_api_keys") == {"deactivated": 0, "deleted": 1}


def test_an_adapters_asset_loads_a_graph(
    con: psycopg.Connection[Any], instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    del con  # for the environment
    graphs = GraphStore(tmp_path / "graphs")
    graphs.create("kg1", GraphSchema("empty"))
    (tmp_path / "1.json").write_text(
        json.dumps({"added": [], "modified": [], "removed": [], "next_cursor": "c"})
    )
    result = dg.materialize(
        [plaid_transactions],
        run_config={"ops": {"plaid_transactions": {"config": {"graph_id": "kg1", "source": str(tmp_path)}}}},
        resources={"graph": GraphResource(folder=str(graphs.folder))},
        instance=instance,
    )
    (event,) = result.asset_materializations_for_node("plaid_transactions")
    assert event.metadata["dagster/row_count"].value == 0
    with graphs.reader("kg1") as session:
        assert session.cursor("plaid") == "c"
