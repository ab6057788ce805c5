"""RoboSystems: credits, usage and billing of graph databases, and the jobs that keep them true.

Plain Python and SQL; what imports Dagster is in `quayside.robosystems.dagster`.
"""
