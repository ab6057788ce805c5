"""``DatabaseResource``: sessions on PostgreSQL, from one pooled engine per process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from quayside.foundation.settings import Settings, load_settings

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy.orm import Session


class DatabaseResource(dg.ConfigurableResource):
    """The platform's PostgreSQL with the schema ``robosystems`` as this code needs it."""

    database_url_secret: str = Field(
        default="",
        description="Name (env:NAME or file:/path) of a secret that holds the URL of another server; left out, the settings decide.",
    )

    def settings(self) -> Settings:
        """The settings, with the server that this resource names."""
        settings = load_settings()
        if not self.database_url_secret:
            return settings
        from quayside.foundation.secrets import resolve

        return settings.model_copy(update={"database_url": resolve(self.database_url_secret)})

    @contextmanager
    def get_session(self) -> Iterator[Session]:
        """A SQLAlchemy session: committed at the end of the block, rolled back when it raises, closed either way."""
        from sqlalchemy.orm import Session

        from quayside.foundation.postgres import engine

        with Session(engine(self._ready())) as session:
            yield session
            session.commit()

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        """A psycopg connection of its own: committed at the end of the block, rolled back when it raises."""
        from quayside.foundation.postgres import connect

        with connect(self._ready()) as connection:
            yield connection

    def _ready(self) -> Settings:
        from quayside.foundation.migrations import SCHEMA as FOUNDATION
        from quayside.foundation.postgres import ensure_schema
        from quayside.robosystems.schema import SCHEMA

        settings = self.settings()
        for schema in (FOUNDATION, SCHEMA):
            ensure_schema(settings, schema)
        return settings
