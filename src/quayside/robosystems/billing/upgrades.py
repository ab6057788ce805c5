"""Credits of a larger plan for the rest of the month in which a subscription changed to it.

A change to a plan with more credits brings the difference for the days that are left, the day of the change included, once. What counts
is the largest plan the month has seen, so going back and forth brings nothing more, nor does coming back to a repository with another
subscription; a smaller plan takes nothing away.
It is given where the month's allowance was given, to active subscriptions, for changes of this month and the last.
"""
# ruff: noqa: S608 - statements are made of constants of this package; values are bound

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from quayside.robosystems.billing import work
from quayside.robosystems.billing.allowance import COLUMNS
from quayside.robosystems.ledger import posting
from quayside.robosystems.periods import month_of, next_month, previous_month, start_of
from quayside.robosystems.plans import version_at
from quayside.robosystems.subscriptions.store import apply_plan_changes

if TYPE_CHECKING:
    import psycopg


def _key(change: str) -> str:
    return f"given.key || ':upgrade:' || to_char({change}.effective_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US')"


_ROWS: Final = f"""
SELECT c.account_id, {_key("c")},
       'allowance', c.plan, {posting.ALLOWANCE},
       robosystems.half_even((p.credits - best.credits) * (c.next - (c.effective_at AT TIME ZONE 'UTC')::date), c.next - c.month, 6),
       c.effective_at, c.month, 'allowance', greatest(c.next::timestamp, %(month_end)s) AT TIME ZONE 'UTC',
       greatest(p.rollover_credits - best.rollover_credits, 0),
       (greatest(c.next::timestamp, %(month_end)s) + interval '1 month') AT TIME ZONE 'UTC'
FROM (
    SELECT c.subscription_id, c.plan, c.effective_at, a.id AS account_id, s.graph_id, s.activated_at,
           date_trunc('month', c.effective_at, 'UTC') AS month_start,
           (date_trunc('month', c.effective_at, 'UTC') AT TIME ZONE 'UTC')::date AS month,
           (date_trunc('month', c.effective_at, 'UTC') AT TIME ZONE 'UTC' + interval '1 month')::date AS next
    FROM robosystems.plan_changes AS c
    JOIN robosystems.subscriptions AS s ON s.subscription_id = c.subscription_id AND s.state = 'active'
    JOIN robosystems.accounts AS a ON a.graph_id = s.graph_id
    WHERE c.effective_at > %(since)s AND c.effective_at <= %(at)s AND c.effective_at > s.activated_at
      AND c.from_plan IS NOT NULL
) AS c
JOIN robosystems.transfers AS given ON given.key = 'allowance:' || c.graph_id || ':' || to_char(c.month, 'YYYY-MM')
CROSS JOIN LATERAL {version_at("c.plan", "greatest(c.month_start, c.activated_at)")} AS p
CROSS JOIN LATERAL (
    SELECT max(v.credits) AS credits, max(v.rollover_credits) AS rollover_credits
    FROM (SELECT given.operation AS plan
          UNION
          SELECT e.plan FROM robosystems.plan_changes AS e WHERE e.subscription_id = c.subscription_id
          AND e.effective_at > greatest(c.month_start, c.activated_at) AND e.effective_at < c.effective_at
          UNION
          SELECT e.plan FROM robosystems.subscriptions AS o JOIN robosystems.plan_changes AS e USING (subscription_id)
          JOIN robosystems.transfers AS brought ON brought.key = {_key("e")}
          WHERE o.graph_id = c.graph_id AND o.subscription_id <> c.subscription_id AND e.effective_at > c.month_start
          ) AS had
    CROSS JOIN LATERAL {version_at("had.plan", "greatest(c.month_start, c.activated_at)")} AS v
) AS best
WHERE c.effective_at > c.month_start AND p.credits > best.credits
ORDER BY c.account_id, c.effective_at
"""


@dataclass(frozen=True)
class Upgrades:
    """What a run did: subscriptions whose plan changed now, and the credits given for changes to larger plans."""

    changed: int
    graphs: int
    credits: Decimal


def apply_upgrades(
    con: psycopg.Connection[Any], *, at: datetime | None = None, run_id: str | None = None
) -> Upgrades:
    """Let changes of plan whose time has come take effect, and give the credits that larger plans bring. Again changes nothing."""
    author = work.author_of(at, run_id)
    month = month_of(author.at)
    bound = author.bound | {
        "since": start_of(previous_month(month)),
        "month_end": datetime.combine(next_month(month), datetime.min.time()),
    }
    with posting.unit(con):
        changed = apply_plan_changes(con, author.at, bound["since"])
        done = posting.post(con, COLUMNS, _ROWS, bound, author)
    return Upgrades(changed, done.accounts, done.change)
