"""The trading network: directed edges from source to target, downstream, and who is whose neighbour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from quayside.kycc.generate.columns import CODE, TEXT, TIME, coded, constant, digits, fixed_text, moments
from quayside.kycc.generate.fx import DAY
from quayside.kycc.generate.parties import by_tier
from quayside.kycc.generate.tiers import EDGE_KINDS, PARTY_TYPES, RELATIONSHIP_TYPES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from quayside.kycc.generate.parties import Parties
    from quayside.kycc.generate.spec import BatchSpec

SCHEMA: Final = pa.schema(
    {
        "relationship_id": TEXT,
        "from_party_id": TEXT,
        "to_party_id": TEXT,
        "relationship_type": CODE,
        "established_date": TIME,
        "batch_id": CODE,
    }
)


@dataclass(frozen=True)
class Network:
    """Edges as arrays of shape (edges,), and each party's neighbours in one list.

    Neighbours of party p are ``neighbours[start[p]:start[p + 1]]``: its `suppliers[p]` suppliers first, then those it
    sells to.
    """

    source: NDArray[np.int32]
    target: NDArray[np.int32]
    kind: NDArray[np.int8]  # index into RELATIONSHIP_TYPES
    established: NDArray[np.int64]  # seconds since 1970
    start: NDArray[np.int64]
    suppliers: NDArray[np.int64]
    neighbours: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.source)


def draw_network(spec: BatchSpec, parties: Parties) -> Network:
    """Every target draws its number of sources by its tier; sources of one target are distinct."""
    sources: list[NDArray[np.int32]] = []
    targets: list[NDArray[np.int32]] = []
    kinds: list[NDArray[np.int8]] = []
    of_type = [np.flatnonzero(parties.type == code).astype(np.int32) for code in range(len(PARTY_TYPES))]
    for source_type, target_type, kind in EDGE_KINDS:
        pool, target = of_type[PARTY_TYPES.index(source_type)], of_type[PARTY_TYPES.index(target_type)]
        if not len(pool) or not len(target):
            continue
        rng = spec.party_stream(f"edges {source_type} {target_type}")
        low, high = by_tier("suppliers", parties.tier[target]).astype(np.int64).T
        wanted = np.minimum(rng.integers(low, high + 1), len(pool))
        sources.append(pool[_distinct(rng, wanted, len(pool))])
        targets.append(np.repeat(target, wanted))
        kinds.append(np.full(int(wanted.sum()), RELATIONSHIP_TYPES.index(kind), dtype=np.int8))
    source = np.concatenate([np.empty(0, np.int32), *sources])
    target = np.concatenate([np.empty(0, np.int32), *targets])
    # At most a year old, and never older than either of its ends.
    youngest = np.maximum(parties.created[source], parties.created[target])
    span = np.minimum(spec.drawn_as_of - youngest, 365 * DAY)
    age = spec.party_stream("established").random(len(source)) * span
    established = spec.drawn_as_of - age.astype(np.int64)

    n = len(parties)
    suppliers = np.bincount(target, minlength=n)
    degree = suppliers + np.bincount(source, minlength=n)
    start = np.concatenate([[0], np.cumsum(degree)])
    # Sorting by (party, side, edge) puts each party's suppliers before its customers; a key is unique.
    edges = len(source)
    key = np.concatenate([target.astype(np.int64) * 2, source.astype(np.int64) * 2 + 1]) * max(2 * edges, 1)
    key += np.arange(2 * edges)
    key.sort()
    neighbours = np.concatenate([source, target])[key % max(2 * edges, 1)]
    return Network(
        source,
        target,
        np.concatenate([np.empty(0, np.int8), *kinds]),
        established,
        start,
        suppliers,
        neighbours,
    )


def _distinct(rng: np.random.Generator, wanted: NDArray[np.int64], pool: int) -> NDArray[np.int64]:
    """For each row, `wanted` different numbers below `pool`, row after row (Floyd's algorithm, all rows at once)."""
    most = int(wanted.max())
    chosen = np.full((len(wanted), most), -1, dtype=np.int64)
    for step in range(most):
        last = pool - wanted + step
        number = (rng.random(len(wanted)) * (last + 1)).astype(np.int64)
        taken = (chosen[:, :step] == number[:, None]).any(axis=1)
        chosen[:, step] = np.where(taken, last, number)
    return chosen[np.arange(most) < wanted[:, None]]


def relationship_rows(
    spec: BatchSpec, network: Network, party_ids: pa.Array, start: int, stop: int
) -> pa.RecordBatch:
    """Rows of the relationships table, for the edges start … stop − 1."""
    part, rows = slice(start, stop), stop - start
    return pa.record_batch(
        [
            fixed_text(f"REL-{spec.parties_tag}-".encode(), digits(np.arange(start, stop) + 1, 9), rows=rows),
            party_ids.take(pa.array(network.source[part])),
            party_ids.take(pa.array(network.target[part])),
            coded(network.kind[part], RELATIONSHIP_TYPES),
            moments(network.established[part]),
            constant(spec.batch_id, rows),
        ],
        schema=SCHEMA,
    )
