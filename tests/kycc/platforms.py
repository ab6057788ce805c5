"""Platforms that tests of KYCC copy."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from tests.conftest import private_settings

from quayside.foundation.postgres import dispose_engines
from quayside.foundation.settings import Settings
from quayside.kycc.generate import generate, write_parquet
from quayside.kycc.service import ScoringService

MOMENT = datetime(2026, 6, 30, tzinfo=UTC)


def platform_with_batch(
    session: Settings, template: str, folder: Path, batch: str, *, scored: bool
) -> Iterator[Settings]:
    """A platform with one batch of 200 parties and its features, to be copied: nobody is connected to it."""
    for settings in private_settings(session, folder, template):
        service = ScoringService(settings)
        service.ingest(write_parquet(generate(batch, 200, generated_at=MOMENT), folder / "batch"))
        service.extract(batch)
        if scored:
            service.score()
        dispose_engines()
        yield settings
