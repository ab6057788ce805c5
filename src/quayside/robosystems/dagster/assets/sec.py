"""SEC company facts in a graph."""

import dagster as dg
from pydantic import Field

from quayside.robosystems.adapters.sec import SecClient, SecProcessor
from quayside.robosystems.adapters.sec.client import COMPANY_FACTS
from quayside.robosystems.dagster.assets.loading import load_into_graph
from quayside.robosystems.dagster.resources import GraphResource


class SecConfig(dg.Config):
    """Config of ``sec_company_facts``."""

    graph_id: str = Field(description="The graph to load into.")
    source: str = Field(default=COMPANY_FACTS, description="A folder of CIK##########.json files, or a URL.")
    ciks: list[str] = Field(default=[], description="Companies; left out, all that the folder has.")
    contact: str = Field(default="", description="E-mail address that data.sec.gov asks for.")


@dg.asset(
    group_name="adapters",
    description="Facts that companies report to the SEC, as a graph.",
    kinds={"ladybug"},
    owners=["team:robosystems"],
)
def sec_company_facts(
    context: dg.AssetExecutionContext, config: SecConfig, graph: GraphResource
) -> dg.MaterializeResult:
    """Load company facts that changed."""
    client = SecClient(config.source, config.ciks, config.contact)
    return load_into_graph(context, graph, config.graph_id, client, SecProcessor())
