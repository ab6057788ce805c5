"""Snapshots, gaps and metering."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from tests.robosystems.books import GB, START, FixedSizes, balances, change_plan, move, problems, subscribe

from quayside.foundation.errors import UsageError
from quayside.foundation.postgres import connect
from quayside.foundation.settings import Settings
from quayside.foundation.usage import UsageEvent, append
from quayside.robosystems.billing import work
from quayside.robosystems.plans import set_price
from quayside.robosystems.usage import Sizes, assign_subject, collect, gaps, meter, snapshots

pytestmark = pytest.mark.integration

Connection = psycopg.Connection[Any]
HOUR = datetime(2026, 1, 5, 7, tzinfo=UTC)


def event(
    number: int | str,
    subject: str = "g",
    quantity: int = 10,
    kind: str = "kycc.party_scored",
    at: datetime = HOUR,
):
    return UsageEvent(f"e{number}", "kycc", kind, quantity, subject, at)


def rows(con: Connection) -> list[tuple[Any, ...]]:
    return con.execute(
        "SELECT a.graph_id, s.total_bytes, s.plan, s.included_gb, s.problem FROM robosystems.usage_snapshots AS s"
        " JOIN robosystems.accounts AS a ON a.id = s.account_id ORDER BY 1"
    ).fetchall()


def test_a_graph_is_measured_once_an_hour_and_never_as_nothing(con: Connection):
    """Failures 24 and 31."""
    for graph in ("g", "h"):
        subscribe(con, graph)
    first = collect(con, HOUR, FixedSizes({"g": 3}), at=HOUR)
    assert (first.measured, first.unmeasured, first.problems) == (1, 1, {"h": "the database does not answer"})
    again = collect(con, HOUR, FixedSizes({"g": 99, "h": 7}), at=HOUR)
    assert (again.graphs, again.measured) == (1, 1)
    assert rows(con) == [("g", 3, "standard", 10, None), ("h", 7, "standard", 10, None)]


def test_a_graph_the_reader_forgets_is_not_measured(con: Connection):
    class Forgetful:
        def read(self, graph_ids: object) -> list[Sizes]:
            return []

    subscribe(con, "g")
    assert collect(con, HOUR, Forgetful(), at=HOUR).unmeasured == 1
    with pytest.raises(ValueError, match="all four parts"):
        Sizes("g", 1, 2, 3)


def test_graphs_are_read_in_batches_and_not_one_by_one(con: Connection, monkeypatch: pytest.MonkeyPatch):
    """Failure 49."""
    asked: list[list[str]] = []

    class Counting:
        def read(self, graph_ids: Sequence[str]) -> list[Sizes]:
            asked.append(list(graph_ids))
            return [Sizes(graph_id, 1, 0, 0, 0) for graph_id in graph_ids]

    for number in range(7):
        subscribe(con, f"g{number}")
    monkeypatch.setattr(snapshots, "BATCH", 3)
    assert collect(con, HOUR, Counting(), at=HOUR).measured == 7
    assert [len(graphs) for graphs in asked] == [3, 3, 1]


def test_a_snapshot_has_the_plan_of_its_hour_and_only_living_graphs_have_one(con: Connection):
    for graph in ("ended", "late", "moved"):
        subscribe(con, graph, at=HOUR + timedelta(days=9) if graph == "late" else START)
    change_plan(con, "moved", "large", HOUR + timedelta(hours=1))
    for state in ("canceled", "ended"):
        move(con, "ended", state, HOUR - timedelta(hours=2))
    collect(con, HOUR, FixedSizes({"moved": 1}), at=HOUR + timedelta(days=1))
    collect(con, HOUR + timedelta(hours=1), FixedSizes({"moved": 2}), at=HOUR + timedelta(days=1))
    assert rows(con) == [("moved", 1, "standard", 10, None), ("moved", 2, "large", 50, None)]


def test_hours_that_are_none_are_refused_and_a_dry_run_writes_nothing(con: Connection):
    subscribe(con, "g")
    with pytest.raises(UsageError, match="first moment"):
        collect(con, HOUR + timedelta(minutes=5), FixedSizes({}), at=HOUR)
    with pytest.raises(UsageError, match="has not begun"):
        collect(con, HOUR, FixedSizes({}), at=HOUR - timedelta(hours=1))
    assert collect(con, HOUR, FixedSizes({"g": GB}), at=HOUR, dry_run=True).measured == 1
    assert rows(con) == []


def test_gaps_are_listed(con: Connection):
    subscribe(con, "g", at=HOUR - timedelta(hours=1))
    subscribe(con, "h", at=HOUR + timedelta(days=40))
    for ago, sizes in ((0, {"g": 1}), (1, {})):
        collect(con, HOUR + timedelta(hours=ago), FixedSizes(sizes), at=HOUR + timedelta(hours=5))
    found = gaps(con, HOUR.date(), HOUR.date(), until=HOUR + timedelta(hours=4))
    assert [(gap.graph_id, gap.since.hour, gap.until.hour, gap.hours, gap.reason) for gap in found] == [
        ("g", 6, 7, 1, "no snapshot was taken"),
        ("g", 8, 9, 1, "the database does not answer"),
        ("g", 9, 11, 2, "no snapshot was taken"),
    ]


def test_events_are_charged_once_at_the_price_of_their_time(con: Connection):
    subscribe(con, "g")
    append(con, [event(n) for n in range(25)] + [event(3)])
    first = meter(con, at=HOUR, batch=10)
    assert (first.events, first.held, first.transfers, first.credits) == (25, 0, 3, 25)
    assert meter(con, at=HOUR, batch=10).events == 0
    append(con, [event(n) for n in range(30)])  # five new ones among repeated ones
    con.execute(
        "INSERT INTO robosystems.prices (code, effective_from, value, created_by)"
        " VALUES ('event.kycc.party_scored', %s, 5, 't')",
        [HOUR + timedelta(days=1)],
    )
    append(con, [event("late", at=HOUR - timedelta(days=40)), event("dear", at=HOUR + timedelta(days=2))])
    second = meter(con, at=HOUR + timedelta(days=2))
    assert (second.events, second.credits) == (7, 5 + 1 + 50)
    assert balances(con)["graph:g"] == -81
    periods = con.execute("SELECT DISTINCT period FROM robosystems.transfers ORDER BY 1").fetchall()
    assert periods == [(date(2025, 11, 26),), (date(2026, 1, 5),), (date(2026, 1, 7),)]
    assert problems(con) == []


def test_accounts_are_charged_some_at_a_time_and_every_event_once(
    con: Connection, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(work, "CHUNK", 2)
    for graph in ("g", "h", "i", "j", "k"):
        subscribe(con, graph, may_overdraw=True)
    append(con, [event(number, "ghijk"[number % 5]) for number in range(23)] + [event("late", "x")])
    done = meter(con, at=HOUR + timedelta(hours=1), batch=10)
    assert (done.events, done.held, done.credits) == (23, 1, 23)
    assert done.transfers == con.execute("SELECT count(*) FROM robosystems.transfers").fetchone()[0]  # pyright: ignore[reportOptionalSubscript]
    assert meter(con, at=HOUR + timedelta(hours=2)).transfers == 0
    charged = con.execute(
        "SELECT (metadata ->> 'batch')::int, count(*), sum((metadata ->> 'events')::int) FROM robosystems.transfers"
        " GROUP BY 1 ORDER BY 1"
    ).fetchall()
    assert [row[2] for row in charged] == [10, 10, 3]
    assert all(row[1] <= 5 for row in charged)
    assert problems(con) == []


def test_what_has_no_account_or_price_is_held_until_it_has(con: Connection):
    subscribe(con, "g")
    append(con, [event(1, "desk"), event(2, kind="new.thing")])
    assert (meter(con, at=HOUR).held, meter(con, at=HOUR).held) == (2, 0)
    assign_subject(con, "desk", "g")
    con.execute(
        "INSERT INTO robosystems.prices (code, effective_from, value, created_by) VALUES ('event.new.thing', %s, 2, 't')",
        [START],
    )
    assert meter(con, at=HOUR, dry_run=True).credits == 21
    assert (meter(con, at=HOUR).credits, meter(con, at=HOUR).events) == (21, 0)


def test_a_price_of_nothing_charges_nothing_and_is_metered(con: Connection):
    subscribe(con, "g")
    set_price(con, "event.free.thing", Decimal(0))
    append(con, [event(1, kind="free.thing", at=datetime.now(UTC))])
    done = meter(con)
    assert (done.events, done.transfers, done.held) == (1, 0, 0)


def test_an_event_of_a_transaction_that_was_open_for_long_is_not_missed(settings: Settings):
    """It carries an earlier time than events that were metered before it was committed."""
    with connect(settings) as slow, connect(settings, autocommit=True) as con:
        subscribe(con, "g")
        append(slow, [event("slow")])
        slow.execute("UPDATE usage.events SET recorded_at = now() - interval '0 seconds'")
        append(con, [event("quick")])
        assert meter(con).events == 1
        slow.commit()
        assert meter(con).events == 1
        assert meter(con).events == 0
        since = con.execute(
            "SELECT recorded_until <= min(recorded_at) FROM robosystems.meter_progress, usage.events GROUP BY recorded_until"
        ).fetchone()
        assert since == (True,)
