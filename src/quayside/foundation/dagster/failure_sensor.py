"""The one run-failure sensor of the platform: it watches every code location and sends an alert.

The first failure of a kind goes out at once, repeats are folded (see `quayside.foundation.alerts`). A kind is a job, a
step and an error, whatever ids and numbers its text holds.
"""

import re
from collections.abc import Iterator, Sequence

import dagster as dg
from dagster_shared.error import SerializableErrorInfo

from quayside.foundation import alerts
from quayside.foundation.settings import Settings, load_settings

#: Run tag that says who looks after a job; without it the alert names nobody.
OWNER_TAG = "owner"
#: Errors named in one alert. A run in which a hundred steps failed is still one message.
MAX_CAUSES = 5


@dg.run_failure_sensor(
    name="run_failure_alert",
    description="Alerts on every failed run of every code location: cause, job, owner and a link to the run.",
    monitor_all_code_locations=True,
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=15,
)
def run_failure_alert(context: dg.RunFailureSensorContext) -> None:
    """See the module."""
    errors = [
        (event.step_key, event.step_failure_data.error)
        for event in context.get_step_failure_events()
        if event.step_failure_data.error is not None
    ]
    if not errors and context.failure_event.job_failure_data.error is not None:
        errors = [(None, context.failure_event.job_failure_data.error)]
    settings = load_settings()
    alerts.send(settings, failure_alert(settings, context.dagster_run, context.failure_event.message, errors))


def failure_alert(
    settings: Settings,
    run: dg.DagsterRun,
    message: str | None,
    errors: Sequence[tuple[str | None, SerializableErrorInfo]],
) -> alerts.Alert:
    """The alert for a failed run: ``errors`` are (step, error) as Dagster recorded them, ``message`` its own words."""
    causes = [(step, cause(error)) for step, error in errors]
    lines = [f"{step}: {text}" if step else text for step, text in causes[:MAX_CAUSES]]
    if len(causes) > MAX_CAUSES:
        lines.append(f"… and {len(causes) - MAX_CAUSES} more steps")
    if not lines:
        lines = [message or "Dagster recorded no error."]
    if owner := run.tags.get(OWNER_TAG):
        lines.append(f"Owner: {owner}")
    step, text = causes[0] if causes else (None, lines[0])
    return alerts.Alert(
        severity="critical",
        title=f"Job {run.job_name} failed",
        body="\n".join(lines),
        source=f"dagster:{_location(run)}",
        fingerprint=f"run_failure:{_location(run)}:{run.job_name}:{step or ''}:{_kind(text)}",
        link=f"{settings.dagster_webserver_url.rstrip('/')}/runs/{run.run_id}",
        run_id=run.run_id,
    )


def cause(error: SerializableErrorInfo) -> str:
    """What really happened: the innermost error's own text, without the layers Dagster wraps around it."""
    *_, innermost = _chain(error)
    first = innermost.message.strip().splitlines()
    # Dagster writes "module.Class: text"; the class is worth keeping, its path is not.
    return (
        re.sub(r"^(?:\w+\.)*(\w+): ", r"\1: ", first[0]) if first else innermost.cls_name or "unknown error"
    )


def _chain(error: SerializableErrorInfo) -> Iterator[SerializableErrorInfo]:
    current: SerializableErrorInfo | None = error
    while current is not None:
        yield current
        # An explicit cause; for Dagster's own wrappers also the context they were raised in.
        wrapper = (current.cls_name or "").startswith("Dagster")
        current = current.cause or (current.context if wrapper else None)


def _kind(text: str) -> str:
    """The error's text without what differs from one time to the next."""
    return re.sub(r"[0-9a-f]{8,}(?:-[0-9a-f]{4,})*|\d+|'[^']*'|\"[^\"]*\"", "#", text.lower())[:200]


def _location(run: dg.DagsterRun) -> str:
    origin = run.remote_job_origin
    return origin.location_name if origin is not None else "unknown"
