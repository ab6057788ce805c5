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


def _spec(op: str, description: str) -> dg.AssetSpec:
    return dg.AssetSpec(
        named(op),
        description=description,
        group_name=GROUP,
        owners=[OWNER],
        kinds={"duckdb", "postgres"},
        skippable=True,
    )


@dg.multi_asset(
    name=TABLE_OP,
    specs=[
        _spec(
            TABLE_OP,
            "One attempt at one table of control.table_control. The loaded table is an asset of its own.",
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
    with lakebase.get_client() as client:
        loading = Loading(context, client, load_settings().dagster_webserver_url)
        [outcome] = loading.run(execution_plane, [(config.config_id, config.attempt)])
    context.instance.add_run_tags(context.run.run_id, {OUTCOME_TAG: outcome.ending})
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


@dg.multi_asset(
    name=BATCH_OP,
    specs=[
        _spec(
            BATCH_OP,
            "Attempts at several tables of one database, in one process. Each loaded table is an asset of its own.",
        )
    ],
)
def batch_load(
    context: dg.AssetExecutionContext,
    config: DataloaderBatchConfig,
    lakebase: LakebaseResource,
    execution_plane: dg.ResourceParam[ExecutionPlane],
) -> Iterator[dg.MaterializeResult]:
    """Load the tables. One that fails makes the run red, and changes nothing for the others."""
    with lakebase.get_client() as client:
        loading = Loading(context, client, load_settings().dagster_webserver_url)
        outcomes = loading.run(execution_plane, [(table.config_id, table.attempt) for table in config.tables])
    word = roll_up(outcomes)
    context.instance.add_run_tags(context.run.run_id, {OUTCOME_TAG: word})
    counted = Counter(outcome.ending for outcome in outcomes)
    if word != "Succeeded":
        said = ", ".join(f"{count} {ending}" for ending, count in counted.items())
        raise dg.Failure(f"{word}: {said}. {_causes(outcomes)}", allow_retries=False)
    yield dg.MaterializeResult(metadata={"tables": len(outcomes), **counted})


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
