"""PostgreSQL, which holds what must be transactional: one database, one schema for each purpose."""

from quayside.foundation.postgres.connections import (
    advisory_lock,
    connect,
    database_url,
    dispose_engines,
    engine,
    is_embedded,
)
from quayside.foundation.postgres.embedded import EmbeddedPostgres, ServerStatus

__all__ = [
    "EmbeddedPostgres",
    "ServerStatus",
    "advisory_lock",
    "connect",
    "database_url",
    "dispose_engines",
    "engine",
    "is_embedded",
]
