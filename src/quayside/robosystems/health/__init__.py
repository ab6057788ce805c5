"""Whether the books and everything around them are as they should be: checks by name, each a query with offending ids."""

from quayside.robosystems.health.check import Finding, check_health
from quayside.robosystems.health.checks import CHECKS

__all__ = ["CHECKS", "Finding", "check_health"]
