"""Transactions of a block of parties, all rows at once.

A party's ledger holds the invoices it owes or is owed by its neighbours, the payments that settle them, and credit
notes (negative amounts). Of k transactions that are not credit notes the first `INVOICE_SHARE` are invoices, spread
evenly with jitter over the party's active days, bent by its trend. Payment j settles invoice j, on time or late; when
that would be after the last active day, the payment is one for an older invoice, which the batch does not hold, and
the invoice stays open. Open invoices are overdue when their party is late with them, otherwise not due yet.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from quayside.kycc.generate.columns import (
    CODE,
    MONEY,
    TEXT,
    TIME,
    coded,
    constant,
    digits,
    fixed_text,
    moments,
    money,
)
from quayside.kycc.generate.fx import DAY, rates
from quayside.kycc.generate.parties import account_ids, by_tier
from quayside.kycc.generate.tiers import (
    INVOICE_SHARE,
    RECENT_DAYS,
    TIERS,
    TXN_TYPES,
    WEAKNESS_IN_LATENESS,
    WEAKNESS_IN_TREND,
    WINDOW_DAYS,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from quayside.kycc.generate.network import Network
    from quayside.kycc.generate.parties import Parties
    from quayside.kycc.generate.spec import BatchSpec

SCHEMA: Final = pa.schema(
    {
        "txn_id": TEXT,
        "party_id": CODE,
        "counterparty_id": TEXT,
        "account_id": CODE,
        "amount": MONEY,
        "currency": CODE,
        "txn_type": CODE,
        "ts": TIME,
        "reference": TEXT,
        "due_date": TIME,
        "settles_txn_id": TEXT,
        "batch_id": CODE,
    }
)

_INVOICE, _PAYMENT, _CREDIT_NOTE = range(len(TXN_TYPES))
_PREFIXES: Final = np.array([b"INV-", b"PAY-", b"CRN-"])
#: Days an invoice leaves for its payment, and the longer ones of invoices that are not due yet.
_TERMS: Final = np.array([30, 45, 60])
_LONG_TERMS: Final = np.array([30, 45, 60, 90, 120, 150, 180])
_EARLY_DAYS: Final = 10  # a payment on time comes up to this long before the due date
_LATE_DAYS: Final = 45  # and a late one up to this long after it
_ROW_BITS: Final = 24  # rows of a block in a sort key
_TIME_BITS: Final = 25  # seconds of the window in a sort key


def transaction_rows(
    spec: BatchSpec,
    parties: Parties,
    network: Network,
    party_ids: pa.Array,
    *,
    start: int,
    stop: int,
    block: int,
    first_number: int,
) -> pa.RecordBatch:
    """Rows of the transactions table for the parties start … stop − 1, by party and then by time.

    Args:
        party_ids: ids of all parties of the batch.
        block: names the block's random stream.
        first_number: number of the block's first transaction in the batch, from 0.
    """
    rng = spec.batch_stream("transactions", block)
    party = slice(start, stop)
    tier = parties.tier[party]
    count = parties.transactions[party]
    notes = np.minimum(rng.binomial(count, by_tier("credit_note", tier)), np.maximum(count - 1, 0))
    regular = count - notes
    invoices = np.ceil(regular * INVOICE_SHARE).astype(np.int64)
    payments = regular - invoices

    # Active days: (low, high], whole seconds.
    high = np.where(parties.recent[party], spec.as_of, spec.as_of - RECENT_DAYS * DAY)
    low = np.maximum(spec.as_of - WINDOW_DAYS * DAY, parties.created[party])
    weakness = parties.weakness[party]
    noise = rng.standard_normal(len(tier))
    bend = WEAKNESS_IN_TREND * weakness + np.sqrt(1 - WEAKNESS_IN_TREND**2) * noise
    bend = np.exp(by_tier("trend", tier) * bend)

    # Invoices: `of` is the position of each row's party in the block, `rank` its place within the party.
    of, rank = _expand(invoices)
    rows = len(of)
    place = ((rank + rng.random(rows)) / invoices[of]) ** bend[of]
    invoiced = high[of] - ((1 - place) * (high - low)[of]).astype(np.int64)
    invoiced = np.maximum(invoiced, low[of] + 1)
    newest = np.cumsum(invoices)[invoices > 0] - 1
    recent = newest[parties.recent[party][of[newest]]]
    invoiced[recent] = spec.as_of - (rng.random(len(recent)) * RECENT_DAYS * DAY).astype(np.int64)
    invoice_partner = _partners(rng, network, start + of, len(parties))
    # Nobody is invoiced before they exist; the youngest party is older than any inactive stretch.
    invoiced = np.maximum(invoiced, parties.created[invoice_partner] + 1)
    invoice_cents = _cents(rng, spec, parties, start + of, invoiced)
    terms = _TERMS[rng.integers(len(_TERMS), size=rows)]
    due = _midnight_after(invoiced + terms * DAY)
    threshold = np.array([NormalDist().inv_cdf(1 - each.late) for each in TIERS])[tier]
    effort = WEAKNESS_IN_LATENESS * weakness
    late = effort[of] + np.sqrt(1 - WEAKNESS_IN_LATENESS**2) * rng.standard_normal(rows) > threshold[of]

    # Payments.
    payer, rank = _expand(payments)
    settled = (np.cumsum(invoices) - invoices)[payer] + rank
    delay = rng.random(len(payer))
    paid = due[settled] + np.where(
        late[settled], DAY + delay**2 * (_LATE_DAYS - 1) * DAY, -delay * _EARLY_DAYS * DAY
    ).astype(np.int64)
    settles = paid <= high[payer]
    older = np.flatnonzero(~settles)
    of_older = payer[older]
    payment_partner = invoice_partner[settled]
    payment_partner[older] = _partners(rng, network, start + of_older, len(parties))
    paid[older] = _any_time(rng, low[of_older], high[of_older], parties.created[payment_partner[older]])
    payment_cents = invoice_cents[settled]
    payment_cents[older] = _cents(rng, spec, parties, start + of_older, paid[older])

    is_open = np.ones(rows, dtype=bool)
    is_open[settled[settles]] = False
    waiting = np.flatnonzero(is_open & ~late)
    longer = _LONG_TERMS[np.searchsorted(_LONG_TERMS, (spec.as_of - invoiced[waiting]) / DAY, side="right")]
    due[waiting] = _midnight_after(invoiced[waiting] + np.maximum(terms[waiting], longer) * DAY)

    # Credit notes.
    noter, _ = _expand(notes)
    note_partner = _partners(rng, network, start + noter, len(parties))
    noted = _any_time(rng, low[noter], high[noter], parties.created[note_partner])
    note_cents = -_cents(rng, spec, parties, start + noter, noted)

    # Together, by party and time. The key holds all three, so that the order is the same on any machine.
    who = np.concatenate([of, payer, noter])
    when = np.concatenate([invoiced, paid, noted])
    window_start = spec.as_of - WINDOW_DAYS * DAY
    key = (who << (_TIME_BITS + _ROW_BITS)) | ((when - window_start) << _ROW_BITS) | np.arange(len(who))
    key.sort()
    order = key & ((1 << _ROW_BITS) - 1)
    total = len(order)
    number = np.empty(total, dtype=np.int64)
    number[order] = first_number + np.arange(total)  # of each row before sorting

    kind = np.repeat(
        np.array([_INVOICE, _PAYMENT, _CREDIT_NOTE], dtype=np.int8), [rows, len(payer), len(noter)]
    )[order]
    links = np.full(total, -1, dtype=np.int64)
    links[rows : rows + len(payer)][settles] = number[settled[settles]]
    links = links[order]
    linked = links >= 0
    dues = np.zeros(total, dtype=np.int64)
    dues[:rows] = due
    who = who[order]
    numbers = first_number + np.arange(total)
    txn_prefix = f"TXN-{spec.batch_tag}-".encode()
    # A payment quotes the number of the invoice it settles.
    quoted = np.where(linked, _INVOICE, kind)
    return pa.record_batch(
        [
            fixed_text(txn_prefix, digits(numbers, 9), rows=total),
            coded(who, party_ids.slice(start, stop - start)),
            party_ids.take(pa.array(np.concatenate([invoice_partner, payment_partner, note_partner])[order])),
            coded(who, account_ids(spec, start, stop)),
            money(np.concatenate([invoice_cents, payment_cents, note_cents])[order]),
            coded(parties.currency[party][who], spec.currencies),
            coded(kind, TXN_TYPES),
            moments(when[order]),
            fixed_text(_PREFIXES[quoted], digits(np.where(linked, links, numbers), 9), rows=total),
            moments(dues[order], valid=kind == _INVOICE),
            fixed_text(txn_prefix, digits(links[linked], 9), rows=total, valid=linked),
            constant(spec.batch_id, total),
        ],
        schema=SCHEMA,
    )


def _expand(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """One row per unit of `counts`: the position it belongs to, and its rank there."""
    of = np.repeat(np.arange(len(counts)), counts)
    return of, np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)


def _partners(
    rng: np.random.Generator, network: Network, party: NDArray[np.int64], parties: int
) -> NDArray[np.int64]:
    """A trading partner for each row: a supplier or a customer, some much more often than others; else anybody.

    Args:
        party: whose row it is, as a position among all `parties`; nobody is their own partner.
    """
    chance = rng.random(len(party))
    supplier_side = rng.random(len(party)) < 0.5
    first, suppliers = network.start[party], network.suppliers[party]
    customers = network.start[party + 1] - first - suppliers
    supplier_side = (supplier_side & (suppliers > 0)) | (customers == 0)
    size = np.where(supplier_side, suppliers, customers)
    # The square favours the front of the list, so that trade is concentrated as it is in life.
    position = first + np.where(supplier_side, 0, suppliers) + (size * chance**2).astype(np.int64)
    partner = (party + 1 + (chance * (parties - 1)).astype(np.int64)) % parties
    known = size > 0
    partner[known] = network.neighbours[position[known]]
    return partner


def _cents(
    rng: np.random.Generator,
    spec: BatchSpec,
    parties: Parties,
    party: NDArray[np.int64],
    seconds: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Amounts in the party's currency: base × U(1 − v, 1 + v), converted at the rate of the day."""
    volatility = by_tier("volatility", parties.tier[party])
    amount = parties.base_amount[party] * (1 + volatility * (2 * rng.random(len(party)) - 1))
    if len(spec.currencies) > 1:
        first = spec.as_of // DAY - WINDOW_DAYS
        days = np.arange(first, spec.as_of // DAY + 1)
        table = np.array([rates(code, spec.currencies[0], days) for code in spec.currencies])
        amount /= table[parties.currency[party], seconds // DAY - first]
    return np.round(amount * 100).astype(np.int64)


def _any_time(
    rng: np.random.Generator, low: NDArray[np.int64], high: NDArray[np.int64], not_before: NDArray[np.int64]
) -> NDArray[np.int64]:
    """A second in (max(low, not_before), high] for each row."""
    return high - (rng.random(len(low)) * (high - np.maximum(low, not_before))).astype(np.int64)


def _midnight_after(seconds: NDArray[np.int64]) -> NDArray[np.int64]:
    return -(-seconds // DAY) * DAY
