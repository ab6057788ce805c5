"""Outcomes: what became of the parties after the moment of the batch. Kept apart from the batch, so that no label can
reach a feature."""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from quayside.kycc.generate.columns import CODE, MONEY, TEXT, TIME, coded, moments, money
from quayside.kycc.generate.fx import DAY
from quayside.kycc.generate.tiers import EVENT_SHARES, EVENTS, TIERS, WEAKNESS_IN_DEFAULT, WINDOW_DAYS

if TYPE_CHECKING:
    from quayside.kycc.generate.parties import Parties
    from quayside.kycc.generate.spec import BatchSpec

SCHEMA: Final = pa.schema({"party_id": TEXT, "event": CODE, "event_date": TIME, "amount": MONEY})


def outcome_rows(spec: BatchSpec, parties: Parties, party_ids: pa.Array) -> pa.RecordBatch:
    """One event for each party that defaults, strictly after the batch's moment and within `WINDOW_DAYS`.

    The share of defaults in a tier is the tier's rate; within the tier, weaker parties default more often. Amounts are
    in the base currency.
    """
    rng = spec.batch_stream("outcomes")
    n = len(parties)
    threshold = np.array([NormalDist().inv_cdf(1 - tier.default) for tier in TIERS])[parties.tier]
    noise = rng.standard_normal(n)
    latent = WEAKNESS_IN_DEFAULT * parties.weakness + np.sqrt(1 - WEAKNESS_IN_DEFAULT**2) * noise
    party = np.flatnonzero(latent > threshold)
    event = np.searchsorted(np.cumsum(EVENT_SHARES)[:-1], rng.random(len(party)), side="right")
    after = 1 + (rng.random(len(party)) * WINDOW_DAYS * DAY).astype(np.int64)
    amount = parties.base_amount[party] * (0.5 + 2.5 * rng.random(len(party)))
    return pa.record_batch(
        [
            party_ids.take(pa.array(party)),
            coded(event, EVENTS),
            moments(spec.as_of + after),
            money(np.round(amount * 100).astype(np.int64)),
        ],
        schema=SCHEMA,
    )
