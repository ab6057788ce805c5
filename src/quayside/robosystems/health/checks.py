"""The checks of the weekly health check, as data: a new one is one more entry."""
# ruff: noqa: S608 - statements are made of constants of this package; values are bound

from __future__ import annotations

from typing import Final

from quayside.robosystems.billing.fees import due
from quayside.robosystems.health.check import Check
from quayside.robosystems.plans import state_at

_LIVE: Final = "('active', 'past_due', 'paused', 'canceled')"

CHECKS: Final[tuple[Check, ...]] = (
    Check(
        "ledger equals balances",
        "red",
        "Does every account's balance equal the sum of its entries, and its book have no gap?",
        """
        SELECT a.graph_id, 'balance ' || a.balance || ', entries ' || coalesce(e.total, 0) || ', ' || coalesce(e.lines, 0)
               || ' of ' || a.seq || ' lines'
        FROM robosystems.accounts AS a
        LEFT JOIN (SELECT account_id, sum(amount) AS total, count(*) AS lines FROM robosystems.entries GROUP BY 1) AS e
            ON e.account_id = a.id
        WHERE a.graph_id IS NOT NULL AND (a.balance <> coalesce(e.total, 0) OR a.seq <> coalesce(e.lines, 0))
        ORDER BY a.id
        """,
    ),
    Check(
        "all accounts sum to zero",
        "red",
        "Do the balances of all accounts, the system's included, sum to zero?",
        "SELECT 'all accounts', 'sum ' || sum(balance) FROM robosystems.balances HAVING sum(balance) <> 0",
    ),
    Check(
        "balances follow from one another",
        "red",
        "Does every transfer continue the balance of the one before?",
        """
        SELECT id, 'balance after ' || balance_after || ' instead of ' || expected
        FROM (SELECT id, balance_after, CASE WHEN to_account = account_id THEN amount ELSE -amount END
                     + coalesce(lag(balance_after) OVER (PARTITION BY account_id ORDER BY seq), 0) AS expected
              FROM robosystems.transfers) AS book
        WHERE balance_after <> expected ORDER BY id
        """,
    ),
    Check(
        "grants cover balances",
        "red",
        "Is every credit that can be spent part of a grant, and every grant made by a transfer of its amount?",
        """
        SELECT a.graph_id, 'balance ' || a.balance || ', grants ' || coalesce(g.remaining, 0)
        FROM robosystems.accounts AS a
        LEFT JOIN (SELECT account_id, sum(remaining) AS remaining FROM robosystems.grants GROUP BY 1) AS g
            ON g.account_id = a.id
        WHERE a.graph_id IS NOT NULL AND coalesce(g.remaining, 0) < a.balance
        UNION ALL
        SELECT g.transfer_id::text, 'grant without its transfer'
        FROM robosystems.grants AS g LEFT JOIN robosystems.transfers AS t
            ON t.id = g.transfer_id AND t.to_account = g.account_id AND t.amount = g.amount
        WHERE t.id IS NULL
        """,
    ),
    Check(
        "reservations equal what is held",
        "red",
        "Does every account hold exactly what its open reservations say?",
        """
        SELECT a.graph_id, 'held ' || a.held || ', reserved ' || coalesce(r.amount, 0)
        FROM robosystems.accounts AS a
        LEFT JOIN (SELECT account_id, sum(amount) AS amount FROM robosystems.reservations WHERE state = 'held' GROUP BY 1) AS r
            ON r.account_id = a.id
        WHERE a.held <> coalesce(r.amount, 0)
        """,
    ),
    Check(
        "storage bills equal transfers",
        "red",
        "Has every storage bill its transfer, and the other way round?",
        """
        SELECT coalesce(t.key, a.graph_id || ' ' || b.day), 'billed ' || coalesce(b.credits, 0) || ', booked ' || coalesce(t.amount, 0)
        FROM (SELECT * FROM robosystems.storage_bills WHERE credits > 0) AS b
        JOIN robosystems.accounts AS a ON a.id = b.account_id
        FULL JOIN (SELECT key, amount FROM robosystems.transfers WHERE kind = 'storage') AS t
            ON t.key = 'storage:' || a.graph_id || ':' || b.day
        WHERE t.amount IS DISTINCT FROM b.credits
        """,
    ),
    Check(
        "overage equals invoices",
        "red",
        "Has every cleared debt its invoice line, do lines add up, and have invoice numbers no gap?",
        """
        SELECT t.key, 'no invoice line of its amount' FROM robosystems.transfers AS t
        LEFT JOIN robosystems.invoice_lines AS l ON l.transfer_id = t.id AND l.quantity = t.amount
        WHERE t.kind = 'overage' AND l.id IS NULL
        UNION ALL
        SELECT series || '-' || number, 'total ' || total_cents || ', lines ' || coalesce(l.cents, 0) FROM robosystems.invoices AS i
        LEFT JOIN (SELECT invoice_id, sum(amount_cents) AS cents FROM robosystems.invoice_lines GROUP BY 1) AS l
            ON l.invoice_id = i.id
        WHERE number IS NOT NULL AND total_cents <> coalesce(l.cents, 0)
        UNION ALL
        SELECT s.series, 'numbers have gaps: last ' || s.last || ', issued ' || count(i.id)
        FROM robosystems.invoice_series AS s LEFT JOIN robosystems.invoices AS i USING (series)
        GROUP BY s.series, s.last HAVING count(i.id) <> s.last OR coalesce(max(i.number), 0) <> s.last
        """,
    ),
    Check(
        "debts without an invoice",
        "red",
        "Which graphs were below 0 at the end of last month and are not invoiced?",
        """
        SELECT a.graph_id, 'owes ' || -a.balance
        FROM robosystems.accounts AS a CROSS JOIN LATERAL (
            SELECT balance_after FROM robosystems.transfers AS t
            WHERE t.account_id = a.id AND t.booked_at < date_trunc('month', %(now)s::timestamptz, 'UTC')
            ORDER BY t.seq DESC LIMIT 1) AS t
        WHERE a.balance < 0 AND t.balance_after < 0 AND NOT EXISTS (
            SELECT FROM robosystems.transfers AS o WHERE o.key = 'overage:' || a.graph_id || ':' || to_char(
                date_trunc('month', %(now)s::timestamptz, 'UTC') AT TIME ZONE 'UTC' - interval '1 month', 'YYYY-MM'))
        ORDER BY a.id
        """,
    ),
    Check(
        "allowances overdue",
        "red",
        "Which active subscriptions have not got this month's allowance, a day into it?",
        """
        SELECT s.subscription_id, s.graph_id FROM robosystems.subscriptions AS s
        JOIN robosystems.accounts AS a ON a.graph_id = s.graph_id
        WHERE s.state = 'active' AND s.activated_at < %(now)s::timestamptz - interval '1 day'
          AND date_trunc('month', %(now)s::timestamptz, 'UTC') < %(now)s::timestamptz - interval '1 day'
          AND EXISTS (SELECT FROM robosystems.plans AS p WHERE p.plan = s.plan AND p.credits > 0)
          AND NOT EXISTS (SELECT FROM robosystems.transfers AS t WHERE t.key = 'allowance:' || s.graph_id || ':'
                          || to_char(%(now)s::timestamptz AT TIME ZONE 'UTC', 'YYYY-MM'))
        ORDER BY s.subscription_id
        """,
    ),
    Check(
        "fees not invoiced",
        "red",
        "Which subscriptions were not invoiced for last month, a day into this one?",
        f"""
        SELECT subscription_id, description
        FROM ({due("ARRAY[(date_trunc('month', %(now)s::timestamptz AT TIME ZONE 'UTC') - interval '1 month')::date]")})
             AS f (customer_id, kind, graph_id, subscription_id, period, description, quantity, unit_usd, cents, plan, replaces)
        WHERE replaces IS NULL AND date_trunc('month', %(now)s::timestamptz, 'UTC') < %(now)s::timestamptz - interval '1 day'
        ORDER BY subscription_id
        """,
    ),
    Check(
        "days not billed",
        "red",
        "Which graphs were measured on a day of the last five weeks whose storage was not billed by the day after next?",
        """
        SELECT a.graph_id, string_agg(d.day::text, ', ' ORDER BY d.day)
        FROM (SELECT DISTINCT account_id, (hour AT TIME ZONE 'UTC')::date AS day FROM robosystems.usage_snapshots
              WHERE total_bytes IS NOT NULL AND hour >= %(now)s::timestamptz - interval '35 days'
                AND hour < date_trunc('day', %(now)s::timestamptz, 'UTC') - interval '1 day') AS d
        JOIN robosystems.accounts AS a ON a.id = d.account_id
        WHERE NOT EXISTS (SELECT FROM robosystems.storage_bills AS b WHERE b.account_id = d.account_id AND b.day = d.day)
        GROUP BY a.graph_id ORDER BY a.graph_id
        """,
    ),
    Check(
        "snapshots missing",
        "yellow",
        "Which graphs have hours of the last week without a measurement?",
        f"""
        SELECT s.graph_id, count(*) || ' hours' FROM robosystems.subscriptions AS s
        JOIN robosystems.accounts AS a ON a.graph_id = s.graph_id
        CROSS JOIN generate_series(date_trunc('hour', %(now)s::timestamptz, 'UTC') - interval '168 hours',
                                   date_trunc('hour', %(now)s::timestamptz, 'UTC') - interval '2 hours', '1 hour') AS h (hour)
        LEFT JOIN robosystems.usage_snapshots AS u ON u.hour = h.hour AND u.account_id = a.id
        WHERE s.resource_type = 'graph' AND s.activated_at < h.hour + interval '1 hour' AND u.total_bytes IS NULL
          AND {state_at("h.hour + interval '1 hour' - interval '1 microsecond'")} IN {_LIVE}
        GROUP BY s.graph_id ORDER BY s.graph_id
        """,
    ),
    Check(
        "usage events held or unseen",
        "yellow",
        "Which usage events of more than a day ago were not charged?",
        """
        SELECT coalesce(m.reason, 'not metered: ' || e.source), count(*) || ' events'
        FROM usage.events AS e LEFT JOIN robosystems.metered_events AS m USING (source, event_id)
        WHERE e.recorded_at < %(now)s::timestamptz - interval '1 day' AND m.state IS DISTINCT FROM 'billed'
        GROUP BY 1 ORDER BY 1
        """,
    ),
    Check(
        "subscriptions stuck",
        "red",
        "Which subscriptions have been on their way to a graph for more than a day?",
        """
        SELECT subscription_id, state || ' since ' || to_char(state_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI')
        FROM robosystems.subscriptions
        WHERE (state = 'provisioning' AND state_at < %(now)s::timestamptz - interval '1 day')
           OR (state IN ('pending', 'pending_payment') AND state_at < %(now)s::timestamptz - interval '7 days')
        ORDER BY state_at
        """,
    ),
    Check(
        "graphs without an account",
        "red",
        "Which graphs of live subscriptions have no credit account?",
        f"""
        SELECT s.graph_id, s.subscription_id FROM robosystems.subscriptions AS s
        WHERE s.state IN {_LIVE} AND s.graph_id IS NOT NULL
          AND NOT EXISTS (SELECT FROM robosystems.accounts AS a WHERE a.graph_id = s.graph_id)
        ORDER BY s.graph_id
        """,
    ),
    Check(
        "keys past expiry",
        "red",
        "Which keys are still active hours after they expired?",
        """
        SELECT key_id, 'expired ' || to_char(expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') FROM robosystems.api_keys
        WHERE deactivated_at IS NULL AND expires_at < %(now)s::timestamptz - interval '3 hours' ORDER BY expires_at
        """,
    ),
)
