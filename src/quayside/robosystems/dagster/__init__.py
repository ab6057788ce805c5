"""RoboSystems on Dagster: wiring only. Each op reads config, calls the domain, reports."""

from quayside.robosystems.dagster.definitions import defs

__all__ = ["defs"]
