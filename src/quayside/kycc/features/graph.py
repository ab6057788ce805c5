"""A directed graph as sparse matrices, and the measures that one or two passes over its edges give.

Parties are numbered 0 … n-1. Everything is vectorised and runs in a fixed order, so equal graphs give equal bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: A rank is at most 1 / 0.15 times its last change away from its limit.
_RANK_TOLERANCE = 1e-13
_RANK_ROUNDS = 250


@dataclass(frozen=True)
class Graph:
    """Distinct edges without self-loops: row u of `downstream` (n x n, boolean CSR) holds the customers of u."""

    downstream: sparse.csr_array

    @classmethod
    def of_edges(cls, nodes: int, sources: NDArray[np.integer], targets: NDArray[np.integer]) -> Graph:
        """Graph of any list of edges; self-loops and repeated edges fall away."""
        distinct = sources != targets
        ends = (sources[distinct], targets[distinct])
        pairs = sparse.coo_array((np.ones(len(ends[0]), np.bool_), ends), shape=(nodes, nodes))
        return cls(sparse.csr_array(pairs))

    @property
    def nodes(self) -> int:
        return len(self.downstream.indptr) - 1

    @cached_property
    def upstream(self) -> sparse.csr_array:
        """The same edges turned round: row u holds the suppliers of u."""
        return sparse.csr_array(self.downstream.T)

    @cached_property
    def either(self) -> sparse.csr_array:
        """Row u holds the neighbours of u, whichever way the edge runs."""
        return sparse.csr_array(self.downstream + self.upstream)

    @cached_property
    def customers(self) -> Integers:
        return degrees(self.downstream)

    @cached_property
    def suppliers(self) -> Integers:
        return degrees(self.upstream)

    @cached_property
    def neighbours(self) -> Integers:
        return degrees(self.either)


def csr(nodes: int, starts: Integers, columns: NDArray[np.integer]) -> sparse.csr_array:
    """Boolean matrix with a column per node whose row u has ones at columns[starts[u]:starts[u + 1]]."""
    index = np.int32 if max(nodes, len(columns)) < 2**31 - 1 else np.int64
    data = np.ones(len(columns), np.bool_)
    return sparse.csr_array(
        (data, columns.astype(index, copy=False), starts.astype(index)), shape=(len(starts) - 1, nodes)
    )


def degrees(matrix: sparse.csr_array) -> Integers:
    """Number of entries of each row."""
    return np.diff(matrix.indptr).astype(np.int64)


def pagerank(graph: Graph, damping: float) -> Floats:
    """PageRank of the nodes that have an edge, times their number; 0 for the others.

    Rank flows downstream; a node without customers hands its rank to all evenly, as teleporting does. Both only scale
    the solution of y = 1 + damping * Σ over suppliers s of y_s / customers_s, which an acyclic graph reaches exactly
    in as many rounds as it is deep.
    """
    connected = graph.neighbours > 0
    inflow = graph.upstream.astype(np.float64)
    share = damping / np.maximum(graph.customers, 1)
    rank: Floats = np.ones(graph.nodes)
    for _ in range(_RANK_ROUNDS):
        previous, rank = rank, np.asarray(1 + inflow @ (rank * share))
        if np.all(np.abs(rank - previous) <= _RANK_TOLERANCE * rank):
            break
    rank[~connected] = 0
    return rank * (np.count_nonzero(connected) / max(rank.sum(), 1))


def component_sizes(graph: Graph) -> Integers:
    """Size of each node's strongly connected component; more than 1 means that the node lies on a cycle."""
    _, label = csgraph.connected_components(graph.downstream, directed=True, connection="strong")
    return np.bincount(label)[label] if graph.nodes else np.zeros(0, np.int64)


def marked_neighbours(graph: Graph, marked: Flags) -> Integers:
    """How many distinct neighbours of each node are marked."""
    return graph.either.astype(np.int64) @ marked.astype(np.int64)


def marked_beyond(graph: Graph, marked: Flags) -> Floats:
    """Mean, over the neighbours v of u that have other neighbours, of the marked share among v's neighbours but u.

    0 where no neighbour has others.
    """
    near = np.repeat(np.arange(graph.nodes), graph.neighbours)
    via = graph.either.indices
    others = graph.neighbours[via] - 1
    onward = others > 0
    near, via, others = near[onward], via[onward], others[onward]
    share = (marked_neighbours(graph, marked)[via] - marked[near]) / others
    total = np.bincount(near, weights=share, minlength=graph.nodes)
    return total / np.maximum(np.bincount(near, minlength=graph.nodes), 1)
