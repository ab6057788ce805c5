"""Quayside: a data platform for lending and trade finance, on Dagster.

Four systems (``dataloader``, ``analytics``, ``kycc``, ``robosystems``) stand side by side on ``foundation`` and never
import one another; what passes between them is data. ``cli`` is the one command over all of them.
"""

__version__ = "0.1.0"
