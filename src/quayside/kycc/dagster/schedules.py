"""When KYCC's work starts by the clock, in UTC. Both ship STOPPED; ``quayside up --automate`` switches them on."""

import dagster as dg

from quayside.foundation.settings import load_settings
from quayside.kycc.dagster.jobs import FULL_SCORING_JOB, ML_TRAINING_JOB, create_run_request
from quayside.kycc.dagster.partitions import BATCHES_NAME, incoming_folder

#: Labelled parties the weekly training needs.
WEEKLY_MIN_SAMPLES = 500


@dg.schedule(
    job=FULL_SCORING_JOB,
    cron_schedule="0 2 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Scores the batch DAILY_BATCH_ID from the file of that name in data/incoming.",
)
def daily_scoring_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """See its description."""
    batch_id = load_settings().daily_batch_id
    if batch_id is None:
        return dg.SkipReason("DAILY_BATCH_ID is not set: it names the batch to score.")
    path = incoming_folder() / f"{batch_id}.json"
    if not path.is_file():
        return dg.SkipReason(f"{path} is not there: put the file of batch {batch_id} in it.")
    context.instance.add_dynamic_partitions(BATCHES_NAME, [batch_id])
    return create_run_request(batch_id, path, partition_key=batch_id)


@dg.schedule(
    job=ML_TRAINING_JOB,
    cron_schedule="0 3 * * 0",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description=f"Trains on all labelled batches and makes a draft scorecard, from {WEEKLY_MIN_SAMPLES} parties on.",
)
def weekly_ml_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """See its description. Without a partition, so that the last batch that has features is labelled."""
    config = {"ops": {"train_model_asset": {"config": {"min_samples": WEEKLY_MIN_SAMPLES}}}}
    return dg.RunRequest(run_config=config)
