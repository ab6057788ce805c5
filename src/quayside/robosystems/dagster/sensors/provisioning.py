"""What starts provisioning and the end of subscriptions. Both decide from the rows alone."""

import dagster as dg

from quayside.robosystems.billing import apply_upgrades
from quayside.robosystems.dagster.jobs.infrastructure import deprovision_graph_job, provision_graph_job
from quayside.robosystems.dagster.resources import DatabaseResource
from quayside.robosystems.provisioning.claims import claim

#: Subscriptions handed out in one tick.
LIMIT = 50
SUBSCRIPTION_TAG = "quayside/subscription"


@dg.sensor(
    job_name=provision_graph_job.name,
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=f"Makes the graphs of paid subscriptions: at most {LIMIT} a tick, oldest first, five attempts each.",
)
def pending_subscription_sensor(
    context: dg.SensorEvaluationContext, db: DatabaseResource
) -> dg.SensorResult | dg.SkipReason:
    """Hand out attempts on subscriptions in ``provisioning``; the attempt is in the run key."""
    with db.connection() as connection:
        claims = claim(connection, "provisioning", limit=LIMIT)
    if not claims:
        return dg.SkipReason("No subscription waits for its graph.")
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(
                run_key=f"provision:{each.run_key}",
                run_config={
                    "ops": {
                        "get_subscription_details": {
                            "config": {"subscription_id": each.subscription_id, "attempt": each.attempt}
                        }
                    }
                },
                tags={SUBSCRIPTION_TAG: each.subscription_id},
            )
            for each in claims
        ]
    )


@dg.sensor(
    job_name=deprovision_graph_job.name,
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=f"Lets changes of plan take effect, with their credits, and ends canceled subscriptions when their time has come, {LIMIT} a tick.",
)
def ending_subscription_sensor(
    context: dg.SensorEvaluationContext, db: DatabaseResource
) -> dg.SensorResult | dg.SkipReason:
    """Hand out canceled subscriptions whose end has come."""
    with db.connection() as connection:
        changed = apply_upgrades(connection).changed
        claims = claim(connection, "canceled", limit=LIMIT)
    if not claims:
        return dg.SkipReason(f"No subscription ends now; {changed} changed plan.")
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(
                run_key=f"end:{each.run_key}",
                run_config={
                    "ops": {"end_graph_subscription": {"config": {"subscription_id": each.subscription_id}}}
                },
                tags={SUBSCRIPTION_TAG: each.subscription_id},
            )
            for each in claims
        ]
    )


SENSORS = [pending_subscription_sensor, ending_subscription_sensor]
