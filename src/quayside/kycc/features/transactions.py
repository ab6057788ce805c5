"""Features of a party's own transactions: a transaction belongs to its `party_id` alone.

Three passes over the batch's transactions, each one aggregation, prepare the columns the expressions speak of:

- `activity`, per party: counts and amounts of the window's transactions, volumes apart by calendar month;
- `concentration`, per party: how its volume is spread over counterparties;
- `punctuality`, per party: how late its invoices were paid that fell due in the window.

All amounts are `amount_base`, absolute. Sums stay decimal or integer until the last step, and what is left in floating
point runs in a fixed order and is made of + - * / and square roots alone, which IEEE 754 defines to the bit (`power` it
does not): the same rows give the same bits, however the threads shared them and whichever engine computes them.
"""
# ruff: noqa: S608 - statements are made of constants of this package; values are bound

from __future__ import annotations

from typing import Final

from quayside.kycc.features.feature import Feature
from quayside.kycc.features.moment import MONTHS
from quayside.kycc.tables import PARTIES, TRANSACTIONS

_WINDOW = "(as_of - 180 d, as_of]"
_DUE_WINDOW = "due_date in (as_of - 180 d, as_of]"

_IN_WINDOW = "t.ts > $window_start AND t.ts <= $as_of"
_AMOUNT = "sum(abs(t.amount_base)) FILTER (WHERE t.txn_type <> 'credit_note'{0})"


def _squared(x: str) -> str:
    return f"{x} * {x}"


def _month_filter(k: int) -> str:
    after = f" AND t.ts >= $month_{k}" if k > 0 else ""
    before = f" AND t.ts < $month_{k + 1}" if k < MONTHS - 1 else ""
    return after + before


#: Columns of `activity`: name → aggregate. A month without any amount is NULL, one with zeros only is 0.
ACTIVITY: Final[dict[str, str]] = {
    "transactions": "count(*)",
    "invoices": "count(*) FILTER (WHERE t.txn_type = 'invoice')",
    "payments": "count(*) FILTER (WHERE t.txn_type = 'payment')",
    "credit_notes": "count(*) FILTER (WHERE t.txn_type = 'credit_note')",
    "last_ts": "max(t.ts)",
    "late_half_volume": f"coalesce({_AMOUNT.format(' AND t.ts > $half_start')}, 0)",
    **{f"volume_{k}": _AMOUNT.format(_month_filter(k)) for k in range(MONTHS)},
}

_VOLUMES = [f"volume_{k}" for k in range(MONTHS)]

#: Columns of `totals`, which has those of `activity` as well: name → expression.
TOTALS: Final[dict[str, str]] = {
    "amounts": "transactions - credit_notes",
    "volume": " + ".join(f"coalesce({v}, 0)" for v in _VOLUMES),
    "months": " + ".join(f"CAST({v} IS NOT NULL AS INTEGER)" for v in _VOLUMES),
}

#: Shares are summed in whole numbers of this part, exact whatever the order; all of a party's add up to at most 2^60.
_SHARE_UNITS: Final = 2**60

_MEAN = "(CAST(volume AS DOUBLE) / months)"
# Two passes (mean, then deviations): a difference of squares would lose all digits for steady parties.
_VARIANCE = (
    "("
    + " + ".join(f"coalesce({_squared(f'(CAST({v} AS DOUBLE) - {_MEAN})')}, 0)" for v in _VOLUMES)
    + ") / months"
)

