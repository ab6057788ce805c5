"""The code location ``platform``: what exists once for all locations. Assembly only."""

import dagster as dg

from quayside.foundation.dagster.failure_sensor import run_failure_alert


def build_definitions() -> dg.Definitions:
    """The location's definitions."""
    return dg.Definitions(sensors=[run_failure_alert])


defs = build_definitions()
