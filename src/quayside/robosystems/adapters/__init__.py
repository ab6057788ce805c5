"""Adapters: outside services whose records become nodes and relationships of a graph. README.md is the how-to."""

from quayside.robosystems.adapters.load import Loaded, load
from quayside.robosystems.adapters.protocol import AdapterError, Batch, Client, GraphRows, Processor

__all__ = ["AdapterError", "Batch", "Client", "GraphRows", "Loaded", "Processor", "load"]
