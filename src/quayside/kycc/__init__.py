"""KYCC (know your customer's customer): scores trade counterparties 300-900, with reasons.

Higher is safer. A points scorecard makes the decision and every point of it can be shown. Nothing in this package
imports Dagster except ``quayside.kycc.dagster``, which only wires these functions to assets and jobs.
"""
