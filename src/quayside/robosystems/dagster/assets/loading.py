"""What every adapter's asset does: load a source into a graph, and say what came of it."""

import dagster as dg

from quayside.foundation.dagster.steps import domain_call
from quayside.robosystems.adapters import Client, Processor, load
from quayside.robosystems.dagster.resources import GraphResource


def load_into_graph(
    context: dg.AssetExecutionContext,
    graph: GraphResource,
    graph_id: str,
    client: Client,
    processor: Processor,
) -> dg.MaterializeResult:
    """Load what is new in a source into a graph. Counts go into the metadata; the cursor stays in the graph."""
    with domain_call(context):
        done = load(graph.store(), graph_id, client, processor)
    return dg.MaterializeResult(
        metadata={
            "graph_id": graph_id,
            "source": done.source,
            "dagster/row_count": done.rows,
            "nodes": done.nodes,
            "relationships": done.relationships,
        }
    )
