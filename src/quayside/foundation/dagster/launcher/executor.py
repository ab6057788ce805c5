"""`forking_executor`: each step in its own process, forked from the run instead of started anew.

Dagster's multiprocess executor starts an interpreter per step, which imports everything again; seconds for a step that
may take milliseconds. A run that was itself forked from a warm server has all of that loaded and no thread, so its
steps can be forked too. Everything else (limits, retries, interrupts, crash reports) is the multiprocess executor's.
"""

from __future__ import annotations

import multiprocessing
import os
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.definitions.executor_definition import multiple_process_executor_requirements
from dagster._core.events import EngineEventData
from dagster._core.execution.retries import RetryMode, get_retries_config
from dagster._core.execution.tags import get_tag_concurrency_limits_config
from dagster._core.executor.multiprocess import MultiprocessExecutor

from quayside.foundation.dagster.launcher import openness
from quayside.foundation.dagster.launcher.worker import close_connections, reseed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dagster._core.execution.context.system import PlanOrchestrationContext
    from dagster._core.execution.plan.plan import ExecutionPlan


class ForkingExecutor(MultiprocessExecutor):
    """Multiprocess execution whose step processes are forked; spawned when something open forbids a fork."""

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[dg.DagsterEvent]:
        # The connections of the run's own instance open again when used, and are then no obstacle: a step opens an instance
        # of its own, and psycopg2 and SQLAlchemy leave a parent's connections alone.
        close_connections(plan_context.instance)
        openness.settle_threads()
        if found := openness.settle_duckdb() + openness.held_objects() + openness.threads():
            yield dg.DagsterEvent.engine_event(
                plan_context,
                f"Steps get fresh interpreters, because a fork would break what the run has open: {', '.join(found)}.",
                EngineEventData({}),
            )
        else:
            self._start_method = "fork"
            os.register_at_fork(after_in_child=reseed)
        yield from super().execute(plan_context, execution_plan)


@dg.executor(
    name="forking",
    config_schema={
        "max_concurrent": dg.Field(
            dg.Noneable(dg.Int),
            default_value=None,
            description="Most steps at once. By default one per processor.",
        ),
        "tag_concurrency_limits": get_tag_concurrency_limits_config(),
        "retries": get_retries_config(),
    },
    requirements=multiple_process_executor_requirements(),
)
def forking_executor(init_context: dg.InitExecutorContext) -> ForkingExecutor:
    """Runs steps in parallel, each in a process forked from the run's.

    Meant for runs that `WarmRunLauncher` started; elsewhere (a run with threads of its own) steps get fresh interpreters.
    """
    config = init_context.executor_config
    return ForkingExecutor(
        retries=RetryMode.from_config(config["retries"]),  # pyright: ignore[reportArgumentType] - as the schema says
        max_concurrent=config["max_concurrent"] or multiprocessing.cpu_count(),  # pyright: ignore[reportArgumentType] - likewise
        tag_concurrency_limits=config.get("tag_concurrency_limits"),  # pyright: ignore[reportArgumentType] - likewise
    )
