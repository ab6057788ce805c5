"""Rows of the transactions table, by party and then by time."""

from __future__ import annotations

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
from quayside.kycc.generate.fx import DAY
from quayside.kycc.generate.ledger import Block
from quayside.kycc.generate.parties import account_ids
from quayside.kycc.generate.tiers import TXN_TYPES, WINDOW_DAYS

if TYPE_CHECKING:
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
_REFERENCES: Final = np.array([b"INV-", b"PAY-", b"CRN-"])
_DIGITS: Final = 10
#: A sort key holds party, second of the window and row, 2,048 parties with 300 rows each: 11 + 24 + 24 bits.
_TIME_BITS: Final = 24
_ROW_BITS: Final = 24


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
    """Transactions of the parties start … stop − 1.

    Args:
        party_ids: ids of all parties of the batch.
        block: names the block's random stream.
        first_number: number of the block's first transaction in the batch, from 1.
    """
    rng = spec.batch_stream("transactions", block)
    invoices, payments, notes = Block(spec, parties, network, rng, start, stop).draw()
    kinds = (invoices, payments, notes)

    at = np.concatenate([kind.at for kind in kinds])
    of = np.concatenate([kind.of for kind in kinds])
    rows = len(at)
    # The key is unique, so that the order does not depend on how this machine sorts.
    key = (of << _TIME_BITS) | (at - (spec.as_of - WINDOW_DAYS * DAY))
    key = np.sort((key << _ROW_BITS) | np.arange(rows))
    order = key & ((1 << _ROW_BITS) - 1)
    of = of[order]

    number = np.arange(first_number, first_number + rows)
    number_of_drawn = np.empty(rows, dtype=np.int64)
    number_of_drawn[order] = number
    settled = np.zeros(rows, dtype=np.int64)
    settled[len(invoices) : len(invoices) + len(payments)] = np.where(
        payments.settles >= 0, number_of_drawn[payments.settles], 0
    )
    settled = settled[order]
    settles = settled > 0
    type_ = np.repeat([_INVOICE, _PAYMENT, _CREDIT_NOTE], [len(kind) for kind in kinds])[order]
    due = np.zeros(rows, dtype=np.int64)
    due[: len(invoices)] = invoices.due
    # A payment quotes the invoice it settles.
    reference = _REFERENCES[np.where(settles, _INVOICE, type_)]
    txn = f"TXN-{spec.batch_tag}-".encode()
    return pa.record_batch(
        [
            fixed_text(txn, digits(number, _DIGITS), rows=rows),
            coded(of, party_ids.slice(start, stop - start)),
            party_ids.take(pa.array(np.concatenate([kind.partner for kind in kinds])[order])),
            coded(of, account_ids(spec, start, stop)),
            money(np.concatenate([kind.cents for kind in kinds])[order]),
            coded(parties.currency[start:stop][of], spec.currencies),
            coded(type_, TXN_TYPES),
            moments(at[order]),
            fixed_text(reference, digits(np.where(settles, settled, number), _DIGITS), rows=rows),
            moments(due[order], valid=type_ == _INVOICE),
            fixed_text(txn, digits(settled[settles], _DIGITS), rows=rows, valid=settles),
            constant(spec.batch_id, rows),
        ],
        schema=SCHEMA,
    )
