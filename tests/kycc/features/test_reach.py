"""Reach downstream: exact, bounded in work and memory, and honest when it estimates."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest

from quayside.kycc.features import sketch
from quayside.kycc.features.graph import Graph
from quayside.kycc.features.reach import Reach, reach

pytestmark = pytest.mark.unit

HOPS = 5


def random_graph(nodes: int, edges: int, seed: int) -> tuple[Graph, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    # A quarter of the nodes nobody points to, a quarter that point to nobody, cycles and hubs between them.
    source = rng.integers(0, 3 * nodes // 4, edges)
    target = nodes // 4 + (rng.power(0.7, edges) * (nodes - nodes // 4)).astype(np.int64)
    return Graph.of_edges(nodes, source, target), source, target


def by_networkx(nodes: int, source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    graph = nx.DiGraph()
    graph.add_nodes_from(range(nodes))
    graph.add_edges_from(zip(source.tolist(), target.tolist(), strict=True))
    distances = [nx.single_source_shortest_path_length(graph, u, HOPS) for u in range(nodes)]
    return np.array([len(d) - 1 for d in distances]), np.array([max(d.values()) for d in distances])


def keys(nodes: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 2**64, nodes, dtype=np.uint64)


def no_keys() -> np.ndarray:
    pytest.fail("an exact answer needs no estimate")


@pytest.mark.parametrize("nodes, edges", [(1, 0), (4, 2), (60, 40), (200, 300), (300, 1200)])
@pytest.mark.parametrize("seed", range(4))
def test_exact_reach_is_that_of_breadth_first_search(nodes: int, edges: int, seed: int) -> None:
    graph, source, target = random_graph(nodes, edges, seed)
    found = reach(graph, HOPS, no_keys, threads=2)
    size, depth = by_networkx(nodes, source, target)
    np.testing.assert_array_equal(found.size, size)
    np.testing.assert_array_equal(found.depth, depth)
    assert not found.estimated.any()
    assert found.error == 0


@pytest.mark.parametrize(
    "work, kept", [(0, 0), (250, 10**9), (600, 10**9), (2000, 10**9), (10**9, 150), (10**9, 400), (900, 300)]
)
@pytest.mark.parametrize("seed", range(4))
def test_what_is_not_marked_is_exact_whatever_the_budget(work: int, kept: int, seed: int) -> None:
    graph, source, target = random_graph(200, 300, seed)
    found = reach(graph, HOPS, lambda: keys(200), 1, work, kept)
    size, depth = by_networkx(200, source, target)
    exact = ~found.estimated
    assert found.estimated.any()
    np.testing.assert_array_equal(found.size[exact], size[exact])
    np.testing.assert_array_equal(found.depth[exact], depth[exact])
    assert (found.depth <= depth).all()


def test_leaves_and_small_reaches_stay_exact_while_large_ones_are_estimated() -> None:
    graph, source, target = random_graph(3000, 12_000, 1)
    found = reach(graph, HOPS, lambda: keys(3000), 1, work_budget=60_000)
    size, _ = by_networkx(3000, source, target)
    assert found.estimated.any()
    assert not found.estimated[size <= 20].any()


@pytest.fixture(scope="module")
def dense() -> tuple[Reach, Reach]:
    """The same dense graph, in which thousands are reached, exactly and estimated."""
    graph, _, _ = random_graph(20_000, 100_000, 3)
    return reach(graph, HOPS, no_keys, 2), reach(graph, HOPS, lambda: keys(20_000), 2, work_budget=20_000)


def test_estimates_are_as_good_as_they_say(dense: tuple[Reach, Reach]) -> None:
    exact, estimate = dense
    chosen = estimate.estimated & (exact.size > 100)
    assert chosen.sum() > 1000
    assert exact.size[chosen].max() > 5000
    error = estimate.size[chosen] / exact.size[chosen] - 1
    assert estimate.error == sketch.STANDARD_ERROR == pytest.approx(0.046, abs=0.001)
    assert np.sqrt(np.mean(error**2)) < 1.2 * estimate.error
    assert abs(np.mean(error)) < estimate.error
    assert (estimate.depth <= exact.depth).all()


def test_the_number_of_threads_changes_nothing() -> None:
    graph, _, _ = random_graph(2000, 6000, 5)
    one, two = (reach(graph, HOPS, lambda: keys(2000), threads, work_budget=20_000) for threads in (1, 2))
    np.testing.assert_array_equal(one.size, two.size)
    np.testing.assert_array_equal(one.depth, two.depth)


@pytest.mark.parametrize("size", [1, 10, 100, 1000, 5000, 50_000])
def test_a_hub_is_counted_at_every_size(size: int) -> None:
    """One node with very many customers: estimates from a handful to far past the number of registers."""
    graph = Graph.of_edges(size + 1, np.zeros(size, np.int64), np.arange(1, size + 1))
    errors = []
    for seed in range(5):
        keys = np.random.default_rng(seed).integers(0, 2**64, size + 1, dtype=np.uint64)
        found = reach(graph, HOPS, lambda keys=keys: keys, 1, work_budget=0)
        assert found.depth[0] == 1
        errors.append(found.size[0] / size - 1)
    assert abs(np.mean(errors)) <= 2 * sketch.STANDARD_ERROR
