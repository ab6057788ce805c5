"""What a block of parties invoiced, paid and credited: drawn for all of its rows at once.

Of a party's k transactions that are not credit notes the first `INVOICE_SHARE` are invoices, spread evenly with jitter
over the days on which it is active, bent by its trend. Payment j settles invoice j, on time or late; when that would be
after the last active day, it pays an older invoice, which the batch does not hold, and invoice j stays open. Open
invoices are overdue when their party is late with them, otherwise not due yet. Credit notes have negative amounts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import TYPE_CHECKING, Final

import numpy as np

from quayside.kycc.generate.fx import DAY, rates
from quayside.kycc.generate.parties import by_tier
from quayside.kycc.generate.tiers import (
    INVOICE_SHARE,
    RECENT_DAYS,
    TIERS,
    WEAKNESS_IN_LATENESS,
    WEAKNESS_IN_TREND,
    WINDOW_DAYS,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from quayside.kycc.generate.network import Network
    from quayside.kycc.generate.parties import Parties
    from quayside.kycc.generate.spec import BatchSpec

#: Days an invoice leaves for its payment, and the longer ones of invoices that are not due yet.
_TERMS: Final = np.array([30, 45, 60])
_LONG_TERMS: Final = np.array([30, 45, 60, 90, 120, 150, 180])
_EARLY_DAYS: Final = 10  # a payment on time comes up to this long before the due date
_LATE_DAYS: Final = 45  # and a late one up to this long after it


@dataclass(frozen=True)
class Entries:
    """Transactions of one type, arrays of one value per row."""

    of: NDArray[np.int64]  # position of the party in the block
    at: NDArray[np.int64]  # seconds since 1970
    partner: NDArray[np.int64]  # position among all parties
    cents: NDArray[np.int64]  # in the party's currency

    def __len__(self) -> int:
        return len(self.of)


@dataclass(frozen=True)
class Invoices(Entries):
    due: NDArray[np.int64]


@dataclass(frozen=True)
class Payments(Entries):
    settles: NDArray[np.int64]  # row of the invoice, −1 when it is an older one


@dataclass(frozen=True)
class Block:
    """The parties start … stop − 1 with the stream their transactions are drawn from."""

    spec: BatchSpec
    parties: Parties
    network: Network
    rng: np.random.Generator
    start: int
    stop: int

    def draw(self) -> tuple[Invoices, Payments, Entries]:
        """Invoices, payments and credit notes, each in the order of the parties."""
        total = self.parties.transactions[self._part]
        notes = np.minimum(
            self.rng.binomial(total, by_tier("credit_note", self._tier)), np.maximum(total - 1, 0)
        )
        regular = total - notes
        invoices = np.ceil(regular * INVOICE_SHARE).astype(np.int64)
        return *self._invoices_and_payments(invoices, regular - invoices), self._credit_notes(notes)

    @cached_property
    def _part(self) -> slice:
        return slice(self.start, self.stop)

    @cached_property
    def _tier(self) -> NDArray[np.int8]:
        return self.parties.tier[self._part]

    @cached_property
    def _high(self) -> NDArray[np.int64]:
        """A party is active in (low, high], in seconds since 1970."""
        quiet = np.where(self.parties.recent[self._part], 0, RECENT_DAYS * DAY)
        return self.spec.as_of - quiet

    @cached_property
    def _low(self) -> NDArray[np.int64]:
        return np.maximum(self.spec.as_of - WINDOW_DAYS * DAY, self.parties.created[self._part])

    def _invoices_and_payments(
        self, invoices: NDArray[np.int64], payments: NDArray[np.int64]
    ) -> tuple[Invoices, Payments]:
        rng, as_of = self.rng, self.spec.as_of
        of, rank = _expand(invoices)
        place = ((rank + rng.random(len(of))) / invoices[of]) ** self._trend()[of]
        at = self._high[of] - ((1 - place) * (self._high - self._low)[of]).astype(np.int64)
        at = np.maximum(at, self._low[of] + 1)
        # Who is active at all in the last days shows it: with the newest invoice, which is never a settled one.
        newest = np.cumsum(invoices)[invoices > 0] - 1
        newest = newest[self.parties.recent[self._part][of[newest]]]
        at[newest] = as_of - (rng.random(len(newest)) * RECENT_DAYS * DAY).astype(np.int64)
        partner = self._partners(of)
        # Nobody is invoiced before they exist. The youngest party is older than RECENT_DAYS by far.
        at = np.maximum(at, self.parties.created[partner] + 1)
        cents = self._cents(of, at)
        terms = _TERMS[rng.integers(len(_TERMS), size=len(of))]
        due = _midnight_after(at + terms * DAY)
        late = self._late(of)

        payer, rank = _expand(payments)
        settles = (np.cumsum(invoices) - invoices)[payer] + rank
        delay = rng.random(len(payer))
        after_due = np.where(late[settles], 1 + delay**2 * (_LATE_DAYS - 1), -delay * _EARLY_DAYS)
        paid = due[settles] + (after_due * DAY).astype(np.int64)
        payee, paid_cents = partner[settles], cents[settles]
        older = np.flatnonzero(paid > self._high[payer])
        payee[older] = self._partners(payer[older])
        paid[older] = self._any_time(payer[older], payee[older])
        paid_cents[older] = self._cents(payer[older], paid[older])
        settles[older] = -1

        is_open = np.ones(len(of), dtype=bool)
        is_open[settles[settles >= 0]] = False
        waiting = np.flatnonzero(is_open & ~late)
        age_days = (as_of - at[waiting]) / DAY
        past_now = _LONG_TERMS[np.searchsorted(_LONG_TERMS, age_days, side="right")]
        due[waiting] = _midnight_after(at[waiting] + np.maximum(terms[waiting], past_now) * DAY)
        return Invoices(of, at, partner, cents, due), Payments(payer, paid, payee, paid_cents, settles)

    def _credit_notes(self, notes: NDArray[np.int64]) -> Entries:
        of, _ = _expand(notes)
        partner = self._partners(of)
        at = self._any_time(of, partner)
        return Entries(of, at, partner, -self._cents(of, at))

    def _trend(self) -> NDArray[np.float64]:
        """Exponent per party: above 1 activity declines over the window, below 1 it grows."""
        noise = self.rng.standard_normal(len(self._tier))
        weakness = self.parties.weakness[self._part]
        return np.exp(by_tier("trend", self._tier) * _blend(WEAKNESS_IN_TREND, weakness, noise))

    def _late(self, of: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether an invoice is paid late: at the tier's rate on average, more often by weaker parties."""
        threshold = np.array([NormalDist().inv_cdf(1 - tier.late) for tier in TIERS])[self._tier]
        noise = self.rng.standard_normal(len(of))
        return _blend(WEAKNESS_IN_LATENESS, self.parties.weakness[self._part][of], noise) > threshold[of]

    def _partners(self, of: NDArray[np.int64]) -> NDArray[np.int64]:
        """A trading partner for each row: a supplier or a customer, some much more often than others; else anybody."""
        network, party = self.network, self.start + of
        chance = self.rng.random(len(of))
        first, suppliers = network.start[party], network.suppliers[party]
        customers = network.start[party + 1] - first - suppliers
        supplier_side = ((self.rng.random(len(of)) < 0.5) & (suppliers > 0)) | (customers == 0)
        size = np.where(supplier_side, suppliers, customers)
        # The square favours the front of the list, so that trade is concentrated as it is in life.
        position = first + np.where(supplier_side, 0, suppliers) + (size * chance**2).astype(np.int64)
        known = size > 0
        others = len(self.parties) - 1
        partner = (party + 1 + (chance * others).astype(np.int64)) % len(self.parties)
        partner[known] = network.neighbours[position[known]]
        return partner

    def _cents(self, of: NDArray[np.int64], at: NDArray[np.int64]) -> NDArray[np.int64]:
        """Amounts in the party's currency: base × U(1 − v, 1 + v), converted at the rate of the day."""
        volatility = by_tier("volatility", self._tier)[of]
        amount = self.parties.base_amount[self._part][of] * (
            1 + volatility * (2 * self.rng.random(len(of)) - 1)
        )
        currencies = self.spec.currencies
        if len(currencies) > 1:
            first = self.spec.as_of // DAY - WINDOW_DAYS
            days = np.arange(first, self.spec.as_of // DAY + 1)
            table = np.array([rates(code, currencies[0], days) for code in currencies])
            amount /= table[self.parties.currency[self._part][of], at // DAY - first]
        return np.round(amount * 100).astype(np.int64)

    def _any_time(self, of: NDArray[np.int64], partner: NDArray[np.int64]) -> NDArray[np.int64]:
        """A second of each row's active days on which its partner exists."""
        low = np.maximum(self._low[of], self.parties.created[partner])
        return self._high[of] - (self.rng.random(len(of)) * (self._high[of] - low)).astype(np.int64)


def _expand(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """One row per unit of `counts`: the position it belongs to, and its rank there."""
    of = np.repeat(np.arange(len(counts)), counts)
    return of, np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)


def _blend(weight: float, cause: NDArray[np.float64], noise: NDArray[np.float64]) -> NDArray[np.float64]:
    """A standard normal whose correlation with `cause` is `weight`."""
    return weight * cause + np.sqrt(1 - weight**2) * noise


def _midnight_after(seconds: NDArray[np.int64]) -> NDArray[np.int64]:
    return -(-seconds // DAY) * DAY