FEATURES: Final = (
    Feature(
        "transaction_count_6m", "transaction", "count", "transactions", 0, None, _WINDOW, 0,
        "Transactions of every type.",
        "transactions",
    ),
    Feature(
        "avg_transaction_amount", "transaction", "number", "base currency", 0, None, _WINDOW, 0,
        "Mean of the absolute amounts, credit notes apart.",
        "CAST(volume AS DOUBLE) / nullif(amounts, 0)",
    ),
    Feature(
        "total_transaction_volume_6m", "transaction", "number", "base currency", 0, None, _WINDOW, 0,
        "Sum of the absolute amounts, credit notes apart.",
        "volume",
    ),
    Feature(
        "transaction_regularity_score", "transaction", "number", "points", 0, 100, _WINDOW, 0,
        "100 * (1 - min(cv, 1)); cv = population standard deviation / mean of the monthly sums of absolute amounts, credit "
        "notes apart, over the UTC calendar months that have any amount (a month cut by the window counts with what lies in "
        "it). In this order: no amount at all (no transaction, or credit notes only): no data; one month only: 50; all "
        "sums zero: 0.",
        f"CASE WHEN months = 0 THEN NULL WHEN months = 1 THEN 50 WHEN volume = 0 THEN 0 "
        f"ELSE 100 * (1 - least(sqrt({_VARIANCE}) / {_MEAN}, 1)) END",
    ),
    Feature(
        "payment_type_diversity", "transaction", "count", "types", 0, 3, _WINDOW, 0,
        "Distinct types among the transactions: invoice, payment, credit_note.",
        "CAST(invoices > 0 AS INTEGER) + CAST(payments > 0 AS INTEGER) + CAST(credit_notes > 0 AS INTEGER)",
    ),
    Feature(
        "recent_activity_flag", "transaction", "flag", "0/1", 0, 1, "(as_of - 30 d, as_of]", 0,
        "Whether there is any transaction, of any type.",
        "last_ts > $recent_start",
    ),
    Feature(
        "credit_note_ratio_6m", "transaction", "number", "share", 0, 1, _WINDOW, None,
        "Credit notes / transactions, by count; NULL without transactions.",
        "CAST(credit_notes AS DOUBLE) / nullif(transactions, 0)",
    ),
    Feature(
        "volume_trend_6m", "transaction", "number", "ratio", -1, 1, _WINDOW, None,
        "(B - A) / (A + B), A and B the volumes (absolute amounts, credit notes apart) of (as_of - 180 d, as_of - 90 d] and "
        "(as_of - 90 d, as_of]: -1 when all business is old, 1 when all is new; NULL when both are zero.",
        "CAST(2 * late_half_volume - volume AS DOUBLE) / nullif(CAST(volume AS DOUBLE), 0)",
    ),
    Feature(
        "customer_concentration_6m", "transaction", "number", "HHI", 0, 1, _WINDOW, None,
        "Herfindahl index of the invoices: sum over counterparties of (its share of the absolute invoice amounts) squared; "
        "1 = one customer only; NULL without invoiced amounts.",
        "customer_hhi",
    ),
    Feature(
        "supplier_concentration_6m", "transaction", "number", "HHI", 0, 1, _WINDOW, None,
        "Herfindahl index of the payments: sum over counterparties of (its share of the absolute payment amounts) squared; "
        "1 = one supplier only; NULL without paid amounts.",
        "supplier_hhi",
    ),
    Feature(
        "days_past_due_mean_6m", "transaction", "number", "days", 0, None, _DUE_WINDOW, None,
        "Mean days past due of the party's invoices (ts up to as_of) with a due_date in the window. An invoice is settled by "
        "the earliest payment or credit note up to as_of, of whichever party, that names it in settles_txn_id; its days past "
        "due are max(0, settled - due_date), or as_of - due_date while open, with fractions. NULL when none fell due.",
        "CAST(late_us AS DOUBLE) / invoices_due / 86400e6",
    ),
    Feature(
        "days_past_due_max_6m", "transaction", "number", "days", 0, None, _DUE_WINDOW, None,
        "Largest days past due among the invoices of days_past_due_mean_6m. NULL when none fell due.",
        "CAST(latest_us AS DOUBLE) / 86400e6",
    ),
    Feature(
        "late_payment_ratio_6m", "transaction", "number", "share", 0, 1, _DUE_WINDOW, None,
        "Share of the invoices of days_past_due_mean_6m with more than 0 days past due. NULL when none fell due.",
        "CAST(invoices_late AS DOUBLE) / invoices_due",
    ),
)  # fmt: skip


def _items(columns: dict[str, str]) -> str:
    return ", ".join(f"{expression} AS {name}" for name, expression in columns.items())


def _hhi(amount: str) -> str:
    """Herfindahl index over the rows of `pairs` of one party."""
    share = f"(CAST(pairs.{amount} AS DOUBLE) / nullif(CAST(turnover.{amount} AS DOUBLE), 0))"
    return (
        f"CAST(sum(CAST(floor({_squared(share)} * {_SHARE_UNITS}e0) AS BIGINT)) AS DOUBLE) / {_SHARE_UNITS}e0"
    )


def query() -> str:
    """SELECT of party_id and every transaction feature, one row per party of `$batch_id`."""
    return f"""
WITH activity AS (
  SELECT t.party_id, {_items(ACTIVITY)}
  FROM {TRANSACTIONS.qualified} AS t WHERE t.batch_id = $batch_id AND {_IN_WINDOW} GROUP BY t.party_id
),
totals AS (SELECT *, {_items(TOTALS)} FROM activity),
pairs AS MATERIALIZED (
  SELECT t.party_id, t.counterparty_id,
    sum(abs(t.amount_base)) FILTER (WHERE t.txn_type = 'invoice') AS invoiced,
    sum(abs(t.amount_base)) FILTER (WHERE t.txn_type = 'payment') AS paid
  FROM {TRANSACTIONS.qualified} AS t WHERE t.batch_id = $batch_id AND {_IN_WINDOW}
  GROUP BY t.party_id, t.counterparty_id
),
turnover AS (SELECT party_id, sum(invoiced) AS invoiced, sum(paid) AS paid FROM pairs GROUP BY party_id),
concentration AS (
  SELECT party_id, {_hhi("invoiced")} AS customer_hhi, {_hhi("paid")} AS supplier_hhi
  FROM pairs JOIN turnover USING (party_id) GROUP BY party_id
),
settled AS (
  SELECT t.settles_txn_id AS txn_id, min(t.ts) AS ts FROM {TRANSACTIONS.qualified} AS t
  WHERE t.batch_id = $batch_id AND t.ts <= $as_of
    AND t.settles_txn_id IS NOT NULL AND t.txn_type IN ('payment', 'credit_note')
  GROUP BY t.settles_txn_id
),
due AS (
  SELECT t.party_id, greatest(epoch_us(coalesce(settled.ts, $as_of)) - epoch_us(t.due_date), 0) AS late_us
  FROM {TRANSACTIONS.qualified} AS t LEFT JOIN settled USING (txn_id)
  WHERE t.batch_id = $batch_id AND t.ts <= $as_of AND t.txn_type = 'invoice'
    AND t.due_date > $window_start AND t.due_date <= $as_of
),
punctuality AS (
  SELECT party_id, count(*) AS invoices_due, count(*) FILTER (WHERE late_us > 0) AS invoices_late,
    sum(CAST(late_us AS DECIMAL(20, 0))) AS late_us, max(late_us) AS latest_us
  FROM due GROUP BY party_id
)
SELECT party_id, {", ".join(feature.select for feature in FEATURES)}
FROM (SELECT party_id FROM {PARTIES.qualified} WHERE batch_id = $batch_id)
LEFT JOIN totals USING (party_id) LEFT JOIN concentration USING (party_id) LEFT JOIN punctuality USING (party_id)
"""
