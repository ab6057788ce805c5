"""The jobs a reader imports, run for real: names, order, periods, dry runs, failures that fail, schedules."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import dagster as dg
import psycopg
import pytest
from tests.robosystems.books import GB, balances, snapshots, subscribe

from quayside.foundation.postgres import connect
from quayside.foundation.settings import Settings
from quayside.foundation.usage import UsageEvent, append
from quayside.robosystems.dagster.definitions import build_definitions
from quayside.robosystems.dagster.jobs.billing import (
    daily_storage_billing_job,
    hourly_usage_collection_job,
    monthly_credit_allocation_job,
    monthly_usage_report_job,
    period_of,
)
from quayside.robosystems.dagster.jobs.health import weekly_health_check_job
from quayside.robosystems.dagster.schedules import billing_status
from quayside.robosystems.ledger import Ledger
from quayside.robosystems.periods import month_of, previous_month, start_of, utc_now

pytestmark = pytest.mark.integration

Connection = psycopg.Connection[Any]


@pytest.fixture
def con(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    """Books that runs find through the environment, as runs do."""
    assert settings.database_url is not None
    monkeypatch.setenv("QUAYSIDE_HOME", str(settings.home))
    monkeypatch.setenv("QUAYSIDE_DATABASE_URL", settings.database_url.get_secret_value())
    with connect(settings, autocommit=True) as connection:
        yield connection


def metadata(result: dg.ExecuteInProcessResult, op: str) -> dict[str, Any]:
    (event,) = [e for e in result.get_step_success_events() if e.step_key == op] and [
        e for e in result.all_events if e.event_type_value == "STEP_OUTPUT" and e.step_key == op
    ]
    return {name: value.value for name, value in event.step_output_data.metadata.items()}


def config(op: str, **values: Any) -> dict[str, Any]:
    return {"ops": {op: {"config": values}}}


def test_the_monthly_job_invoices_then_allocates_then_expires(con: Connection):
    """Failures 1 and 19."""
    month = month_of(utc_now())
    before = start_of(previous_month(month))
    subscribe(con, "g", at=before, may_overdraw=True)
    ledger = Ledger(con)
    ledger.consume("g", 1000, key="debt", at=before + timedelta(days=3))
    subscribe(con, "h", at=before)
    ledger.grant("h", 7, key="lapsed", expires_at=before + timedelta(days=9), at=before)
    dry = monthly_credit_allocation_job.execute_in_process(
        run_config={
            "ops": {
                name: {"config": {"dry_run": True}}
                for name in ("process_overage_invoices", "allocate_monthly_credits", "expire_credits")
            }
        }
    )
    assert metadata(dry, "process_overage_invoices")["cents"] == 500
    assert balances(con)["graph:g"] == -1000
    for run in range(2):
        done = monthly_credit_allocation_job.execute_in_process()
        assert metadata(done, "allocate_monthly_credits")["allowances_written"] == (2 if run == 0 else 0)
        assert metadata(done, "process_overage_invoices")["invoices"] == (1 if run == 0 else 0)
    found = balances(con)
    assert (found["graph:g"], found["graph:h"], found["expired"]) == (8000, 8000, 7)
    runs = con.execute(
        "SELECT count(DISTINCT run_id), min(actor) FROM robosystems.transfers WHERE kind = 'allowance'"
    ).fetchone()
    assert runs is not None
    assert runs[0] == 1
    assert runs[1].startswith("dagster:run:")
    order = [node.name for node in monthly_credit_allocation_job.nodes_in_topological_order]
    assert order == ["process_overage_invoices", "allocate_monthly_credits", "expire_credits"]


def test_storage_is_billed_for_the_day_in_the_config(con: Connection):
    """Failure 14: the worked case, by the documented config, on every run."""
    account = subscribe(con, "g", at=datetime(2026, 1, 1, tzinfo=UTC))
    snapshots(con, account, datetime(2026, 1, 10, tzinfo=UTC), [15 * GB] * 24)
    for _ in range(2):
        done = daily_storage_billing_job.execute_in_process(
            run_config=config("bill_storage_credits", target_date="2026-01-10")
        )
        assert Decimal(done.output_for_node("bill_storage_credits")) == 5
    assert balances(con)["graph:g"] == -5
    done = daily_storage_billing_job.execute_in_process()
    yesterday = utc_now().date() - timedelta(days=1)
    assert metadata(done, "bill_storage_credits")["days"] == f"{yesterday} to {yesterday}"


def test_usage_is_collected_and_events_are_charged(con: Connection):
    subscribe(con, "g", at=utc_now() - timedelta(days=2))
    append(con, [UsageEvent("e", "kycc", "kycc.party_scored", 30, "g", utc_now())])
    hour = (utc_now() - timedelta(hours=5)).replace(minute=0, second=0, microsecond=0)
    done = hourly_usage_collection_job.execute_in_process(
        run_config=config("collect_graph_usage", target_hour=hour.isoformat())
    )
    found = metadata(done, "collect_graph_usage")
    # There is no database of this graph, which is a fact worth recording, and not a size of 0.
    assert (found["graphs"], found["measured"], found["unmeasured"], found["events_charged"]) == (1, 0, 1, 1)
    row = con.execute(
        "SELECT hour, total_bytes FROM robosystems.usage_snapshots WHERE problem IS NOT NULL"
    ).fetchone()
    assert row == (hour, None)
    assert balances(con)["graph:g"] == -3


def test_the_report_is_stored_and_shown(con: Connection, settings: Settings):
    subscribe(con, "g", at=datetime(2026, 1, 1, tzinfo=UTC))
    Ledger(con).grant("g", 5, key="g", at=datetime(2026, 1, 4, tzinfo=UTC))
    done = monthly_usage_report_job.execute_in_process(
        run_config=config("generate_usage_report", year=2026, month=1)
    )
    found = metadata(done, "generate_usage_report")
    assert (found["graphs"], found["total_closing"]) == (1, "5.000000")
    assert "| g | 0 |" in found["report"]
    assert "data:image/svg+xml;base64," in found["charts"]
    assert (settings.home / "objects" / found["object_key"]).is_file()


def test_health_fails_the_run_and_alerts_with_the_ids(con: Connection):
    """Failure 42."""
    assert weekly_health_check_job.execute_in_process().success
    subscribe(con, "overdue", at=utc_now() - timedelta(days=70))
    done = weekly_health_check_job.execute_in_process(raise_on_error=False)
    overdue = start_of(month_of(utc_now())) < utc_now() - timedelta(days=1)  # not on the first of a month
    assert done.success is not overdue
    if overdue:
        body = con.execute("SELECT body FROM ops.alerts WHERE title LIKE 'Credit health%'").fetchone()
        assert body is not None
        assert "sub-overdue" in body[0]


@pytest.mark.parametrize(
    ("job", "run_config", "said"),
    [
        (
            daily_storage_billing_job,
            config("bill_storage_credits", target_date="10.1.2026"),
            "write YYYY-MM-DD",
        ),
        (monthly_usage_report_job, config("generate_usage_report", year=2026), "Give year and month"),
        (hourly_usage_collection_job, config("collect_graph_usage", target_hour="noon"), "is not an hour"),
    ],
)
def test_a_failure_fails_the_run_in_one_sentence(
    con: Connection, job: Any, run_config: dict[str, Any], said: str
):
    """Failure 44."""
    done = job.execute_in_process(run_config=run_config, raise_on_error=False)
    assert not done.success
    (failure,) = [e for e in done.all_events if e.event_type_value == "STEP_FAILURE"]
    assert said in str(failure.step_failure_data.error)


@pytest.mark.parametrize(
    ("job", "at", "expected"),
    [
        ("monthly_credit_allocation_job", datetime(2026, 3, 1, tzinfo=UTC), {"target_month": "2026-03"}),
        ("daily_storage_billing_job", datetime(2026, 3, 1, 2, tzinfo=UTC), {"target_date": "2026-02-28"}),
        (
            "hourly_usage_collection_job",
            datetime(2026, 3, 1, 0, 5, tzinfo=UTC),
            {"target_hour": "2026-03-01T00:00:00+00:00"},
        ),
        ("monthly_usage_report_job", datetime(2026, 1, 2, 6, tzinfo=UTC), {"year": 2025, "month": 12}),
    ],
)
def test_a_scheduled_run_has_the_period_of_its_moment(job: str, at: datetime, expected: dict[str, Any]):
    (op,) = period_of(job, at)["ops"].values()
    assert op["config"] == expected


def test_schedules(monkeypatch: pytest.MonkeyPatch):
    defs = build_definitions()
    found = {
        s.job_name: (s.cron_schedule, s.execution_timezone, s.default_status.value)
        for s in defs.schedules or []
    }
    assert found == {
        "monthly_credit_allocation_job": ("0 0 1 * *", "UTC", "STOPPED"),
        "daily_storage_billing_job": ("0 2 * * *", "UTC", "STOPPED"),
        "hourly_usage_collection_job": ("5 * * * *", "UTC", "RUNNING"),
        "monthly_usage_report_job": ("0 6 2 * *", "UTC", "STOPPED"),
        "hourly_auth_cleanup_job": ("0 * * * *", "UTC", "RUNNING"),
        "weekly_health_check_job": ("0 3 * * 1", "UTC", "RUNNING"),
    }
    assert billing_status() is dg.DefaultScheduleStatus.STOPPED
    monkeypatch.setenv("BILLING_SCHEDULES_ENABLED", "true")
    assert billing_status() is dg.DefaultScheduleStatus.RUNNING
