"""Tables loaded by configuration as Dagster runs on the platform's instance, recorded like any other run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import dagster as dg

from quayside.dataloader.dagster.definitions import defs
from quayside.dataloader.dagster.runs import run_requests
from quayside.dataloader.demo_source import prepare
from quayside.foundation.dagster.failure_sensor import cause
from quayside.foundation.errors import QuaysideError
from quayside.foundation.progress import step

if TYPE_CHECKING:
    from quayside.foundation.settings import Settings

TABLES_PER_RUN: Final = 10
#: The run's own log is in the UI; the terminal shows the steps.
_QUIET: Final = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True)
class Loaded:
    """What was loaded, of the demonstration's tables alone."""

    tables: int
    runs: int
    rows_read: int
    rows_written: int
    seconds: float


def load_tables(settings: Settings, instance: dg.DagsterInstance) -> Loaded:
    """Make the source, or change it, and load its tables in batches: what the sensor and the daemon do by themselves.

    Raises:
        QuaysideError: the sentence of a run that failed.
    """
    from quayside.dataloader.control.client import LakebaseClient

    with LakebaseClient(settings) as client, step("load 20 tables by configuration") as timed:
        ids = prepare(settings, client)
        requests = run_requests(client.claim(len(ids)), TABLES_PER_RUN)
        for request in requests:
            _run(instance, request)
        rows = client.ask(
            "SELECT rows_read, rows_written FROM control.table_control JOIN control.historical_metadata "
            "USING (config_id, attempt) WHERE config_id = ANY(%(ids)s) AND load_status = 'Succeeded'",
            {"ids": ids},
        )
        timed.note = f"{len(requests)} runs"
    read, written = (sum(row[name] or 0 for row in rows) for name in ("rows_read", "rows_written"))
    return Loaded(len(rows), len(requests), read, written, timed.seconds)


def _run(instance: dg.DagsterInstance, request: dg.RunRequest) -> None:
    config: dict[str, Any] = {**request.run_config, **_QUIET}
    result = defs.resolve_job_def(str(request.job_name)).execute_in_process(
        run_config=config, tags=request.tags, instance=instance, raise_on_error=False
    )
    for event in result.all_events:
        if event.is_step_failure and (error := event.step_failure_data.error):
            raise QuaysideError(f"{request.job_name} failed: {cause(error)}")
