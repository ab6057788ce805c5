"""KYCC on Dagster: wiring only. Each asset reads config, calls `ScoringService`, reports."""

from quayside.kycc.dagster.definitions import defs

__all__ = ["defs"]
