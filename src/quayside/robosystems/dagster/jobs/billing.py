"""The jobs of billing and usage. Each op reads its period from config, calls one function of the domain, and reports.

A period left out is the last one that is over. Everything can be run again, for any period: what is in the books stays as it is.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from quayside.foundation.dagster.steps import domain_call
from quayside.robosystems.dagster.resources import DatabaseResource, GraphResource, S3Resource
from quayside.robosystems.periods import month_of, parse_day, parse_hour, parse_month, previous_month, utc_now

if TYPE_CHECKING:
    import psycopg

#: Who looks after these jobs; alerts name it.
OWNER = {"owner": "team:billing"}
#: A lost connection or a busy server; what is wrong for good is not tried again (`domain_call`).
RETRY = dg.RetryPolicy(max_retries=2, delay=10)

#: Bound to the jobs themselves, so that what a reader imports can be executed.
DB = {"db": DatabaseResource()}
DB_S3 = {**DB, "s3": S3Resource()}
DB_S3_GRAPH = {**DB_S3, "graph": GraphResource()}

DRY_RUN = "Say what would be written, and write nothing."


class MonthConfig(dg.Config):
    """Config of the ops of ``monthly_credit_allocation_job``."""

    target_month: str | None = Field(
        None, description="YYYY-MM whose allowance is given. Left out: this month, UTC."
    )
    until_month: str | None = Field(None, description="Last month of a range that begins with target_month.")
    dry_run: bool = Field(False, description=DRY_RUN)


class ExpiryConfig(dg.Config):
    """Config of ``expire_credits``."""

    dry_run: bool = Field(False, description=DRY_RUN)


class StorageConfig(dg.Config):
    """Config of ``bill_storage_credits``."""

    target_date: str | None = Field(None, description="YYYY-MM-DD to bill. Left out: yesterday, UTC.")
    until_date: str | None = Field(None, description="Last day of a range that begins with target_date.")
    dry_run: bool = Field(False, description=DRY_RUN)


class HourConfig(dg.Config):
    """Config of ``collect_graph_usage``."""

    target_hour: str | None = Field(
        None, description="YYYY-MM-DDTHH:00, UTC, to collect. Left out: this hour."
    )
    dry_run: bool = Field(False, description=DRY_RUN)


class ReportConfig(dg.Config):
    """Config of ``generate_usage_report``."""

    year: int | None = Field(None, description="Left out, as month: last month.", ge=2000, le=9999)
    month: int | None = Field(None, ge=1, le=12)


@contextmanager
def books(context: dg.OpExecutionContext, db: DatabaseResource) -> Iterator["psycopg.Connection[Any]"]:
    """An autocommit connection to the books, for functions that cut their work into transactions themselves."""
    with domain_call(context), db.connection() as con:
        con.autocommit = True
        yield con


def _months(config: MonthConfig) -> tuple[date, date]:
    first = parse_month(config.target_month) if config.target_month else month_of(utc_now())
    return first, parse_month(config.until_month) if config.until_month else first


@dg.op(retry_policy=RETRY)
def process_overage_invoices(
    context: dg.OpExecutionContext, config: MonthConfig, db: DatabaseResource
) -> list[str]:
    """Invoice what customers owe for the month before, debts of graphs and prices of plans; hand on which months are to be allocated."""
    from quayside.robosystems.billing import bill_month

    with books(context, db) as con:
        first, last = _months(config)
        done = bill_month(
            con,
            previous_month(last),
            since=previous_month(previous_month(first)),
            run_id=context.run_id,
            dry_run=config.dry_run,
        )
    context.add_output_metadata(
        {
            "month": f"{done.month:%Y-%m}",
            "graphs": done.graphs,
            "credits_cleared": str(done.credits),
            "cents": done.overage_cents,
            "fees": done.fees,
            "fee_cents": done.fee_cents,
            "invoices": done.invoices,
            "dry_run": done.dry_run,
        }
    )
    return [f"{first:%Y-%m}", f"{last:%Y-%m}"]


@dg.op(retry_policy=RETRY)
def allocate_monthly_credits(
    context: dg.OpExecutionContext, config: MonthConfig, db: DatabaseResource, months: list[str]
) -> str:
    """Give every active subscription its credits for the month. Its own config wins over the month of the op before."""
    from quayside.robosystems.billing import allocate, apply_upgrades

    with books(context, db) as con:
        first, last = _months(config) if config.target_month else map(parse_month, months)
        done = allocate(con, first, last, run_id=context.run_id, dry_run=config.dry_run)
        if not config.dry_run:
            apply_upgrades(con, run_id=context.run_id)
    context.add_output_metadata(
        {
            "months": f"{done.first:%Y-%m} to {done.last:%Y-%m}",
            "graphs": done.graphs,
            "allowances_written": done.allowances_written,
            "credits_written": str(done.credits_written),
            "dry_run": done.dry_run,
        }
    )
    return str(done.credits_written)


@dg.op(retry_policy=RETRY)
def expire_credits(
    context: dg.OpExecutionContext, config: ExpiryConfig, db: DatabaseResource, allocated: str
) -> str:
    """Let lapsed grants expire, and carry over what the plan allows."""
    from quayside.robosystems import billing

    del allocated  # only the order matters
    with books(context, db) as con:
        done = billing.expire_credits(con, run_id=context.run_id, dry_run=config.dry_run)
    context.add_output_metadata(
        {
            "graphs": done.graphs,
            "credits_expired": str(done.expired),
            "credits_rolled_over": str(done.rolled_over),
            "reservations_timed_out": done.reservations,
            "dry_run": done.dry_run,
        }
    )
    return str(done.expired)


@dg.job(
    resource_defs=DB,
    tags=OWNER,
    description="On the first of a month: invoice debts and plans, give allowances, let credits expire.",
)
def monthly_credit_allocation_job() -> None:
    """See its description."""
    expire_credits(allocate_monthly_credits(process_overage_invoices()))


@dg.op(retry_policy=RETRY)
def bill_storage_credits(context: dg.OpExecutionContext, config: StorageConfig, db: DatabaseResource) -> str:
    """Bill the storage of a day above what plans include; the credits that are in the books for it."""
    from quayside.robosystems.billing import bill_storage

    with books(context, db) as con:
        yesterday = utc_now().date() - timedelta(days=1)
        first = parse_day(config.target_date) if config.target_date else yesterday
        last = parse_day(config.until_date) if config.until_date else first
        done = bill_storage(con, first, last, run_id=context.run_id, dry_run=config.dry_run)
    context.add_output_metadata(
        {
            "days": f"{done.first} to {done.last}",
            "graph_days_billed": done.graph_days,
            "credits": str(done.credits),
            "graph_days_written": done.graph_days_written,
            "credits_written": str(done.credits_written),
            "dry_run": done.dry_run,
        }
    )
    return str(done.credits)


@dg.job(
    resource_defs=DB,
    tags=OWNER,
    description="Every day: bill yesterday's storage, or that of the day or range in the config.",
)
def daily_storage_billing_job() -> None:
    """See its description."""
    bill_storage_credits()


@dg.op(retry_policy=RETRY)
def collect_graph_usage(
    context: dg.OpExecutionContext,
    config: HourConfig,
    db: DatabaseResource,
    s3: S3Resource,
    graph: GraphResource,
) -> int:
    """Measure every subscribed graph, and charge the usage events that other systems have appended; graphs measured."""
    from quayside.robosystems.graphs.sizes import StoredSizes
    from quayside.robosystems.usage import collect, meter

    now = utc_now()
    with books(context, db) as con:
        hour = (
            parse_hour(config.target_hour)
            if config.target_hour
            else now.replace(minute=0, second=0, microsecond=0)
        )
        reader = StoredSizes(con, graph.store(), s3.store())
        done = collect(con, hour, reader, run_id=context.run_id, dry_run=config.dry_run)
        metered = meter(con, run_id=context.run_id, dry_run=config.dry_run)
    for graph_id, problem in done.problems.items():
        context.log.warning(f"Graph {graph_id} was not measured: {problem}")
    context.add_output_metadata(
        {
            "hour": done.hour.isoformat(),
            "graphs": done.graphs,
            "measured": done.measured,
            "unmeasured": done.unmeasured,
            "events_charged": metered.events,
            "events_held": metered.held,
            "credits_for_events": str(metered.credits),
            "dry_run": done.dry_run,
        }
    )
    return done.measured


@dg.job(resource_defs=DB_S3_GRAPH, tags=OWNER, description="Every hour: measure graphs, charge usage events.")
def hourly_usage_collection_job() -> None:
    """See its description."""
    collect_graph_usage()


@dg.op(retry_policy=RETRY)
def generate_usage_report(
    context: dg.OpExecutionContext, config: ReportConfig, db: DatabaseResource, s3: S3Resource
) -> str:
    """Store the report of a month as Parquet and show it on the run; the URL of the file."""
    from quayside.foundation.errors import UsageError
    from quayside.robosystems.dagster.report_metadata import report_metadata
    from quayside.robosystems.reports import store, usage_report

    with books(context, db) as con:
        if (config.year is None) != (config.month is None):
            raise UsageError("Give year and month, or neither for last month.")
        month = (
            previous_month(month_of(utc_now()))
            if config.year is None or config.month is None
            else date(config.year, config.month, 1)
        )
        report = usage_report(con, month, now=utc_now())
        stored = store(con, report, s3.upload_file, run_id=context.run_id)
    context.add_output_metadata(report_metadata(stored))
    return stored.url


@dg.job(
    resource_defs=DB_S3,
    tags=OWNER,
    description="On the second of a month: the usage report of the month before.",
)
def monthly_usage_report_job() -> None:
    """See its description."""
    generate_usage_report()


def period_of(job_name: str, scheduled: datetime) -> dict[str, Any]:
    """Run config of a job for the moment it was scheduled at, so that a run that starts late still does its own period."""
    if job_name == "monthly_credit_allocation_job":
        month = f"{scheduled:%Y-%m}"
        return {"ops": {"process_overage_invoices": {"config": {"target_month": month}}}}
    if job_name == "daily_storage_billing_job":
        day = str(scheduled.date() - timedelta(days=1))
        return {"ops": {"bill_storage_credits": {"config": {"target_date": day}}}}
    if job_name == "hourly_usage_collection_job":
        hour = scheduled.replace(minute=0, second=0, microsecond=0).isoformat()
        return {"ops": {"collect_graph_usage": {"config": {"target_hour": hour}}}}
    if job_name == "monthly_usage_report_job":
        last = previous_month(month_of(scheduled))
        return {"ops": {"generate_usage_report": {"config": {"year": last.year, "month": last.month}}}}
    return {}


BILLING_JOBS = [
    monthly_credit_allocation_job,
    daily_storage_billing_job,
    hourly_usage_collection_job,
    monthly_usage_report_job,
]
