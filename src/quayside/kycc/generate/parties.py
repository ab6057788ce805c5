"""Parties and their accounts: what is drawn once per party, as arrays of one value per party."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from quayside.kycc.generate import contacts
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
from quayside.kycc.generate.tiers import ACCOUNT_TYPES, PARTY_TYPES, TIERS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from quayside.kycc.generate.spec import BatchSpec

PARTY_SCHEMA: Final = pa.schema(
    {
        "party_id": TEXT,
        "name": TEXT,
        "profile": CODE,
        "party_type": CODE,
        "kyc_verified": pa.int8(),
        "tax_id": TEXT,
        "contact_person": TEXT,
        "email": TEXT,
        "phone": TEXT,
        "address": TEXT,
        "registration_number": TEXT,
        "created_at": TIME,
        "batch_id": CODE,
    }
)
ACCOUNT_SCHEMA: Final = pa.schema(
    {
        "account_id": TEXT,
        "party_id": TEXT,
        "account_type": CODE,
        "currency": CODE,
        "balance": MONEY,
        "batch_id": CODE,
    }
)


@dataclass(frozen=True)
class Parties:
    """Arrays of shape (parties,). Codes index `TIERS`, `PARTY_TYPES`, `ACCOUNT_TYPES` and the batch's currencies."""

    tier: NDArray[np.int8]
    type: NDArray[np.int8]
    kyc_verified: NDArray[np.bool_]
    has_tax_id: NDArray[np.bool_]
    contact_share: NDArray[np.float64]
    created: NDArray[np.int64]  # seconds since 1970
    base_amount: NDArray[np.float64]  # base currency
    weakness: NDArray[np.float64]  # standard normal
    account_type: NDArray[np.int8]
    currency: NDArray[np.int8]
    balance: NDArray[np.float64]  # account's currency
    transactions: NDArray[np.int64]
    recent: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.tier)


def by_tier(attribute: str, tier: NDArray[np.int8]) -> NDArray[np.float64]:
    """A tier parameter for each party: shape (n,), or (n, 2) for a range."""
    return np.array([getattr(each, attribute) for each in TIERS], dtype=np.float64)[tier]


def draw_parties(spec: BatchSpec) -> Parties:
    """Draw every party. The number per tier is exact (largest remainder), their order is random."""
    n = spec.parties
    rng = spec.party_stream("parties")
    tier = rng.permutation(np.repeat(np.arange(len(TIERS), dtype=np.int8), tier_counts(spec)))

    def between(attribute: str, rng: np.random.Generator) -> NDArray[np.float64]:
        low, high = by_tier(attribute, tier).T
        return low + (high - low) * rng.random(n)

    type_ends = np.cumsum([each.types for each in TIERS], axis=1)
    type_ends[:, -1] = 1.0
    type_ = (rng.random(n)[:, None] >= type_ends[tier]).sum(axis=1).astype(np.int8)
    kyc_verified = rng.random(n) < by_tier("kyc_verified", tier)
    has_tax_id = rng.random(n) < by_tier("tax_id", tier)
    contact_share = between("contact", rng)
    age_days = between("age_years", rng) * 365.25
    base_amount = between("amount", rng)
    weakness = rng.standard_normal(n)
    account_type = (rng.random(n) < by_tier("savings", tier)).astype(np.int8)

    rng = spec.batch_stream("parties")
    # The base currency has six accounts in ten, the others share the rest.
    others = len(spec.currencies) - 1
    currency = np.zeros(n, dtype=np.int8)
    if others:
        currency = np.where(rng.random(n) < 0.6, 0, 1 + rng.integers(others, size=n)).astype(np.int8)
    today = np.array([spec.as_of // DAY])
    unit = np.array([rates(code, spec.currencies[0], today)[0] for code in spec.currencies])
    balance = between("balance", rng) / unit[currency]
    low, high = by_tier("transactions", tier).astype(np.int64).T
    transactions = rng.integers(low, high + 1) if n > 1 else np.zeros(1, dtype=np.int64)
    recent = rng.random(n) < by_tier("recent", tier)
    return Parties(
        tier,
        type_,
        kyc_verified,
        has_tax_id,
        contact_share,
        spec.drawn_as_of - np.round(age_days * DAY).astype(np.int64),
        base_amount,
        weakness,
        account_type,
        currency,
        balance,
        transactions,
        recent,
    )


def tier_counts(spec: BatchSpec) -> NDArray[np.int64]:
    """Parties per tier: shares × parties, rounded so that they add up (largest remainder first)."""
    exact = np.array(list(spec.shares.values())) * spec.parties
    counts = np.floor(exact + 1e-9).astype(np.int64)
    largest = np.argsort(counts - exact, kind="stable")
    counts[largest[: spec.parties - counts.sum()]] += 1
    return counts


def party_ids(spec: BatchSpec, start: int, stop: int) -> pa.Array:
    """Ids of the parties start … stop − 1."""
    return fixed_text(
        f"P-{spec.parties_tag}-".encode(), digits(np.arange(start, stop) + 1, 7), rows=stop - start
    )


def account_ids(spec: BatchSpec, start: int, stop: int) -> pa.Array:
    """Ids of the accounts of the parties start … stop − 1: one each."""
    return fixed_text(
        f"ACC-{spec.parties_tag}-".encode(), digits(np.arange(start, stop) + 1, 7), rows=stop - start
    )


def party_rows(spec: BatchSpec, parties: Parties, start: int, stop: int, block: int) -> pa.RecordBatch:
    """Rows of the parties table. Names and contacts come from the block's own stream."""
    rows, part = stop - start, slice(start, stop)
    text = contacts.draw(
        spec.party_stream("contacts", block), parties.type[part], parties.contact_share[part]
    )
    has_tax_id = parties.has_tax_id[part]
    # Numbers jump about but never repeat: the factor has no divisor in common with 10**9.
    numbers = (np.arange(start, stop)[has_tax_id] * 387_420_489 + 123_456_789) % 10**9
    return pa.record_batch(
        [
            party_ids(spec, start, stop),
            text["name"],
            coded(parties.tier[part], [tier.name for tier in TIERS]),
            coded(parties.type[part], PARTY_TYPES),
            pa.array(parties.kyc_verified[part].astype(np.int8)),
            fixed_text(f"TAX-{spec.parties_tag}-".encode(), digits(numbers, 9), rows=rows, valid=has_tax_id),
            text["contact_person"],
            text["email"],
            text["phone"],
            text["address"],
            text["registration_number"],
            moments(parties.created[part]),
            constant(spec.batch_id, rows),
        ],
        schema=PARTY_SCHEMA,
    )


def account_rows(spec: BatchSpec, parties: Parties, start: int, stop: int) -> pa.RecordBatch:
    """Rows of the accounts table: one account per party."""
    part = slice(start, stop)
    return pa.record_batch(
        [
            account_ids(spec, start, stop),
            party_ids(spec, start, stop),
            coded(parties.account_type[part], ACCOUNT_TYPES),
            coded(parties.currency[part], spec.currencies),
            money(np.round(parties.balance[part] * 100).astype(np.int64)),
            constant(spec.batch_id, stop - start),
        ],
        schema=ACCOUNT_SCHEMA,
    )
