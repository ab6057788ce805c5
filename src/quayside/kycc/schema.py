"""Schema ``kycc`` in PostgreSQL: its migrations and the revision this code needs."""

from quayside.foundation.postgres import SchemaSpec

SCHEMA = SchemaSpec(name="kycc", package="quayside.kycc.migrations", head="0002")
