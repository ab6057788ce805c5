"""PostgreSQL, which holds what must be transactional: one database, one schema for each purpose."""

from quayside.foundation.postgres.connections import (
    advisory_lock,
    connect,
    database_url,
    dispose_engines,
    engine,
    is_embedded,
)
from quayside.foundation.postgres.embedded import EmbeddedPostgres
from quayside.foundation.postgres.schema import (
    SchemaSpec,
    SchemaStatus,
    ensure_schema,
    migrate,
    schema_status,
)

__all__ = [
    "EmbeddedPostgres",
    "SchemaSpec",
    "SchemaStatus",
    "advisory_lock",
    "connect",
    "database_url",
    "dispose_engines",
    "engine",
    "ensure_schema",
    "is_embedded",
    "migrate",
    "schema_status",
]
