"""Subscriptions and invoices in plain Python, from the words of the documentation: plans by day, fees, one invoice a month.

It knows nothing of SQL: a month is walked day by day, and what is billed is a list.
"""

from __future__ import annotations

import calendar
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.robosystems.model import Account

GB = 1 << 30
STEP = Decimal("0.000001")
ALWAYS = datetime(2000, 1, 1, tzinfo=UTC)
#: Plans by family: cents a month, credits a month, GB included.
FAMILIES = {
    "graph": {"standard": (5000, 8000, 10), "large": (30000, 32000, 50), "xlarge": (70000, 100000, 100)},
    "repository": {"starter": (2900, 5000, 0), "advanced": (9900, 17000, 0), "unlimited": (49900, 85000, 0)},
}


def rounded(value: Fraction, places: int = 6) -> Decimal:
    """Half to even, as Python's own round does it."""
    return Decimal(round(value * 10**places)).scaleb(-places).quantize(STEP if places == 6 else Decimal(1))


def month_start(day: date) -> datetime:
    return datetime(day.year, day.month, 1, tzinfo=UTC)


def month_after(moment: datetime) -> datetime:
    return (moment.replace(day=1) + timedelta(days=32)).replace(
        day=1, hour=0, minute=0, second=0, microsecond=0
    )


def days_of(month: date) -> int:
    return calendar.monthrange(month.year, month.month)[1]


@dataclass(frozen=True)
class Version:
    """A plan from a moment on."""

    since: datetime
    cents: int
    credits: int
    included_gb: int


class Catalog:
    """Plans and their versions."""

    def __init__(self) -> None:
        self.versions = {
            plan: [Version(ALWAYS, *each)] for family in FAMILIES.values() for plan, each in family.items()
        }

    def version(self, plan: str, moment: datetime) -> Version:
        return [version for version in self.versions[plan] if version.since <= moment][-1]


@dataclass
class Life:
    """One subscription: the plans and states it had, and from when its price is invoiced (None: it is paid elsewhere)."""

    name: str
    activated_at: datetime
    plans: list[tuple[datetime, str]]
    fees_from: date | None
    states: list[tuple[datetime, str, datetime | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.states.append((self.activated_at, "active", None))

    @property
    def state(self) -> str:
        return self.states[-1][1]

    @property
    def ends_at(self) -> datetime | None:
        return self.states[-1][2]

    def become(self, at: datetime, state: str, ends_at: datetime | None = None) -> None:
        self.states.append((at, state, ends_at))

    def state_at(self, moment: datetime) -> str:
        return [state for at, state, _ in self.states if at <= moment][-1]

    def plan_at(self, moment: datetime) -> str:
        return [plan for at, plan in self.plans if at <= moment][-1]

    def paid_days(self, month: date) -> list[tuple[date, str]]:
        """Days of a month that are paid for, with the plan at the end of each."""
        found = []
        for number in range(1, days_of(month) + 1):
            day = month.replace(day=number)
            midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
            until = midnight + timedelta(days=1)
            states = [(state, ends) for at, state, ends in self.states if at < until]
            if not states or self.fees_from is None or day < self.fees_from:
                continue
            state, ends = states[-1]
            running = state in ("canceled", "ended") and ends is not None and ends > midnight
            if state in ("active", "past_due") or running:
                found.append((day, self.plan_at(until - timedelta(microseconds=1))))
        return found

    def fees(self, month: date, catalog: Catalog) -> Iterable[tuple[str, Decimal, int]]:
        """By plan: its share of the month, and cents."""
        paid = self.paid_days(month)
        for plan, days in Counter(plan for _, plan in paid).items():
            first = min(day for day, each in paid if each == plan)
            version = catalog.version(plan, datetime(first.year, first.month, first.day, tzinfo=UTC))
            cents = round(Fraction(version.cents * days, days_of(month)))
            if cents:
                yield plan, rounded(Fraction(days, days_of(month))), cents


@dataclass(frozen=True)
class Line:
    """A line of an invoice; `what` says what it was for, once: graph or subscription, month, plan."""

    kind: str
    what: tuple[str, date, str]
    quantity: Decimal
    cents: int


@dataclass
class Invoice:
    """What a customer was sent."""

    issued_at: datetime
    customer: str
    period: date
    lines: list[Line] = field(default_factory=list)
    state: str = "open"

    @property
    def cents(self) -> int:
        return sum(line.cents for line in self.lines)


class Invoices:
    """All invoices of all customers."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.all: list[Invoice] = []

    def bill(self, at: datetime, month: date, since: date, accounts: dict[str, Account]) -> None:
        """Debts of a month, and fees of the months from `since` to it, and of those with voided ones, that no invoice which counts has."""
        billed = {line.what for invoice in self.all if invoice.state != "void" for line in invoice.lines}
        months = {
            line.what[1]
            for i in self.all
            for line in i.lines
            if line.what not in billed and line.kind != "overage"
        }
        while since <= month:
            months.add(since)
            since = month_after(month_start(since)).date()
        made: dict[str, Invoice] = {}

        def add(account: Account, line: Line) -> None:
            made.setdefault(account.customer, Invoice(at, account.customer, month)).lines.append(line)

        for graph, account in accounts.items():
            owed = account.overage(at, month)
            if owed:  # half a cent a credit
                add(account, Line("overage", (graph, month, ""), owed, round(Fraction(owed) / 2)))
            for life in account.lives:
                for each in months:
                    for plan, share, cents in life.fees(each, self.catalog):
                        if (life.name, each, plan) not in billed:
                            add(account, Line("subscription", (life.name, each, plan), share, cents))
        self.all += made.values()

    def void(self, at: datetime, invoice: Invoice, accounts: dict[str, Account]) -> None:
        """It counts no more, and what it cleared is owed again."""
        invoice.state = "void"
        for line in invoice.lines:
            if line.kind == "overage":
                accounts[line.what[0]].take(at, "void", line.quantity)
