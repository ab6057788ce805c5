"""What starts KYCC's work by itself: files that arrive, and scores that are low. Both ship STOPPED; ``quayside up
--automate`` switches them on."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from quayside.foundation.errors import QuaysideError
from quayside.kycc.dagster.incoming import Arrival, Cursor, look
from quayside.kycc.dagster.jobs import FULL_SCORING_JOB, ML_TRAINING_JOB, alert_job, create_run_request
from quayside.kycc.dagster.partitions import BATCH_TAG, BATCHES, incoming_folder

#: A mean below this over the last hour is worth an alert.
LOW_SCORE = 500
#: Runs of one batch that are looked at to tell a file that came back from one that is the same as last time.
_RUNS_REMEMBERED = 100


def new_data_sensor_of(folder: Callable[[], Path]) -> dg.SensorDefinition:
    """`new_data_sensor` on a folder; see `quayside.kycc.dagster.incoming` for what counts as a complete new file."""

    @dg.sensor(
        name="new_data_sensor",
        jobs=[FULL_SCORING_JOB, ML_TRAINING_JOB],
        minimum_interval_seconds=15,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Scores each batch whose file arrives in data/incoming, and learns from each <batch>_outcomes.json.",
    )
    def new_data_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        instance = context.instance

        def busy(batch_id: str) -> bool:
            unfinished = dg.RunsFilter(tags={BATCH_TAG: batch_id}, statuses=_UNFINISHED)
            return instance.get_runs_count(unfinished) > 0

        place, now = folder(), datetime.now(UTC)
        try:
            found = look(place, Cursor.parse(context.cursor), int(now.timestamp() * 1e9), busy)
        except QuaysideError as error:
            return dg.SensorResult(skip_reason=str(error), cursor=context.cursor)
        batches = sorted({a.file.batch_id for a in found.arrivals if _is_batch_id(a.file.batch_id)})
        requests = [_request(instance, arrival) for arrival in found.arrivals]
        return dg.SensorResult(
            run_requests=requests,
            cursor=found.cursor.to_json(),
            dynamic_partitions_requests=[BATCHES.build_add_request(batches)] if batches else None,
            skip_reason=None
            if requests
            else f"Nothing new in {place} (JSON files: {found.files}, not complete yet: {found.left}).",
        )

    return new_data_sensor


new_data_sensor = new_data_sensor_of(incoming_folder)

_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def _request(instance: dg.DagsterInstance, arrival: Arrival) -> dg.RunRequest:
    file = arrival.file
    batch_id, key = file.batch_id, _run_key(instance, arrival)
    # A name that can be no batch's gets a run too: it fails with the sentence that says why.
    partition = batch_id if _is_batch_id(batch_id) else None
    if not file.has_outcomes:
        return create_run_request(
            batch_id,
            file.path,
            outcomes_path=arrival.outcomes.file.path if arrival.outcomes else None,
            run_key=key,
            partition_key=partition,
        )
    labels = {"config": {"batch_id": batch_id, "outcomes_path": str(file.path)}}
    return dg.RunRequest(
        run_key=key,
        job_name=ML_TRAINING_JOB.name,
        run_config={"ops": {"generate_scorecard_labels": labels}},
        tags={BATCH_TAG: batch_id},
        partition_key=partition,
    )


def _run_key(instance: dg.DagsterInstance, arrival: Arrival) -> str:
    """Name and content; content that comes back after another gets a number, since a run key is remembered for ever."""
    key = f"{arrival.file.stem}:{arrival.key}"
    of_batch = dg.RunsFilter(tags={BATCH_TAG: arrival.file.batch_id})
    keys = [
        found
        for run in instance.get_runs(of_batch, limit=_RUNS_REMEMBERED)
        if (found := run.tags.get("dagster/run_key", "")).startswith(f"{arrival.file.stem}:")
    ]
    same = [found for found in keys if found == key or found.startswith(f"{key}:")]
    if not same or same[0] == keys[0]:
        return same[0] if same else key
    return f"{key}:{len(same) + 1}"


def _is_batch_id(name: str) -> bool:
    from quayside.foundation.errors import InputError
    from quayside.kycc.ingest.batch_ids import check

    try:
        check(name, "The name")
    except InputError:
        return False
    return True


@dg.sensor(
    job=alert_job,
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.STOPPED,
    description=f"Alerts when the mean score of the last hour is below {LOW_SCORE}, once an hour.",
)
def low_score_sensor(
    context: dg.SensorEvaluationContext, database: dg.ResourceParam[Any]
) -> dg.RunRequest | dg.SkipReason:
    """See its description."""
    from sqlalchemy import func, select

    from quayside.kycc.models import ScoreRequest

    now = datetime.now(UTC)
    mean, scores = database.execute(
        select(func.avg(ScoreRequest.total_score), func.count()).where(
            ScoreRequest.created_at > now - timedelta(hours=1), ScoreRequest.created_at <= now
        )
    ).one()
    if not scores:
        return dg.SkipReason("Nothing was scored in the last hour.")
    if mean >= LOW_SCORE:
        return dg.SkipReason(f"The mean of the {scores:,} scores of the last hour is {mean:.0f}.")
    alert = {"message": f"Low average score: {mean:.0f}", "severity": "warning"}
    return dg.RunRequest(
        run_key=f"low_score_alert_{now:%Y%m%d%H}",
        run_config={"ops": {"send_alert": {"config": alert}}},
    )
