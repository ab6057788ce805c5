"""The weekly health check: red findings fail the run and alert, with the ids of what offends."""

import dagster as dg

from quayside.robosystems.dagster.jobs.billing import DB, OWNER, RETRY, books
from quayside.robosystems.dagster.resources import DatabaseResource
from quayside.robosystems.periods import utc_now


@dg.op(retry_policy=RETRY)
def check_credit_health(context: dg.OpExecutionContext, db: DatabaseResource) -> int:
    """Run every check of `quayside.robosystems.health`; how many found something yellow."""
    from quayside.foundation import alerts
    from quayside.robosystems.health import check_health

    with books(context, db) as con:
        findings = check_health(con, utc_now())
    red = [f for f in findings if f.count and f.check.severity == "red"]
    yellow = [f for f in findings if f.count and f.check.severity == "yellow"]
    lines = ["| check | severity | found | which |", "| --- | --- | --- | --- |"]
    for found in findings:
        which = "; ".join(f"{who} {what}".strip() for who, what in found.offenders[:10]).replace("|", "\\|")
        lines.append(f"| {found.check.name} | {found.check.severity} | {found.count} | {which} |")
    metadata = {
        "red": len(red),
        "yellow": len(yellow),
        "checks": dg.MetadataValue.md("\n".join(lines)),
    }
    if red:
        said = "\n".join(found.sentence for found in red)
        settings = db.settings()
        alerts.send(
            settings,
            alerts.Alert(
                severity="critical",
                title=f"Credit health: {', '.join(found.check.name for found in red)}",
                body=said,
                source="robosystems:check_credit_health",
                fingerprint="credit_health:" + ",".join(found.check.name for found in red),
                link=f"{settings.dagster_webserver_url.rstrip('/')}/runs/{context.run_id}",
                run_id=context.run_id,
            ),
        )
        raise dg.Failure(description=said, metadata=metadata, allow_retries=False)
    for found in yellow:
        context.log.warning(found.sentence)
    context.add_output_metadata(metadata)
    return len(yellow)


@dg.job(
    resource_defs=DB,
    tags=OWNER,
    description="Every week: do the books balance, is anything overdue, stuck or missing?",
)
def weekly_health_check_job() -> None:
    """See its description."""
    check_credit_health()
