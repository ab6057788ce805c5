"""A generated batch: small arrays in memory, rows made when asked for, block by block."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import numpy as np
import pyarrow as pa

from quayside.kycc.generate import network, outcomes, parties, transactions
from quayside.kycc.generate.fx import DAY, rates
from quayside.kycc.generate.tiers import TIERS, WINDOW_DAYS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from quayside.kycc.generate.spec import BatchSpec

TableName = Literal["parties", "accounts", "transactions", "relationships"]
T = TypeVar("T")

SCHEMAS: Final[dict[TableName, pa.Schema]] = {
    "parties": parties.PARTY_SCHEMA,
    "accounts": parties.ACCOUNT_SCHEMA,
    "transactions": transactions.SCHEMA,
    "relationships": network.SCHEMA,
}
#: Parties (or, for relationships, edges) in a block. Part of what a seed means: a block has its own random streams.
#: It is also a row group of Parquet: 2,048 parties have about 216,000 transactions.
BLOCK: Final[dict[TableName, int]] = {
    "parties": 65_536,
    "accounts": 65_536,
    "transactions": 2_048,
    "relationships": 131_072,
}


@dataclass(frozen=True)
class Batch:
    """Everything drawn for one batch.

    `blocks` streams a table's rows in bounded memory, whatever the size; the properties `parties`, `accounts`,
    `transactions` and `relationships` hold the whole table.
    """

    spec: BatchSpec
    drawn: parties.Parties = field(repr=False)
    network: network.Network = field(repr=False)

    @property
    def counts(self) -> dict[TableName, int]:
        """Rows of each table."""
        n = len(self.drawn)
        return {
            "parties": n,
            "accounts": n,
            "transactions": int(self.drawn.transactions.sum()),
            "relationships": len(self.network),
        }

    @property
    def provenance(self) -> dict[str, Any]:
        """How the batch came about: the keys of a batch file that are not tables."""
        tiers = np.bincount(self.drawn.tier, minlength=len(TIERS))
        return {
            "batch_id": self.spec.batch_id,
            "seed": self.spec.seed,
            "generated_at": iso(self.spec.generated_at),
            "distribution": self.spec.shares,
            "counts": dict(self.counts),
            "profile_breakdown": {tier.name: int(count) for tier, count in zip(TIERS, tiers, strict=True)},
        }

    @property
    def observed_through(self) -> datetime:
        """Until when outcomes are known."""
        return self.spec.generated_at + timedelta(days=WINDOW_DAYS)

    def blocks(
        self,
        table: TableName,
        transform: Callable[[pa.RecordBatch], T] = lambda rows: rows,
        threads: int | None = None,
    ) -> Iterator[T]:
        """The rows of a table in order, each block passed through `transform` on a worker thread.

        Args:
            threads: workers; by default one per core. The rows do not depend on it.
        """
        size = BLOCK[table]
        blocks = -(-self._units(table) // size)
        return _ordered(lambda block: transform(self._block(table, block)), blocks, threads)

    def _units(self, table: TableName) -> int:
        return len(self.network) if table == "relationships" else len(self.drawn)

    def _block(self, table: TableName, block: int) -> pa.RecordBatch:
        spec, drawn = self.spec, self.drawn
        start = block * BLOCK[table]
        stop = min(start + BLOCK[table], self._units(table))
        match table:
            case "parties":
                return parties.party_rows(spec, drawn, start, stop, block)
            case "accounts":
                return parties.account_rows(spec, drawn, start, stop)
            case "relationships":
                return network.relationship_rows(spec, self.network, self.party_ids, start, stop)
            case "transactions":
                return transactions.transaction_rows(
                    spec,
                    drawn,
                    self.network,
                    self.party_ids,
                    start=start,
                    stop=stop,
                    block=block,
                    first_number=1 + int(self._transactions_before[block]),
                )

    @cached_property
    def party_ids(self) -> pa.Array:
        """Ids of all parties, in their order."""
        return parties.party_ids(self.spec, 0, len(self.drawn))

    @cached_property
    def _transactions_before(self) -> np.ndarray:
        """Number of transactions before each block of parties."""
        starts = np.arange(0, len(self.drawn), BLOCK["transactions"])
        return np.concatenate([[0], np.cumsum(np.add.reduceat(self.drawn.transactions, starts))])

    def table(self, name: TableName) -> pa.Table:
        """A whole table in memory (about 150 bytes per transaction)."""
        return pa.Table.from_batches(self.blocks(name), schema=SCHEMAS[name])

    @cached_property
    def parties(self) -> pa.Table:
        return self.table("parties")

    @cached_property
    def accounts(self) -> pa.Table:
        return self.table("accounts")

    @cached_property
    def transactions(self) -> pa.Table:
        return self.table("transactions")

    @cached_property
    def relationships(self) -> pa.Table:
        return self.table("relationships")

    @cached_property
    def outcomes(self) -> pa.Table:
        """Events after the batch's moment: party_id, event, event_date, amount (base currency)."""
        return pa.Table.from_batches([outcomes.outcome_rows(self.spec, self.drawn, self.party_ids)])

    @cached_property
    def fx_rates(self) -> pa.Table:
        """Rate of every currency but the base for each day of the window: currency, base_currency, day, rate."""
        base, *others = self.spec.currencies
        last = self.spec.as_of // DAY
        days = np.arange(last - WINDOW_DAYS, last + 1)
        tables = [
            pa.table(
                {
                    "currency": pa.array([code] * len(days), pa.string()),
                    "base_currency": pa.array([base] * len(days), pa.string()),
                    "day": pa.array(days.astype("datetime64[D]")),
                    "rate": pa.array(rates(code, base, days)).cast(pa.decimal128(18, 8), safe=False),
                }
            )
            for code in others
        ]
        return pa.concat_tables(tables) if tables else FX_SCHEMA.empty_table()


FX_SCHEMA: Final = pa.schema(
    {
        "currency": pa.string(),
        "base_currency": pa.string(),
        "day": pa.date32(),
        "rate": pa.decimal128(18, 8),
    }
)


def _ordered(make: Callable[[int], T], count: int, threads: int | None) -> Iterator[T]:
    """``make(0), make(1), …`` in order, a few ahead on worker threads (numpy and Arrow let go of the interpreter)."""
    workers = min(threads or os.cpu_count() or 1, count)
    if workers <= 1:
        yield from map(make, range(count))
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="generate") as pool:
        numbers = iter(range(count))
        pending = [pool.submit(make, number) for number in islice(numbers, workers + 1)]
        try:
            while pending:
                made = pending.pop(0).result()
                pending.extend(pool.submit(make, number) for number in islice(numbers, 1))
                yield made
        finally:
            for future in pending:
                future.cancel()


def iso(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
