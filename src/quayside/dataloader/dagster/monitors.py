"""What watches loads and closes what went wrong. These sensors ship RUNNING and go by the rows, never by a run's config.

A row is closed before its run is cancelled: from that moment its worker is refused, and the message that stays is the one
that says why. Inactive rows are looked at like any other.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import dagster as dg

from quayside.dataloader.control.attempts import Outcome
from quayside.dataloader.control.client import LakebaseClient
from quayside.dataloader.control.rows import Attempt
from quayside.dataloader.dagster.environment import named
from quayside.dataloader.dagster.resources import LakebaseResource
from quayside.dataloader.dagster.runs import UNFINISHED, attempts_of, runs_of
from quayside.dataloader.errors import FencedError
from quayside.foundation.errors import QuaysideError

QUEUE_MINUTES: Final = 60
RUN_MINUTES: Final = 180
BACKFILL_MINUTES: Final = 24 * 60
#: The run's own timeout is to come first.
GRACE_MINUTES: Final = 5
#: From the end of a run until its row is taken for left behind: the worker may be writing its outcome.
SETTLE_SECONDS: Final = 60
#: A Queued row without a run for so long: neither the tick that claimed it nor the next one will request it.
LOST_MINUTES: Final = 5


@dg.sensor(
    name=named("longqueued_monitor"),
    minimum_interval_seconds=600,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=f"Queued for more than {QUEUE_MINUTES} minutes: Failed, and its run is cancelled.",
)
def longqueued_monitor(context: dg.SensorEvaluationContext, lakebase: LakebaseResource) -> dg.SkipReason:
    """See its description."""
    message = f"Cancelled - stuck in queue for >{QUEUE_MINUTES} minutes"
    with lakebase.get_client() as client:
        stuck = client.stuck_in_queue(QUEUE_MINUTES)
        runs = runs_of(context.instance, stuck)
        closed = [a for a in stuck if _give_up(context, client, a, message, "Cancelled")]
        _cancel_empty(context, client, [run for a in closed if (run := runs.get((a.config_id, a.attempt)))])
    return _said(context, closed, "was queued for too long")


@dg.sensor(
    name=named("longrunning_monitor"),
    minimum_interval_seconds=600,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=f"In Progress for more than {RUN_MINUTES} minutes (a backfill: 24 hours): Failed, and its run is cancelled.",
)
def longrunning_monitor(context: dg.SensorEvaluationContext, lakebase: LakebaseResource) -> dg.SkipReason:
    """See its description."""
    with lakebase.get_client() as client:
        closed = []
        for attempt in client.running_too_long(RUN_MINUTES + GRACE_MINUTES, BACKFILL_MINUTES + GRACE_MINUTES):
            minutes = BACKFILL_MINUTES if attempt.load_strategy == "chunked_backfill" else RUN_MINUTES
            message = f"Cancelled - exceeded {minutes} minute timeout"
            if _give_up(context, client, attempt, message, "Cancelled"):
                closed.append(attempt)
        ids = {a.run_id for a in closed if a.run_id}
        _cancel_empty(context, client, _runs(context.instance, sorted(ids)).values())
    return _said(context, closed, "was loading for too long")


@dg.sensor(
    name=named("reconcile_monitor"),
    minimum_interval_seconds=300,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Closes what dead workers and lost runs left: In Progress without a living run or heartbeat, Queued whose "
    "run was never created or has ended, open history of rows that have moved on.",
)
def reconcile_monitor(context: dg.SensorEvaluationContext, lakebase: LakebaseResource) -> dg.SkipReason:
    """See its description."""
    with lakebase.get_client() as client:
        expired = [
            a for a in client.expired() if _give_up(context, client, a, _lost(a), "Failed", only_expired=True)
        ]
        # A worker that is stopped, or hangs so that not even its heartbeat goes on, would keep its run for hours.
        lost = sorted({a.run_id for a in expired if a.run_id})
        _cancel_empty(context, client, _runs(context.instance, lost).values())
        gone = {(a.config_id, a.attempt) for a in expired}
        left = [a for a in client.running() if (a.config_id, a.attempt) not in gone]
        closed = [*expired, *_close_ended(context, client, left)]
        history = client.close_leftovers()
        for row in history:
            context.log.warning(f"{row['destination']}: open history of attempt {row['attempt']} was closed.")
    return _said(
        context, closed, "was left behind", f"; open history rows closed: {len(history)}" if history else ""
    )


MONITORS = [longqueued_monitor, longrunning_monitor, reconcile_monitor]


def _close_ended(
    context: dg.SensorEvaluationContext, client: LakebaseClient, attempts: Sequence[Attempt]
) -> Iterator[Attempt]:
    """Close the attempts whose run has ended or never was."""
    now = datetime.now(UTC)
    queued = [a for a in attempts if a.status == "Queued"]
    of_queued = runs_of(context.instance, queued)
    started = [a for a in attempts if a.status != "Queued" and a.run_id]
    by_id = _runs(context.instance, sorted({a.run_id for a in started if a.run_id}))
    for attempt in queued:
        run = of_queued.get((attempt.config_id, attempt.attempt))
        if run is None:
            if now - attempt.since > timedelta(minutes=LOST_MINUTES):
                yield from _requeued(context, client, attempt)
        elif _over(context.instance, run, now):
            cause = f"Its run {run.run_id} ended as {run.status.value} before it began to load"
            if _give_up(context, client, attempt, cause, _ending(run)):
                yield attempt
    for attempt in started:
        if now - attempt.since < timedelta(seconds=SETTLE_SECONDS):
            continue
        run = by_id.get(attempt.run_id or "")
        if run is None:
            # Not in this Dagster, that is; a worker that beats may have its run in another one.
            cause = f"Orphaned: its run {attempt.run_id} is gone from Dagster, and there is no heartbeat"
            if _give_up(context, client, attempt, cause, "Failed", only_expired=True):
                yield attempt
        elif _over(context.instance, run, now):
            cause = (
                f"Orphaned: its run {run.run_id} ended as {run.status.value} and the worker wrote no outcome"
            )
            if _give_up(context, client, attempt, cause, _ending(run)):
                yield attempt


def _requeued(
    context: dg.SensorEvaluationContext, client: LakebaseClient, attempt: Attempt
) -> Iterator[Attempt]:
    reason = f"No run was created for it within {LOST_MINUTES} minutes"
    try:
        again = client.requeue(attempt.config_id, attempt.attempt, reason)
    except QuaysideError as error:
        context.log.info(f"{attempt.destination} is left alone: {error}")
        return
    context.log.warning(
        f"{attempt.destination} {'waits to be claimed again' if again else 'failed'}: {reason}."
    )
    yield attempt


def _give_up(
    context: dg.SensorEvaluationContext,
    client: LakebaseClient,
    attempt: Attempt,
    message: str,
    outcome: Outcome,
    *,
    only_expired: bool = False,
) -> bool:
    """Close an attempt; False when it has ended or gone on meanwhile."""
    try:
        client.give_up(attempt.config_id, attempt.attempt, message, outcome, only_expired=only_expired)
    except FencedError as error:
        context.log.info(f"{attempt.destination} is left alone: {error}")
        return False
    context.log.warning(f"{attempt.destination}, attempt {attempt.attempt}: {message}.")
    return True


def _cancel_empty(
    context: dg.SensorEvaluationContext, client: LakebaseClient, runs: Iterable[dg.DagsterRun]
) -> None:
    """Cancel the runs that have nothing left to load. In a batch the worker ends the table alone, at its next heartbeat."""
    alive = {(a.config_id, a.attempt) for a in client.running()}
    for run in {run.run_id: run for run in runs}.values():
        if run.is_finished or alive.intersection(attempts_of(run)):
            continue
        try:
            context.instance.run_coordinator.cancel_run(run.run_id)
            context.log.warning(f"Run {run.run_id} was cancelled.")
        except Exception as error:  # noqa: BLE001 - the row is closed; a run that cannot be cancelled must not keep the others
            context.log.warning(f"Run {run.run_id} could not be cancelled: {error}")


def _runs(instance: dg.DagsterInstance, run_ids: Sequence[str]) -> dict[str, dg.DagsterRun]:
    if not run_ids:
        return {}
    return {run.run_id: run for run in instance.get_runs(dg.RunsFilter(run_ids=list(run_ids)))}


def _over(instance: dg.DagsterInstance, run: dg.DagsterRun, now: datetime) -> bool:
    """Whether a run ended long enough ago for its worker to have written what it had to."""
    if run.status in UNFINISHED:
        return False
    record = instance.get_run_record_by_id(run.run_id)
    return record is None or now.timestamp() - (record.end_time or 0) > SETTLE_SECONDS


def _ending(run: dg.DagsterRun) -> Outcome:
    return "Cancelled" if run.status == dg.DagsterRunStatus.CANCELED else "Failed"


def _lost(attempt: Attempt) -> str:
    return f"Worker lost: no heartbeat, its lease ran out at {attempt.lease_expires_at:%Y-%m-%d %H:%M:%S} UTC"


def _said(
    context: dg.SensorEvaluationContext, closed: Sequence[Attempt], what: str, more: str = ""
) -> dg.SkipReason:
    if not closed:
        return dg.SkipReason(f"No table {what}{more}.")
    return dg.SkipReason(
        f"{len(closed)} tables: each {what}{more} ({', '.join(a.destination for a in closed[:10])})."
    )
