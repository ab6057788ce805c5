"""Resources of the KYCC location: each builds a plain object and hands that on."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg

from quayside.foundation.settings import load_settings
from quayside.kycc.service import ScoringService

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


@dg.resource(description="A SQLAlchemy session on the platform's PostgreSQL, rolled back unless committed.")
def database_resource(_: dg.InitResourceContext) -> Iterator["Session"]:
    """``database``: a session on a database whose schema ``kycc`` is what this code needs."""
    from sqlalchemy.orm import Session

    from quayside.foundation.postgres import engine, ensure_schema
    from quayside.kycc.schema import SCHEMA

    settings = load_settings()
    ensure_schema(settings, SCHEMA)
    with Session(engine(settings)) as session:
        yield session


@dg.resource(
    description="KYCC's verbs: ingest, extract, score, explain.", required_resource_keys={"database"}
)
def scoring_service_resource(_: dg.InitResourceContext) -> Iterator[ScoringService]:
    """``scoring_service``: a `ScoringService` on the platform that ``database`` has just opened, with one opened lake for
    all steps of the run."""
    service = ScoringService()
    with service.kept_open():
        yield service
