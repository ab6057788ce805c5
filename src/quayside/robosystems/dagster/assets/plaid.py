"""Plaid-style bank transactions in a graph."""

import dagster as dg
from pydantic import Field

from quayside.robosystems.adapters.plaid import PlaidClient, PlaidProcessor
from quayside.robosystems.dagster.assets.loading import load_into_graph
from quayside.robosystems.dagster.resources import GraphResource


class PlaidConfig(dg.Config):
    """Config of ``plaid_transactions``. Secrets are named, as env:NAME or file:/path."""

    graph_id: str = Field(description="The graph to load into.")
    source: str = Field(description="A folder of pages of the sync call, or the URL of the service.")
    item: str = Field(default="", description="Tells items apart that feed the same graph.")
    client_id_secret: str = ""
    api_secret: str = ""
    access_token_secret: str = ""


@dg.asset(
    group_name="adapters",
    description="Bank accounts and their transactions, as a graph.",
    kinds={"ladybug"},
    owners=["team:robosystems"],
)
def plaid_transactions(
    context: dg.AssetExecutionContext, config: PlaidConfig, graph: GraphResource
) -> dg.MaterializeResult:
    """Load what was added, modified and removed since the cursor that the graph keeps."""
    client = PlaidClient(
        config.source,
        item=config.item,
        client_id_secret=config.client_id_secret,
        api_secret=config.api_secret,
        access_token_secret=config.access_token_secret,
    )
    return load_into_graph(context, graph, config.graph_id, client, PlaidProcessor())
