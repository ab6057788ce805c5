"""Monthly prices of plans as invoice lines: one per subscription, month and plan, in arrears, by the days on that plan.

A day belongs to the plan at its end, so the day of a start and of a change count for what begins on them. Days count
while the subscription is active or past due, and after a cancellation until its end; paused days are free. Fees are due from the
subscription's ``fees_from`` on; where that is null they are paid elsewhere. The price is the one in force when the plan's first day of the
month begins.
"""
# ruff: noqa: S608 - statements are made of constants of this package; values are bound

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any, Final

from quayside.robosystems.billing import invoicing
from quayside.robosystems.plans import plan_at, state_at, version_at

if TYPE_CHECKING:
    import psycopg

_MIDNIGHT: Final = "::timestamp AT TIME ZONE 'UTC'"
_COLUMNS: Final = "customer_id, kind, graph_id, subscription_id, period, description, quantity, unit_usd, amount_cents, plan, replaces"
# "provisioning" with a start: activation came through some minutes after the graph was there.
_PAYING: Final = "('active', 'past_due', 'provisioning')"


def due(months: str) -> str:
    """SELECT of the lines that are still to be billed for months given as SQL of a date[], in the columns of `_COLUMNS`."""
    return f"""
WITH spent AS (
    SELECT s.subscription_id, s.customer_id, s.graph_id, m.month, m.days AS month_days, d.plan, sum(d.days)::int AS days,
           min(d.day) AS first_day
    FROM robosystems.subscriptions AS s
    CROSS JOIN LATERAL (
        SELECT month, (month + interval '1 month')::date AS next, (month + interval '1 month')::date - month AS days,
               -- Nothing changed in it or since: it needs no look at its days.
               s.state IN ('active', 'past_due')
                   AND greatest(s.activated_at, s.plan_at, s.state_at, s.fees_from{_MIDNIGHT}) <= month{_MIDNIGHT} AS whole
        FROM unnest({months}) AS month
    ) AS m
    CROSS JOIN LATERAL (
        SELECT m.month AS day, m.days, s.plan WHERE m.whole
        UNION ALL
        SELECT o.day, 1, o.plan
        FROM (SELECT g.day, {plan_at("g.ends")} AS plan, {state_at("g.ends")} AS state
              FROM (SELECT day::date AS day, (day::date + 1){_MIDNIGHT} - interval '1 microsecond' AS ends
                    FROM generate_series(greatest(m.month, s.fees_from, (s.activated_at AT TIME ZONE 'UTC')::date)::timestamp,
                                         m.next - interval '1 day', '1 day') AS day) AS g
              WHERE NOT m.whole) AS o
        WHERE o.state IN {_PAYING}
           OR (o.state IN ('canceled', 'ended') AND coalesce(s.ends_at > o.day{_MIDNIGHT}, true))
    ) AS d
    WHERE s.fees_from < m.next AND s.activated_at < m.next{_MIDNIGHT}
      -- Paused or over since before it: nor do the days of that.
      AND (s.state_at > m.month{_MIDNIGHT} OR s.state IN {_PAYING}
           OR (s.state IN ('canceled', 'ended') AND coalesce(s.ends_at > m.month{_MIDNIGHT}, true)))
    GROUP BY s.subscription_id, s.customer_id, s.graph_id, m.month, m.days, d.plan
)
SELECT f.customer_id, 'subscription', f.graph_id, f.subscription_id, f.month,
       'Plan ' || f.plan || ' of ' || coalesce(f.graph_id, f.subscription_id)
           || CASE WHEN f.days < f.month_days THEN ', ' || f.days || ' of ' || f.month_days || ' days' ELSE '' END,
       robosystems.half_even(f.days, f.month_days, 6), p.price_cents / 100.0,
       robosystems.half_even(p.price_cents * f.days, f.month_days, 0), f.plan,
       (SELECT max(l.id) FROM robosystems.invoice_lines AS l WHERE l.kind = 'subscription'
        AND l.subscription_id = f.subscription_id AND l.period = f.month AND l.plan = f.plan)
FROM spent AS f
CROSS JOIN LATERAL {version_at("f.plan", f"f.first_day{_MIDNIGHT}")} AS p
WHERE robosystems.half_even(p.price_cents * f.days, f.month_days, 0) > 0 AND NOT EXISTS (
    SELECT FROM robosystems.invoice_lines AS l JOIN robosystems.invoices AS i ON i.id = l.invoice_id
    WHERE l.kind = 'subscription' AND l.subscription_id = f.subscription_id AND l.period = f.month AND l.plan = f.plan
      AND i.state <> 'void')
"""


#: Months with a line that was voided and is on no other invoice since.
_VOIDED: Final = """
SELECT DISTINCT l.period FROM robosystems.invoices AS i JOIN robosystems.invoice_lines AS l ON l.invoice_id = i.id
WHERE i.state = 'void' AND l.kind = 'subscription' AND l.period <= %s
  AND NOT EXISTS (SELECT FROM robosystems.invoice_lines AS r WHERE r.replaces = l.id)
"""


def gather(con: psycopg.Connection[Any], months: list[date]) -> tuple[int, int]:
    """Gather the lines of months that are over for the invoices being made, in the caller's transaction; how many, and cents.

    Earlier months in which a line was voided are looked at too. One at a time: who comes second sees what the first has billed.
    """
    con.execute("SELECT pg_advisory_xact_lock(hashtextextended('robosystems:fees', 0))")
    voided = {period for (period,) in con.execute(_VOIDED, [max(months)])}
    bound = {"months": sorted({*months, *voided})}
    return invoicing.add_lines(con, _COLUMNS, due("%(months)s::date[]"), bound)
