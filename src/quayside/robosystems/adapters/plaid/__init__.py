"""Plaid-style transactions: accounts and what moved on them, kept up to date by the service's own cursor."""

from quayside.robosystems.adapters.plaid.client import PlaidClient
from quayside.robosystems.adapters.plaid.processor import PlaidProcessor

__all__ = ["PlaidClient", "PlaidProcessor"]
