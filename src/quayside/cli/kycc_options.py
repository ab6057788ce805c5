"""What the modules of ``quayside kycc`` have in common: options that mean the same in each, and the service behind them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from quayside.kycc.service import ScoringService

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
BatchId = Annotated[
    str | None, typer.Option("--batch-id", help="Left out: the last batch that has what is needed.")
]
AsOf = Annotated[
    datetime | None,
    typer.Option(
        help="Moment of the features, UTC. Left out: the batch's own.",
        formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"],
    ),
]


def open_service() -> ScoringService:
    """KYCC on this project's settings, logging as they say."""
    from quayside.foundation.logs import configure
    from quayside.kycc.service import ScoringService

    service = ScoringService()
    configure(service.settings.log_format)
    return service


def utc(moment: datetime | None) -> datetime | None:
    """A moment as typer parses it, without a zone, in the zone it is meant in."""
    return None if moment is None else moment.replace(tzinfo=UTC)
