"""What is asked for: the arguments of a batch, checked once, and every random stream derived from them.

A stream is keyed by a digest of the arguments and its own name, never by Python's salted ``hash()`` and never by how
far another stream was read. So the same arguments give the same batch in any process, with any number of threads.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Final

import numpy as np

from quayside.foundation.errors import UsageError
from quayside.kycc.generate.fx import CURRENCIES
from quayside.kycc.generate.tiers import MIXES, TIERS

MAX_PARTIES: Final = 9_999_999  # ids have seven digits
MAX_BATCH_ID: Final = 200


@dataclass(frozen=True)
class Population:
    """Parties that are observed more than once.

    Batches of one population (same name, seed, number of parties and mix) hold the same parties and relationships:
    same ids, names and founding dates, older at every later moment. Transactions, balances and outcomes are drawn
    anew for each batch. `as_of` is the moment at which ages and relationships are drawn; a batch cannot be earlier.
    """

    name: str
    as_of: datetime


@dataclass(frozen=True)
class BatchSpec:
    """Arguments of one batch. See `quayside.kycc.generate.generate` for their meaning.

    Raises:
        UsageError: one sentence naming the argument that cannot be used.
    """

    batch_id: str
    parties: int
    mix: str
    seed: int
    generated_at: datetime
    population: Population | None
    currencies: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.batch_id.strip() or len(self.batch_id) > MAX_BATCH_ID or not self.batch_id.isprintable():
            raise UsageError(
                f"A batch id must be 1 to {MAX_BATCH_ID} printable characters: {self.batch_id!r:.80}."
            )
        if not 1 <= self.parties <= MAX_PARTIES:
            raise UsageError(f"A batch holds 1 to {MAX_PARTIES:,} parties, not {self.parties:,}.")
        if self.mix not in MIXES:
            raise UsageError(f"Unknown mix {self.mix!r}: choose one of {', '.join(MIXES)}.")
        if unknown := [code for code in self.currencies if code not in CURRENCIES]:
            raise UsageError(f"No rates for currency {unknown[0]!r}: choose from {', '.join(CURRENCIES)}.")
        if not self.currencies or len(set(self.currencies)) < len(self.currencies):
            raise UsageError("Currencies must be a list of different codes, the base currency first.")
        object.__setattr__(self, "generated_at", _moment("generated_at", self.generated_at))
        if self.population is not None:
            since = _moment("the population's as_of", self.population.as_of)
            if since > self.generated_at:
                raise UsageError(
                    f"The batch's generated_at {self.generated_at:%Y-%m-%d %H:%M} is before the population's as_of "
                    f"{since:%Y-%m-%d %H:%M}: choose a later moment for the batch."
                )
            object.__setattr__(self, "population", Population(self.population.name, since))

    @property
    def shares(self) -> dict[str, float]:
        """Share of each tier."""
        return dict(zip((tier.name for tier in TIERS), MIXES[self.mix], strict=True))

    @cached_property
    def as_of(self) -> int:
        """Moment of the batch, in seconds since 1970 UTC."""
        return int(self.generated_at.timestamp())

    @cached_property
    def drawn_as_of(self) -> int:
        """Moment at which ages and relationships are drawn, in seconds since 1970 UTC."""
        return int((self.population.as_of if self.population else self.generated_at).timestamp())

    @cached_property
    def _parties_key(self) -> str:
        kind, name = (
            ("batch", self.batch_id) if self.population is None else ("population", self.population.name)
        )
        return "\x1f".join((kind, name, str(self.seed), str(self.parties), self.mix))

    @cached_property
    def _batch_key(self) -> str:
        return "\x1f".join((self._parties_key, self.batch_id, *self.currencies))

    @cached_property
    def parties_tag(self) -> str:
        """Eight characters in the ids of these parties; differ between batches unless they share a population."""
        return _tag(self._parties_key)

    @cached_property
    def batch_tag(self) -> str:
        """Eight characters in the ids of this batch's transactions."""
        return _tag(self._batch_key)

    def party_stream(self, name: str, block: int = 0) -> np.random.Generator:
        """Random stream of what belongs to the parties and is the same in every batch of a population."""
        return _stream(self._parties_key, name, block)

    def batch_stream(self, name: str, block: int = 0) -> np.random.Generator:
        """Random stream of what belongs to this batch alone."""
        return _stream(self._batch_key, name, block)


def _tag(key: str) -> str:
    return base64.b32encode(hashlib.blake2b(key.encode(), digest_size=5).digest()).decode()


def _stream(key: str, name: str, block: int) -> np.random.Generator:
    digest = hashlib.blake2b(f"{key}\x1e{name}\x1e{block}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(int.from_bytes(digest))))


def _moment(argument: str, value: datetime) -> datetime:
    """The same moment in UTC, cut to whole seconds."""
    if value.tzinfo is None:
        raise UsageError(f"{argument} {value.isoformat()} has no time zone: add one, for example +00:00.")
    if not 1900 <= value.year <= 9900:
        raise UsageError(f"{argument} {value.isoformat()} is not between the years 1900 and 9900.")
    return value.astimezone(UTC).replace(microsecond=0)
