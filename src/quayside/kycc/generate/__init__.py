"""Synthetic batches of trade counterparties, for tests, demos and benchmarks.

`generate` draws a batch; `write_json`, `write_parquet`, `write_outcomes` and `write_fx_rates` put it into the files
that ingest reads. The same arguments give the same bytes in any process, with any number of threads. Nothing here
reads the clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quayside.kycc.generate.batch import Batch
from quayside.kycc.generate.network import draw_network
from quayside.kycc.generate.parties import draw_parties
from quayside.kycc.generate.spec import BatchSpec, Population
from quayside.kycc.generate.writers import write_fx_rates, write_json, write_outcomes, write_parquet

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

__all__ = [
    "Batch",
    "BatchSpec",
    "Population",
    "generate",
    "write_fx_rates",
    "write_json",
    "write_outcomes",
    "write_parquet",
]


def generate(
    batch_id: str,
    parties: int,
    *,
    generated_at: datetime,
    mix: str = "balanced",
    seed: int = 42,
    population: Population | None = None,
    currencies: Sequence[str] = ("USD",),
) -> Batch:
    """Draw a batch.

    Args:
        batch_id: name of the batch. Party ids carry a digest of it, so that two batches never share a party by accident.
        parties: how many, about 105 transactions and 6.7 relationships each in the balanced mix.
        generated_at: moment of the batch, with a time zone: transactions lie in the 180 days before it, outcomes in the
            180 days after it. Cut to whole seconds.
        mix: shares of the tiers: balanced, risky or safe.
        seed: any whole number.
        population: draws the parties of a named population instead, to observe the same parties in several batches.
        currencies: the base currency first. With more than one, four accounts in ten are in one of the others.

    Raises:
        UsageError: an argument cannot be used; the sentence names it.
    """
    spec = BatchSpec(batch_id, parties, mix, seed, generated_at, population, tuple(currencies))
    drawn = draw_parties(spec)
    return Batch(spec, drawn, draw_network(spec, drawn))
