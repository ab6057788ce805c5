"""The asset ``dataloader__table_load`` and the op ``dataloader__batch_load``: config in, `Loading`, report.

Neither is retried by Dagster: whether and when a failed table is loaded again is the control database's decision alone.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import dagster as dg

from quayside.dataloader.dagster.config import (
    BATCH_OP,
    TABLE_OP,
    DataloaderBatchConfig,
    DataloaderTableConfig,
)
from quayside.dataloader.dagster.environment import GROUP, OWNER, named
from quayside.dataloader.dagster.loading import Loading
from quayside.dataloader.dagster.plane import ExecutionPlane
from quayside.dataloader.dagster.report import figures
from quayside.dataloader.dagster.resources import LakebaseResource
from quayside.dataloader.worker import Outcome
from quayside.foundation.settings import load_settings

#: Set on the run when it is over: how its tables ended, as one word.
OUTCOME_TAG = "outcome"


@dg.multi_asset(
    name=TABLE_OP,
    specs=[
        dg.AssetSpec(
            named(TABLE_OP),
            description="One attempt at one table of control.table_control. The loaded table is an asset of its own.",
            group_name=GROUP,
            owners=[OWNER],
            kinds={"duckdb", "postgres"},
            skippable=True,
        )
    ],
)
def table_load(
    context: dg.AssetExecutionContext,
    config: DataloaderTableConfig,
    lakebase: LakebaseResource,
    execution_plane: dg.ResourceParam[ExecutionPlane],
) -> Iterator[dg.MaterializeResult]:
    """Load one table."""
    loading = Loading(context, lakebase.get_client(), load_settings().dagster_webserver_url)
    [outcome] = loading.run(execution_plane, [(config.config_id, config.attempt)])
    context.instance.add_run_tags(context.run_id, {OUTCOME_TAG: outcome.ending})
    if outcome.ending in ("Failed", "Cancelled"):
        raise dg.Failure(outcome.message, allow_retries=False)
    if outcome.ending == "Succeeded":
        request = loading.requests[config.config_id]
        yield dg.MaterializeResult(
            metadata={
                "table": ".".join(request.destination),
                "config_id": outcome.config_id,
                "attempt": outcome.attempt,
                "message": outcome.message,
                **(figures(outcome.result) if outcome.result else {}),
            }
        )


@dg.op(name=BATCH_OP, description="Attempts at several tables of one database, in one process.")
def batch_load(
    context: dg.OpExecutionContext,
    config: DataloaderBatchConfig,
    lakebase: LakebaseResource,
    execution_plane: dg.ResourceParam[ExecutionPlane],
) -> None:
    """Load the tables. One that fails makes the run red, and changes nothing for the others."""
    loading = Loading(context, lakebase.get_client(), load_settings().dagster_webserver_url)
    outcomes = loading.run(execution_plane, [(table.config_id, table.attempt) for table in config.tables])
    word = roll_up(outcomes)
    context.instance.add_run_tags(context.run_id, {OUTCOME_TAG: word})
    counted = ", ".join(f"{count} {ending}" for ending, count in Counter(o.ending for o in outcomes).items())
    if word != "Succeeded":
        raise dg.Failure(f"{word}: {counted}. {_causes(outcomes)}", allow_retries=False)
    context.log.info(f"{word}: {counted}.")


def roll_up(outcomes: Sequence[Outcome]) -> str:
    """``Succeeded``, ``Failed`` or ``Partial``. A fenced table belongs to somebody else by now and is neither."""
    failed = sum(outcome.ending in ("Failed", "Cancelled") for outcome in outcomes)
    if not failed:
        return "Succeeded"
    return "Partial" if any(outcome.ending == "Succeeded" for outcome in outcomes) else "Failed"


def _causes(outcomes: Sequence[Outcome]) -> str:
    """Each cause once, the most frequent first, with how many tables it kept from loading."""
    counted = Counter(o.message for o in outcomes if o.ending in ("Failed", "Cancelled"))
    return " ".join(f"{count} × {message}" for message, count in counted.most_common(5))
