"""The two jobs that load tables. A row's claim decides which of them runs it (`runs`)."""

import dagster as dg

from quayside.dataloader.dagster.assets import batch_load, table_load
from quayside.dataloader.dagster.environment import OWNER
from quayside.dataloader.dagster.runs import BATCH_JOB, TABLE_JOB, TABLE_SECONDS

#: Dagster ends a run after the time in the second tag. A backfill's run says its own.
TAGS = {"owner": OWNER, "dagster/max_runtime": str(TABLE_SECONDS)}

TABLE = dg.define_asset_job(
    TABLE_JOB,
    selection=dg.AssetSelection.assets(table_load),
    description="Load one table of control.table_control, in a process of its own.",
    tags=TAGS,
)


BATCH = dg.define_asset_job(
    BATCH_JOB,
    selection=dg.AssetSelection.assets(batch_load),
    description="Load several tables of one database, in one process (DATALOADER_TABLES_PER_RUN).",
    tags=TAGS,
)

JOBS = [TABLE, BATCH]
