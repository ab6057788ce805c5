"""Resources of the KYCC location: each builds a plain object and hands that on."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import dagster as dg

from quayside.kycc.service import ScoringService

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


class DatabaseResource(dg.ConfigurableResource):
    """``database``: hands on a SQLAlchemy session on the platform's PostgreSQL; rolled back unless committed."""

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["Session"]:
        from sqlalchemy.orm import Session

        from quayside.foundation.postgres import engine, ensure_schema
        from quayside.foundation.settings import load_settings
        from quayside.kycc.schema import SCHEMA

        settings = load_settings()
        ensure_schema(settings, SCHEMA)
        with Session(engine(settings)) as session:
            yield session

    def get_object_to_set_on_execution_context(self) -> object:
        return self


class ScoringServiceResource(dg.ConfigurableResourceFactory[ScoringService]):
    """``scoring_service``: hands on a `ScoringService` on the platform's settings."""

    def create_resource(self, context: dg.InitResourceContext) -> ScoringService:
        return ScoringService()
