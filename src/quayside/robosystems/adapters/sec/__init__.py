"""SEC filings: the facts that companies report (company facts JSON), as a graph of companies, filings, facts and concepts."""

from quayside.robosystems.adapters.sec.client import SecClient
from quayside.robosystems.adapters.sec.processor import SecProcessor

__all__ = ["SecClient", "SecProcessor"]
