"""QuickBooks-style ledgers: accounts and journal entries, as a graph of accounts, entries and their lines."""

from quayside.robosystems.adapters.quickbooks.client import QuickBooksClient
from quayside.robosystems.adapters.quickbooks.processor import QuickBooksProcessor

__all__ = ["QuickBooksClient", "QuickBooksProcessor"]
