"""Plans and prices: versioned rows with the moment from which they hold. A new version never changes what was billed."""
# ruff: noqa: S608 - statements are made of constants of this package; values are bound

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from quayside.foundation import audit
from quayside.foundation.errors import ConflictError, NotFoundError, UsageError
from quayside.robosystems.ledger.posting import unit
from quayside.robosystems.names import named, shown
from quayside.robosystems.periods import in_utc, utc_now

if TYPE_CHECKING:
    import psycopg

OVERAGE_CREDIT_USD: Final = "overage.credit_usd"
STORAGE_GB_DAY: Final = "storage.gb_day"
_DEAREST: Final = Decimal(10) ** 15

#: Versions of plans and prices as ranges of time, for statements to join.
PLAN_RANGES: Final = """(
    SELECT *, lead(effective_from, 1, 'infinity') OVER (PARTITION BY plan ORDER BY effective_from) AS effective_until
    FROM robosystems.plans)"""
PRICE_RANGES: Final = """(
    SELECT *, lead(effective_from, 1, 'infinity') OVER (PARTITION BY code ORDER BY effective_from) AS effective_until
    FROM robosystems.prices)"""


def plan_at(moment: str) -> str:
    """SQL for the plan of subscription ``s`` at a moment given as SQL."""
    return f"""
        CASE WHEN s.plan_at <= {moment} THEN s.plan ELSE coalesce(
            (SELECT c.plan FROM robosystems.plan_changes AS c WHERE c.subscription_id = s.subscription_id
             AND c.effective_at <= {moment} ORDER BY c.effective_at DESC LIMIT 1),
            (SELECT c.from_plan FROM robosystems.plan_changes AS c WHERE c.subscription_id = s.subscription_id
             AND c.effective_at > {moment} ORDER BY c.effective_at LIMIT 1),
            s.plan) END"""


def state_at(moment: str) -> str:
    """SQL for the state of subscription ``s`` at a moment given as SQL."""
    return f"""
        CASE WHEN s.state_at <= {moment} THEN s.state ELSE coalesce(
            (SELECT c.to_state FROM robosystems.subscription_transitions AS c WHERE c.subscription_id = s.subscription_id
             AND c.at <= {moment} ORDER BY c.version DESC LIMIT 1),
            (SELECT c.from_state FROM robosystems.subscription_transitions AS c
             WHERE c.subscription_id = s.subscription_id AND c.at > {moment} ORDER BY c.version LIMIT 1),
            s.state) END"""


def version_at(plan: str, moment: str) -> str:
    """SQL for the row of a plan in force at a moment, both given as SQL; of a plan made after it, the first row.

    It can be joined laterally; a plan that was ordered always has one.
    """
    return f"""(
        SELECT * FROM robosystems.plans AS version WHERE version.plan = {plan}
        ORDER BY version.effective_from <= {moment} DESC, abs(extract(epoch FROM version.effective_from - {moment})) LIMIT 1)"""


@dataclass(frozen=True)
class Plan:
    """A plan as it is at some moment."""

    plan: str
    family: str
    price_cents: int
    credits: Decimal
    included_gb: int
    rollover_credits: Decimal
    effective_from: datetime


def plans(con: psycopg.Connection[Any], at: datetime | None = None) -> list[Plan]:
    """Every plan as it is at a moment, by default now."""
    found = con.execute(
        "SELECT DISTINCT ON (plan) plan, family, price_cents, credits, included_gb, rollover_credits, effective_from"
        " FROM robosystems.plans WHERE effective_from <= %s ORDER BY plan, effective_from DESC",
        [at or utc_now()],
    ).fetchall()
    return sorted((Plan(*row) for row in found), key=lambda p: (p.family, p.price_cents))


def plan(con: psycopg.Connection[Any], name: str, at: datetime | None = None) -> Plan:
    """One plan as it is at a moment.

    Raises:
        NotFoundError: there is no such plan then.
    """
    known = plans(con, at)
    for found in known:
        if found.plan == name:
            return found
    raise NotFoundError(f"There is no plan {name!r}: there are {', '.join(p.plan for p in known)}.")


def price(con: psycopg.Connection[Any], code: str, at: datetime | None = None) -> Decimal:
    """A price at a moment.

    Raises:
        NotFoundError: there is none then.
    """
    row = con.execute(
        "SELECT value FROM robosystems.prices WHERE code = %s AND effective_from <= %s"
        " ORDER BY effective_from DESC LIMIT 1",
        [code, at or utc_now()],
    ).fetchone()
    if row is None:
        raise NotFoundError(f"There is no price {code!r}: set it with `quayside credits price {code} VALUE`.")
    return row[0]


def prices(con: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    """Every version of every price."""
    found = con.execute(
        "SELECT code, effective_from, value, created_by FROM robosystems.prices ORDER BY code, effective_from"
    ).fetchall()
    return [dict(zip(("code", "effective_from", "value", "created_by"), row, strict=True)) for row in found]


def set_price(
    con: psycopg.Connection[Any], code: str, value: Decimal, effective_from: datetime | None = None
) -> None:
    """Add a version of a price; it holds from `effective_from` on, by default from now on.

    Raises:
        UsageError: the code is unknown in kind, the value is no amount, or the moment has passed.
        ConflictError: another version begins at that very moment.
    """
    now = utc_now()
    start = now if effective_from is None else in_utc(effective_from)
    if code not in (OVERAGE_CREDIT_USD, STORAGE_GB_DAY) and not (
        code.startswith("event.") and len(code) > len("event.")
    ):
        raise UsageError(
            f"{code!r} is no price: it is {OVERAGE_CREDIT_USD}, {STORAGE_GB_DAY} or event.<kind of usage event>."
        )
    named(code, "The code of a price")
    if not value.is_finite() or not 0 <= value < _DEAREST or value != round(value, 9):
        raise UsageError(
            f"The price of {code} has to be 0 or more and below 10^15, with nine decimals at the most, not {shown(str(value))}."
        )
    if start < now and _begins_before(con, code, start):
        raise UsageError(
            f"{code} was in force at {start:%Y-%m-%d %H:%M} UTC already: a price is changed from now on, not backwards."
        )
    with unit(con):
        added = con.execute(
            "INSERT INTO robosystems.prices (code, effective_from, value, created_by) VALUES (%s, %s, %s, %s)"
            " ON CONFLICT DO NOTHING",
            [code, start, value, audit.actor()],
        ).rowcount
        if not added:
            raise ConflictError(
                f"A version of {code} begins at that very moment already: choose a later one."
            )
        audit.record(con, audit.actor(), "set price", "price", code, {"value": value, "from": start})


def _begins_before(con: psycopg.Connection[Any], code: str, moment: datetime) -> bool:
    found = con.execute(
        "SELECT FROM robosystems.prices WHERE code = %s AND effective_from <= %s", [code, moment]
    )
    return found.fetchone() is not None
