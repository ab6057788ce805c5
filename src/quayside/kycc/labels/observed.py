"""Labels from what happened.

A party is bad when, in the window after the moment, it had

- an event of an outcome file (overdue_90, write_off, collection),
- a verdict ``will_default`` 1 of an outcome file, which knows no date and speaks of the batch's own moment alone, or
- an invoice more than 90 days past due: the transactions of a batch with a later moment hold an invoice of the party whose
  due date + 90 d lies in the window and before that later moment, and no payment or credit note of that batch or this
  one had settled it by then.

It is good when none of that happened and outcome files observed it to the end of the window. Otherwise it has no label:
a window that is not over makes nobody good. Transactions alone never make a party good, for they show no write-off.
"""
# ruff: noqa: S608 - statements are made of constants of this package; values are bound

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from quayside.kycc.labels.window import OVERDUE_DAYS
from quayside.kycc.tables import BATCHES, OUTCOME_FILES, OUTCOMES, PARTIES, TRANSACTIONS

if TYPE_CHECKING:
    import duckdb

    from quayside.kycc.labels.window import Window

_MOMENTS: Final = (
    f"SELECT batch_id, as_of AS moment FROM {BATCHES.qualified} "
    "QUALIFY row_number() OVER (PARTITION BY batch_id ORDER BY loaded_at DESC) = 1"
)

_OVERDUE_AT: Final = f"i.due_date + INTERVAL {OVERDUE_DAYS} DAY"
#: Invoices that went more than 90 days past due in the window, as batches with a later moment show them.
_INVOICES: Final = f"""
    SELECT i.party_id, 'invoice_overdue_90' AS reason, {_OVERDUE_AT} AS event_date
    FROM {TRANSACTIONS.qualified} i JOIN moments m USING (batch_id) SEMI JOIN party USING (party_id)
    WHERE m.moment > $as_of AND i.txn_type = 'invoice' AND i.ts <= m.moment
      AND i.due_date > $first_due AND i.due_date <= $last_due AND {_OVERDUE_AT} < m.moment
      AND NOT EXISTS (
        SELECT 1 FROM {TRANSACTIONS.qualified} s
        WHERE s.batch_id IN (i.batch_id, $batch) AND s.settles_txn_id = i.txn_id
          AND s.txn_type IN ('payment', 'credit_note') AND s.ts <= {_OVERDUE_AT})
"""

_LABELS: Final = """
WITH party AS (SELECT party_id FROM {parties} WHERE batch_id = $batch),
moments AS ({moments}),
verdict AS (
  SELECT party_id, arg_max(will_default, (observed_through, will_default)) AS will_default
  FROM {outcomes} WHERE batch_id = $batch AND will_default IS NOT NULL GROUP BY party_id
),
fact AS (
    SELECT party_id, event AS reason, event_date FROM {outcomes}
    WHERE batch_id = $batch AND event_date > $as_of AND event_date <= $window_end
    UNION ALL
    SELECT party_id, 'verdict', NULL FROM verdict WHERE will_default = 1 AND $as_of = $moment
    {invoices}
),
bad AS (
  SELECT party_id, arg_min(reason, (coalesce(event_date, 'infinity'::TIMESTAMPTZ), reason)) AS reason,
         min(event_date) AS event_date
  FROM fact GROUP BY party_id
),
known AS (
  SELECT party_id, max(observed_through) AS observed_through
  FROM (
    SELECT party_id, (SELECT max(observed_through) FROM {files} WHERE batch_id = $batch AND covers = 'batch')
           AS observed_through FROM party
    UNION ALL
    SELECT party_id, observed_through FROM {outcomes} WHERE batch_id = $batch AND observed_through IS NOT NULL
  )
  -- Outcomes tell of the time after the batch's own moment, so an earlier window was not observed from its start; and a
  -- verdict without a date cannot be said to lie in the window of another moment.
  WHERE $as_of >= $moment
    AND ($as_of = $moment OR party_id NOT IN (SELECT party_id FROM verdict WHERE will_default = 1))
  GROUP BY party_id
)
SELECT party.party_id, CAST(bad.party_id IS NOT NULL AS TINYINT) AS label, coalesce(bad.reason, 'none') AS reason,
       bad.event_date, coalesce(known.observed_through >= $window_end, false) AS window_over, known.observed_through
FROM party LEFT JOIN bad USING (party_id) LEFT JOIN known USING (party_id)
WHERE bad.party_id IS NOT NULL OR known.observed_through >= $window_end
"""


def select_observed(con: duckdb.DuckDBPyConnection, window: Window) -> tuple[str, dict[str, Any]]:
    """The query of the observed labels (party_id, label, reason, event_date, window_over, observed_through) and its values."""
    values: dict[str, Any] = {"batch": window.batch_id, "as_of": window.as_of, "window_end": window.end}
    later, values["moment"] = con.execute(
        f"SELECT coalesce(bool_or(moment > $as_of), false), max(moment) FILTER (batch_id = $batch) FROM ({_MOMENTS})",
        {"batch": window.batch_id, "as_of": window.as_of},
    ).fetchall()[0]
    if later:  # else no transaction of another batch need be read
        values |= {"first_due": window.first_due, "last_due": window.last_due}
    sql = _LABELS.format(
        parties=PARTIES.qualified,
        outcomes=OUTCOMES.qualified,
        files=OUTCOME_FILES.qualified,
        moments=_MOMENTS,
        invoices=f"UNION ALL {_INVOICES}" if later else "",
    )
    return sql, values
