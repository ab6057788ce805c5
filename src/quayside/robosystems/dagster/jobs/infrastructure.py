"""Jobs on graphs and keys: provisioning, the end of subscriptions, key cleanup. Each op reads config and calls the domain."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import dagster as dg
from pydantic import Field

from quayside.foundation import audit
from quayside.foundation.errors import PermanentError
from quayside.robosystems.dagster.resources import DatabaseResource, GraphResource, S3Resource
from quayside.robosystems.keys.cleanup import GRACE, cleanup
from quayside.robosystems.provisioning import Order, Provisioner, end_subscription

#: Who looks after these jobs; alerts name it.
OWNER = {"owner": "team:robosystems"}
OrderData = dict[str, Any]


@contextmanager
def _domain_call(context: dg.OpExecutionContext) -> Iterator[None]:
    """Audit rows name the run; what trying again cannot mend fails the run with its sentence."""
    with audit.acting_as(f"dagster:run:{context.run_id}"):
        try:
            yield
        except PermanentError as error:
            raise dg.Failure(description=str(error), allow_retries=False) from error


@contextmanager
def _provisioner(
    context: dg.OpExecutionContext, db: DatabaseResource, graph: GraphResource
) -> Iterator[Provisioner]:
    with _domain_call(context), db.connection() as connection:
        connection.autocommit = True
        yield Provisioner(db.settings(), connection, graph.store(), run_id=context.run_id)


def _step(
    context: dg.OpExecutionContext, db: DatabaseResource, graph: GraphResource, step: str, data: OrderData
) -> OrderData:
    order = Order(**data)
    with _provisioner(context, db, graph) as provisioner:
        try:
            getattr(provisioner, step)(order)
        except Exception as error:
            provisioner.failed(order, error)
            raise
    return data


class ProvisionConfig(dg.Config):
    """Config of ``get_subscription_details``."""

    subscription_id: str = Field(description="A subscription in provisioning.")
    attempt: int = Field(default=0, description="The attempt that was handed out; 0 takes the next one.")


@dg.op
def get_subscription_details(
    context: dg.OpExecutionContext, config: ProvisionConfig, db: DatabaseResource, graph: GraphResource
) -> OrderData:
    """Take up an attempt on a subscription."""
    with _provisioner(context, db, graph) as provisioner:
        order = provisioner.begin(config.subscription_id, config.attempt)
    context.log.info(f"Attempt {order.attempt} on {order.subscription_id}: graph {order.graph_id}.")
    return asdict(order)


@dg.op
def create_graph_database(
    context: dg.OpExecutionContext, order: OrderData, db: DatabaseResource, graph: GraphResource
) -> OrderData:
    """Create the LadybugDB database."""
    return _step(context, db, graph, "create_database", order)


@dg.op
def install_graph_schema(
    context: dg.OpExecutionContext, order: OrderData, db: DatabaseResource, graph: GraphResource
) -> OrderData:
    """Install the schema that was ordered."""
    return _step(context, db, graph, "install_schema", order)


@dg.op
def register_graph(
    context: dg.OpExecutionContext, order: OrderData, db: DatabaseResource, graph: GraphResource
) -> OrderData:
    """Register the graph."""
    return _step(context, db, graph, "register_graph", order)


@dg.op
def open_credit_account(
    context: dg.OpExecutionContext, order: OrderData, db: DatabaseResource, graph: GraphResource
) -> OrderData:
    """Open the account with the first, prorated allowance."""
    return _step(context, db, graph, "open_account", order)


@dg.op
def activate_graph_subscription(
    context: dg.OpExecutionContext, order: OrderData, db: DatabaseResource, graph: GraphResource
) -> None:
    """Activate the subscription."""
    _step(context, db, graph, "activate", order)
    context.add_output_metadata({"graph_id": order["graph_id"], "subscription_id": order["subscription_id"]})


@dg.job(
    description="Make the graph of a subscription that was paid. Every step can be repeated; the last attempt undoes.",
    tags=OWNER,
    executor_def=dg.in_process_executor,
)
def provision_graph_job() -> None:
    """Make the graph of a subscription."""
    order = install_graph_schema(create_graph_database(get_subscription_details()))
    activate_graph_subscription(open_credit_account(register_graph(order)))


class EndConfig(dg.Config):
    """Config of ``end_graph_subscription``."""

    subscription_id: str = Field(description="A canceled subscription whose end has come.")


@dg.op
def end_graph_subscription(
    context: dg.OpExecutionContext,
    config: EndConfig,
    db: DatabaseResource,
    graph: GraphResource,
    s3: S3Resource,
) -> None:
    """Back the graph up one last time, remove it, end the subscription."""
    with _domain_call(context), db.connection() as connection:
        connection.autocommit = True
        backup = end_subscription(connection, graph.store(), s3.store(), config.subscription_id)
    if backup is not None:
        context.add_output_metadata(
            {"graph_id": backup.graph_id, "backup": backup.key, "size_bytes": backup.size_bytes}
        )


@dg.job(
    description="End a canceled subscription: last backup, then its graph goes.",
    tags=OWNER,
    executor_def=dg.in_process_executor,
)
def deprovision_graph_job() -> None:
    """End a canceled subscription."""
    end_graph_subscription()


class CleanupConfig(dg.Config):
    """Config of ``cleanup_expired_api_keys``."""

    grace_days: int = Field(default=GRACE.days, ge=0, description="How long an inactive key is kept.")
    dry_run: bool = Field(default=False, description="Only say what would be done.")


@dg.op
def cleanup_expired_api_keys(
    context: dg.OpExecutionContext, config: CleanupConfig, db: DatabaseResource
) -> dict[str, int]:
    """Deactivate keys that have expired, delete those that have long been inactive."""
    with _domain_call(context), db.connection() as connection:
        done = cleanup(connection, grace=timedelta(days=config.grace_days), dry_run=config.dry_run)
    counts = {"deactivated": len(done.deactivated), "deleted": len(done.deleted)}
    context.add_output_metadata({**counts, "dry_run": done.dry_run})
    return counts


@dg.job(
    description="Deactivate and, later, delete expired API keys.",
    tags=OWNER,
    executor_def=dg.in_process_executor,
)
def hourly_auth_cleanup_job() -> None:
    """Clean up API keys."""
    cleanup_expired_api_keys()


INFRASTRUCTURE_JOBS = [provision_graph_job, deprovision_graph_job, hourly_auth_cleanup_job]
