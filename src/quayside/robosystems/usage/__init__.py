"""What was used: hourly sizes of graphs, and events of other systems. What it costs is decided in `quayside.robosystems.billing`
and by the price list."""

from quayside.robosystems.usage.gaps import Gap, gaps
from quayside.robosystems.usage.meter import Metering, assign_subject, meter
from quayside.robosystems.usage.sizes import SizeReader, Sizes
from quayside.robosystems.usage.snapshots import Collection, collect

__all__ = [
    "Collection",
    "Gap",
    "Metering",
    "SizeReader",
    "Sizes",
    "assign_subject",
    "collect",
    "gaps",
    "meter",
]
