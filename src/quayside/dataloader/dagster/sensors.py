"""`master_sensor` starts loads: it claims due rows and requests their runs. It ships STOPPED."""

from typing import Final

import dagster as dg

from quayside.dataloader.dagster.environment import named
from quayside.dataloader.dagster.jobs import JOBS
from quayside.dataloader.dagster.resources import LakebaseResource
from quayside.dataloader.dagster.runs import run_requests, without_run
from quayside.foundation.settings import load_settings

#: Queued for so long without a run: the tick that claimed it ended before it requested one.
FORGOTTEN_SECONDS: Final = 30.0
#: Deferred backfills named in one tick's log.
_NAMED: Final = 10


@dg.sensor(
    name=named("master_sensor"),
    jobs=JOBS,
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.STOPPED,
    description="Claims the tables that are due (DATALOADER_SENSOR_BATCH_SIZE a tick, in order of priority and due time) and "
    "requests their runs.",
)
def master_sensor(
    context: dg.SensorEvaluationContext, lakebase: LakebaseResource
) -> list[dg.RunRequest] | dg.SkipReason:
    """See its description.

    What a tick claimed and did not come to request is requested by the next, under the same run key: Dagster makes no
    second run for a key, and a second run would find its attempt begun.
    """
    settings = load_settings()
    limit = settings.dataloader_sensor_batch_size
    with lakebase.get_client() as client:
        forgotten = without_run(context.instance, client, limit, FORGOTTEN_SECONDS)
        if forgotten:
            context.log.warning(f"{len(forgotten)} queued tables have no run yet: it is requested again.")
        claimed = client.claim(limit)
        deferred = client.get_control_tables("backfill gate", limit=_NAMED)
    for row in deferred:
        name = ".".join(
            (row["destination_catalog"], row["destination_schema_name"], row["destination_table_name"])
        )
        context.log.info(f"{name} is deferred: {row['reason']}.")
    requests = [
        request
        for tables in (forgotten, claimed)
        for request in run_requests(tables, settings.dataloader_tables_per_run)
    ]
    if not requests:
        return dg.SkipReason("No table is ready to be loaded (`quayside tables list` says why of each).")
    context.log.info(f"{len(claimed)} tables claimed, {len(requests)} runs requested.")
    return requests
