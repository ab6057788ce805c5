"""Schema ``robosystems`` in PostgreSQL: its migrations and the revision this code needs."""

from quayside.foundation.postgres import SchemaSpec

SCHEMA = SchemaSpec(name="robosystems", package="quayside.robosystems.migrations", head="0004")
