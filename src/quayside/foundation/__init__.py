"""The ground floor: what every system stands on, and which knows no system.

Settings, errors, PostgreSQL, the lake, objects, secrets, alerts, audit, progress. Nothing in here imports a system, and
only ``foundation.dagster`` imports Dagster.
"""
