"""DataLoader on Dagster: wiring only. Rows are claimed, runs requested, the worker started, and its word reported."""

from quayside.dataloader.dagster.definitions import defs

__all__ = ["defs"]
