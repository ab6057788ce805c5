"""From the lake's rows to the measures of the network that its features are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from quayside.kycc.features import graph as graphs
from quayside.kycc.features.graph import Flags, Graph
from quayside.kycc.features.network import DAMPING, EDGES, HOPS, KEYS, NODES
from quayside.kycc.features.reach import reach

if TYPE_CHECKING:
    import duckdb

    from quayside.kycc.features.moment import Moment


def measure_network(con: duckdb.DuckDBPyConnection, moment: Moment) -> pa.Table:
    """Number the batch's parties in the temporary table `feature_nodes` and return `measure` of their network."""
    con.execute(f"CREATE OR REPLACE TEMP TABLE feature_nodes AS {NODES}", moment.parameters(NODES))
    source, target = _columns(con, EDGES, moment.parameters(EDGES))
    (weak,) = _columns(con, "SELECT weak FROM temp.feature_nodes ORDER BY node")
    threads = con.execute("SELECT current_setting('threads')").fetchall()[0][0]
    return measure(Graph.of_edges(len(weak), source, target), weak, lambda: _columns(con, KEYS)[0], threads)


def _columns(con: duckdb.DuckDBPyConnection, sql: str, parameters: Any = None) -> list[NDArray[Any]]:
    return [np.asarray(column) for column in con.execute(sql, parameters).fetchnumpy().values()]


def measure(graph: Graph, weak: Flags, keys: Callable[[], NDArray[np.uint64]], threads: int) -> pa.Table:
    """One row per node with everything the network features speak of."""
    reached = reach(graph, HOPS, keys, threads)
    return pa.table(
        {
            "node": np.arange(graph.nodes, dtype=np.int32),
            "suppliers": graph.suppliers,
            "customers": graph.customers,
            "neighbours": graph.neighbours,
            "reach_size": reached.size,
            "reach_depth": reached.depth,
            "estimated": reached.estimated,
            "size_error": np.where(reached.estimated, reached.error, 0.0),
            "weak_neighbours": graphs.marked_neighbours(graph, weak),
            "weak_share_beyond": graphs.marked_beyond(graph, weak),
            "pagerank": graphs.pagerank(graph, DAMPING),
            "component_size": graphs.component_sizes(graph),
        }
    )
