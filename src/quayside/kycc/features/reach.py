"""How many parties each party reaches downstream within a few hops, and how far away the farthest of them is.

R₀(u) = {u} and R₍ₕ₊₁₎(u) = {u} ∪ ⋃ R₍ₕ₎(v) over the customers v of u: within h hops u reaches |R₍ₕ₎(u)| - 1 parties, and the
last hop at which the set grew is the longest shortest path. The sets are rows of a sparse matrix, so a hop is one
product with the graph. Only sets that somebody points to are kept; those of the others are counted block by block.

Sets can grow like the square of the network. Work and kept entries have a budget; parties whose sets do not fit, the
dearest first, are estimated by `sketch` and marked. Parties with a small reach are cheap and stay exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from quayside.kycc.features import sketch
from quayside.kycc.features.graph import Flags, Graph, Integers, csr, degrees

T = TypeVar("T")

#: Set entries merged in one hop; a core merges 20 to 40 million a second.
WORK_BUDGET: Final = 500_000_000
#: Entries of the sets kept from one hop to the next, 5 bytes each, old and new at once.
KEPT_BUDGET: Final = 100_000_000
#: Entries of one block: what a thread holds at a time.
_BLOCK: Final = 4_000_000


@dataclass(frozen=True)
class Reach:
    """Per node: `size` nodes reached, the farthest `depth` hops away. Where `estimated`, size has the relative standard
    error `error` and depth is a lower bound."""

    size: Integers
    depth: Integers
    estimated: Flags
    error: float


def reach(
    graph: Graph,
    hops: int,
    keys: Callable[[], NDArray[np.uint64]],
    threads: int = 1,
    work_budget: int = WORK_BUDGET,
    kept_budget: int = KEPT_BUDGET,
) -> Reach:
    """Reach of every node within `hops`.

    `keys` gives one well-mixed 64-bit number per node; it is asked only when an estimate is needed.
    """
    nodes = np.arange(graph.nodes)
    # A step goes from u to its customers' sets and to row n + u of `sets`, which is {u} itself.
    step = sparse.csr_array(
        sparse.hstack([graph.downstream, csr(graph.nodes, np.arange(graph.nodes + 1), nodes)])
    )
    customers = graph.downstream.astype(np.int64)
    pointed_to = graph.suppliers > 0

    available = np.ones(graph.nodes, np.bool_)  # which rows of R₍ₕ₋₁₎ are in `sets`
    sets = _stack(available, np.ones_like(nodes), [nodes])
    size, depth = np.ones(graph.nodes, np.int64), np.zeros(graph.nodes, np.int64)
    exact, grew = np.ones(graph.nodes, np.bool_), np.ones(graph.nodes, np.bool_)
    with ThreadPoolExecutor(threads) as pool:
        for hop in range(1, hops + 1):
            stirred = exact & (customers @ grew > 0)  # a customer's set grew, so this one's may
            if not stirred.any():
                break
            possible = customers @ ~available == 0
            keep = pointed_to & available & possible & (hop < hops)
            wanted = keep | (stirred & possible)
            cost = customers @ size + 1
            affordable = _cheapest(cost, wanted, work_budget)
            exact &= ~stirred | affordable
            available = affordable & _cheapest(cost, keep, kept_budget)

            def merge(rows: Integers, sets: sparse.csr_array = sets) -> sparse.csr_array:
                return step[rows] @ sets

            before, size = size, size.copy()
            parts = []
            for rows, part in _blockwise(pool, merge, available, cost):
                size[rows] = degrees(part)
                parts.append(part.indices)
            counted = affordable & stirred & ~available
            for rows, sizes in _blockwise(pool, lambda rows: degrees(merge(rows)), counted, cost):
                size[rows] = sizes
            grew = ~exact | (size > before)
            depth[size > before] = hop
            sets = _stack(available, size, parts)
    if exact.all():
        return Reach(size - 1, depth, ~exact, 0.0)
    estimate = sketch.reach(graph, hops, keys(), threads)
    size = np.where(exact, size, np.maximum(size, np.rint(estimate.size).astype(np.int64)))
    depth = np.where(exact, depth, np.maximum(depth, estimate.depth))
    return Reach(size - 1, depth, ~exact, sketch.STANDARD_ERROR)


def _cheapest(cost: Integers, rows: Flags, budget: int) -> Flags:
    """The cheapest of `rows` whose costs add up to at most `budget`; of equally dear ones all or none."""
    ordered = np.sort(cost[rows])
    fitting = int(np.searchsorted(np.cumsum(ordered), budget, side="right"))
    return rows & (cost < ordered[fitting]) if fitting < len(ordered) else rows


def _blockwise(
    pool: ThreadPoolExecutor, work: Callable[[Integers], T], rows: Flags, cost: Integers
) -> Iterator[tuple[Integers, T]]:
    """`work` on consecutive blocks of the rows, each of about `_BLOCK` entries, in order."""
    chosen = np.flatnonzero(rows)
    block = np.cumsum(cost[chosen]) // _BLOCK
    blocks = np.split(chosen, np.flatnonzero(np.diff(block)) + 1) if len(chosen) else []
    return zip(blocks, pool.map(work, blocks), strict=True)


def _stack(rows: Flags, size: Integers, parts: list[NDArray[np.integer]]) -> sparse.csr_array:
    """The sets of `rows`, nothing in the other rows, and below them every node by itself: 2 n x n."""
    starts = np.cumsum(np.concatenate([[0], np.where(rows, size, 0), np.ones_like(size)]))
    return csr(len(rows), starts, np.concatenate([*parts, np.arange(len(rows), dtype=np.int32)]))
