"""Sizes of huge reachable sets, estimated in bounded memory with HyperLogLog registers passed along the edges.

A node's registers are the maximum over those of everything it reaches, so a hop is one gather and one maximum over the
edges: work grows with edges, not with the sets. Registers are handled a slice at a time, which bounds memory to two
bytes per node and register of the slice. Counting uses Ertl's improved raw estimator (O. Ertl, "New cardinality
estimation algorithms for HyperLogLog sketches", 2017), which needs no correction for small or middling sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from quayside.kycc.features.graph import Floats, Graph, Integers

_BITS: Final = 9
REGISTERS: Final = 1 << _BITS
#: Relative standard error of a size.
STANDARD_ERROR: Final = 1.04 / REGISTERS**0.5
_SLICE: Final = 256
#: Edges handled at a time: their registers fit the cache.
_CHUNK: Final = 100_000
#: With fewer nodes than this left in a round, each is better finished by itself.
_FEW: Final = 8


@dataclass(frozen=True)
class Estimate:
    """Per node: the `size` of the set reached, the node itself counted, and the last hop at which a register changed, a
    lower bound of its `depth`."""

    size: Floats
    depth: Integers


def reach(graph: Graph, hops: int, keys: NDArray[np.uint64], threads: int) -> Estimate:
    """Estimate for every node from one well-mixed 64-bit key per node."""
    register = (keys >> np.uint64(64 - _BITS)).astype(np.int64)
    # Position of the first one-bit among the 52 that a float holds exactly.
    rank = (53 - np.frexp(((keys << np.uint64(_BITS)) >> np.uint64(12)).astype(np.float64))[1]).astype(
        np.uint8
    )
    weight = np.exp2(-np.arange(256.0))
    harmonic, empty = np.zeros(graph.nodes), np.zeros(graph.nodes, np.int64)
    depth = np.zeros(graph.nodes, np.int64)
    chunks = _chunks(graph)
    with ThreadPoolExecutor(threads) as pool:
        for first in range(0, REGISTERS, _SLICE):
            inside = np.flatnonzero((register >= first) & (register < first + _SLICE))
            registers = np.zeros((graph.nodes, _SLICE), np.uint8)
            registers[inside, register[inside] - first] = rank[inside]
            for hop in range(1, hops + 1):
                before, registers = registers, registers.copy()
                moved = np.zeros(graph.nodes, np.bool_)
                list(pool.map(partial(_pass_on, before, registers, moved), chunks))
                if not moved.any():
                    break
                depth[moved] = np.maximum(depth[moved], hop)
            for at in range(0, graph.nodes, _CHUNK):
                final = registers[at : at + _CHUNK]
                harmonic[at : at + _CHUNK] += weight[final].sum(axis=1)
                empty[at : at + _CHUNK] += (final == 0).sum(axis=1)
    return Estimate(_cardinality(harmonic, empty), depth)


@dataclass(frozen=True)
class _Chunk:
    """Some nodes, most customers first. `rounds[k]` has the k-th customer of the first len(rounds[k]) of them, `rest`
    what is left of the few with very many: position among the nodes → customers."""

    nodes: Integers
    rounds: list[NDArray[np.integer]]
    rest: Mapping[int, NDArray[np.integer]]


def _chunks(graph: Graph) -> list[_Chunk]:
    nodes = np.flatnonzero(graph.customers)
    cut = np.flatnonzero(np.diff(np.cumsum(graph.customers[nodes]) // _CHUNK)) + 1
    return [_chunk(graph, part) for part in np.split(nodes, cut) if len(part)]


def _chunk(graph: Graph, nodes: Integers) -> _Chunk:
    starts, customers = graph.downstream.indptr, graph.downstream.indices
    nodes = nodes[np.argsort(-graph.customers[nodes], kind="stable")]
    degree = graph.customers[nodes]
    rounds = []
    for k in range(int(degree[0])):
        left = int(np.searchsorted(-degree, -k))
        if left < _FEW:
            break
        rounds.append(customers[starts[nodes[:left]] + k])
    done = len(rounds)
    rest = {
        i: customers[starts[u] + done : starts[u + 1]] for i, u in enumerate(nodes[:_FEW]) if degree[i] > done
    }
    return _Chunk(nodes, rounds, rest)


def _pass_on(
    before: NDArray[np.uint8], after: NDArray[np.uint8], moved: NDArray[np.bool_], chunk: _Chunk
) -> None:
    """Raise the registers of the chunk's nodes to the maximum over their customers'."""
    own = before.take(chunk.nodes, axis=0)
    found = own.copy()
    for customers in chunk.rounds:
        among = found[: len(customers)]
        np.maximum(among, before.take(customers, axis=0), out=among)
    for position, customers in chunk.rest.items():
        for at in range(0, len(customers), _CHUNK):
            highest = before.take(customers[at : at + _CHUNK], axis=0).max(axis=0)
            np.maximum(found[position], highest, out=found[position])
    after[chunk.nodes] = found
    moved[chunk.nodes] = (own.view(np.uint64) != found.view(np.uint64)).any(axis=1)


def _cardinality(harmonic: Floats, empty: Integers) -> Floats:
    """Ertl's estimate from Σ 2^-register over all registers and the number of empty ones."""
    x = empty / REGISTERS
    small, power, term = x.copy(), 1.0, x
    for _ in range(
        64
    ):  # σ(x) = x + Σ x^(2^k) 2^(k-1); squares vanish quickly for x < 1, and a set is never empty
        term = term * term
        small += term * power
        power *= 2
    return REGISTERS**2 / (2 * np.log(2)) / (REGISTERS * small + (harmonic - empty))
