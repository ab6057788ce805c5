"""Revisions of the foundation's own schemas: ``ops`` (alerts, audit, flags) and ``usage`` (events)."""

from quayside.foundation.postgres.schema import SchemaSpec

SCHEMA = SchemaSpec(name="ops", package="quayside.foundation.migrations", head="0001")
