"""Schema ``control`` in PostgreSQL: its migrations, the revision this code needs, and which server holds it."""

from quayside.dataloader.control.connection import control_settings
from quayside.foundation.postgres import SchemaSpec

SCHEMA = SchemaSpec(
    name="control", package="quayside.dataloader.migrations", head="0001", settings_of=control_settings
)
