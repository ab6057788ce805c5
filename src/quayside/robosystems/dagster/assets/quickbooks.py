"""A QuickBooks-style ledger in a graph."""

import dagster as dg
from pydantic import Field

from quayside.robosystems.adapters.quickbooks import QuickBooksClient, QuickBooksProcessor
from quayside.robosystems.dagster.assets.loading import load_into_graph
from quayside.robosystems.dagster.resources import GraphResource


class QuickBooksConfig(dg.Config):
    """Config of ``quickbooks_ledger``."""

    graph_id: str = Field(description="The graph to load into.")
    source: str = Field(description="A folder of the query API's answers, or https://…/v3/company/<realm>.")
    company: str = Field(default="", description="Tells ledgers apart that feed the same graph.")
    token_secret: str = Field(
        default="", description="Name (env:NAME or file:/path) of the token, for a URL."
    )


@dg.asset(
    group_name="adapters",
    description="Accounts and journal entries of a ledger, as a graph.",
    kinds={"ladybug"},
    owners=["team:robosystems"],
)
def quickbooks_ledger(
    context: dg.AssetExecutionContext, config: QuickBooksConfig, graph: GraphResource
) -> dg.MaterializeResult:
    """Load accounts and entries that changed."""
    client = QuickBooksClient(config.source, company=config.company, token_secret=config.token_secret)
    return load_into_graph(context, graph, config.graph_id, client, QuickBooksProcessor())
