"""The books as a few lines of plain Python: what the ledger in PostgreSQL is held to, credit by credit.

It knows nothing of SQL, settles grants at once, keeps everything in lists, and computes with fractions.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from tests.robosystems.model_plans import GB, Catalog, Life, days_of, month_after, month_start, rounded


@dataclass
class ModelGrant:
    number: int
    amount: Decimal
    left: Decimal
    priority: int
    granted_at: datetime
    expires_at: datetime | None
    rollover: Decimal = Decimal(0)
    rollover_until: datetime | None = None


@dataclass
class Account:
    """One graph, or one user of a repository: its subscriptions, balance, grants, book, and what was done for it once."""

    catalog: Catalog
    customer: str
    may_overdraw: bool
    lives: list[Life] = field(default_factory=list)
    balance: Decimal = Decimal(0)
    grants: list[ModelGrant] = field(default_factory=list)
    book: list[tuple[datetime, str, Decimal, Decimal]] = field(default_factory=list)
    done: dict[str, Decimal] = field(default_factory=dict)
    snapshots: dict[datetime, tuple[int | None, int]] = field(default_factory=dict)
    #: By month: plans that brought credits.
    brought: dict[date, list[str]] = field(default_factory=dict)
    reversed: dict[str, Decimal] = field(default_factory=dict)
    held: dict[str, tuple[Decimal, datetime]] = field(default_factory=dict)
    last: datetime = datetime(1, 1, 1, tzinfo=UTC)

    @property
    def life(self) -> Life:
        """The subscription of today; those before it are over."""
        return self.lives[-1]

    def _book(self, at: datetime, kind: str, change: Decimal) -> None:
        self.last = max(self.last, at)
        self.balance += change
        self.book.append((self.last, kind, change, self.balance))

    def give(self, at: datetime, kind: str, amount: Decimal, **grant: object) -> None:
        """A grant; what is owed is paid from all grants in their order, the new one included."""
        owed = max(Decimal(0), -self.balance)
        self._book(at, kind, amount)
        made = ModelGrant(len(self.book), amount, amount, 50, at, None)
        for name, value in grant.items():
            setattr(made, name, value)
        self.grants.append(made)
        self._draw(min(owed, amount))

    def take(self, at: datetime, kind: str, amount: Decimal) -> None:
        drawn = min(max(self.balance, Decimal(0)), amount)
        self._book(at, kind, -amount)
        self._draw(drawn)

    def _draw(self, amount: Decimal) -> None:
        far = datetime.max.replace(tzinfo=UTC)
        for grant in sorted(
            self.grants, key=lambda g: (g.priority, g.expires_at or far, g.granted_at, g.number)
        ):
            part = min(grant.left, amount)
            grant.left, amount = grant.left - part, amount - part
        assert amount == 0

    def expire(self, at: datetime) -> None:
        lapsed = [g for g in self.grants if g.left and g.expires_at is not None and g.expires_at <= at]
        for grant in sorted(lapsed, key=lambda g: (g.expires_at, g.number)):
            left, grant.left = grant.left, Decimal(0)
            self._book(at, "expiry", -left)
            carried = min(left, grant.rollover)
            if carried and grant.rollover_until is not None and grant.rollover_until > at:
                self._book(at, "rollover", carried)
                number = len(self.book)
                self.grants.append(
                    ModelGrant(number, carried, carried, grant.priority, at, grant.rollover_until)
                )
        for key, (_, until) in list(self.held.items()):
            if until <= at:
                del self.held[key]

    def free(self, at: datetime) -> Decimal:
        """What can be consumed once expiry is done and overdue reservations are over."""
        later = Account(self.catalog, self.customer, True, balance=self.balance)
        later.grants = [replace(grant) for grant in self.grants]
        later.held = dict(self.held)
        later.expire(at)
        return later.balance - sum((a for a, _ in later.held.values()), Decimal(0))

    def consume(self, at: datetime, key: str, amount: Decimal) -> bool:
        """Whether the credits were there, or had been taken under this key before."""
        if key in self.done:
            return True
        if self.free(at) < amount and not self.may_overdraw:
            return False
        self.expire(at)
        self.done[key] = amount
        self.take(at, "consumption", amount)
        return True

    def reserve(self, at: datetime, key: str, amount: Decimal, time_out: timedelta) -> bool:
        if self.free(at) < amount and not self.may_overdraw:
            return False
        self.expire(at)
        self.held[key] = (amount, at + time_out)
        return True

    def capture(self, at: datetime, key: str, amount: Decimal) -> bool:
        if key not in self.held or self.held[key][1] <= at:
            return False
        del self.held[key]
        self.expire(at)
        self.done[f"capture:{key}"] = amount
        self.take(at, "consumption", amount)
        return True

    def refund(self, at: datetime, key: str, amount: Decimal) -> bool:
        """Credits of a consumption given back, as far as it is not."""
        left = self.done[key] - self.reversed.get(key, Decimal(0))
        if amount > left:
            return False
        self.reversed[key] = self.reversed.get(key, Decimal(0)) + amount
        self.give(at, "refund", amount)
        return True

    def allowance(self, at: datetime, month: date) -> None:
        """A month's credits, once a month; a subscription that begins in it gets those of its days. A month that is over goes by
        the state at its start."""
        start = month_start(month)
        key, until = f"allowance:{month:%Y-%m}", month_after(start)
        for life in self.lives:
            since = max(start, life.activated_at)
            state = life.state if until > at else life.state_at(since)
            if key not in self.done and life.activated_at < until and state == "active":
                self._allowance(at, month, key, life, since)

    def _allowance(self, at: datetime, month: date, key: str, life: Life, since: datetime) -> None:
        expires = month_after(max(month_start(month), month_start(at.date())))
        version = self.catalog.version(life.plan_at(since), since)
        credits = rounded(Fraction(version.credits * (days_of(month) - since.day + 1), days_of(month)))
        self.done[key] = credits
        self.brought[month] = [life.plan_at(since)]
        self.give(
            at,
            "allowance",
            credits,
            expires_at=expires,
            rollover=Decimal(version.credits),
            rollover_until=month_after(expires),
        )

    def larger_plans(self, at: datetime) -> None:
        """What changes to larger plans bring, of this month and the last: the difference to the largest plan so far."""
        oldest = month_start((month_start(at) - timedelta(days=1)).date())
        had: dict[date, list[str]] = {}
        for moment, plan in self.life.plans[1:]:
            start = month_start(moment.date())
            month, key = start.date(), f"larger:{moment}"
            if moment > at or moment <= max(start, self.life.activated_at):
                continue
            when = max(start, self.life.activated_at)
            before = [*had.get(month, []), *self.brought.get(month, [])]
            had.setdefault(month, []).append(plan)
            if start < oldest or self.life.state != "active" or key in self.done or month not in self.brought:
                continue
            version = self.catalog.version(plan, when)
            best = max(self.catalog.version(name, when).credits for name in before)
            if version.credits <= best:
                continue
            left = days_of(month) - moment.day + 1
            credits = rounded(Fraction((version.credits - best) * left, days_of(month)))
            self.done[key] = credits
            self.brought[month].append(plan)
            expires = month_after(max(start, month_start(at.date())))
            self.give(
                at,
                "allowance",
                credits,
                expires_at=expires,
                rollover=Decimal(version.credits - best),
                rollover_until=month_after(expires),
            )

    def bill_day(self, at: datetime, day: date) -> None:
        hours = {h: s for h, s in self.snapshots.items() if h.date() == day and s[0] is not None}
        key = f"storage:{day}"
        if key in self.done or not hours:
            return
        excess = Fraction(0)
        for included in {inc for _, inc in hours.values()}:
            sizes = [size for size, inc in hours.values() if inc == included and size is not None]
            excess += max(Fraction(0), Fraction(sum(sizes), GB) - included * len(sizes))
        credits = rounded(excess / len(hours))
        self.done[key] = credits
        self.expire(at)
        if credits:
            self.take(at, "storage", credits)

    def overage(self, at: datetime, month: date) -> Decimal:
        """What was owed at the end of a month, as far as it still is: cleared, once."""
        until = month_after(month_start(month))
        before = [balance for booked, _, _, balance in self.book if booked < until]
        key = f"overage:{month:%Y-%m}"
        owed = min(-before[-1], -self.balance) if before else Decimal(0)
        if owed <= 0 or key in self.done:
            return Decimal(0)
        self.done[key] = owed
        self._book(at, "overage", owed)
        return owed
