"""Scores in the lake and their mirror in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import copied_platform
from tests.kycc.platforms import MOMENT, platform_with_batch

from quayside.foundation.errors import NotFoundError
from quayside.foundation.postgres import connect
from quayside.foundation.settings import Settings
from quayside.kycc import checks, scoring
from quayside.kycc.generate import generate, write_parquet
from quayside.kycc.service import ScoringService

pytestmark = pytest.mark.integration

BATCH = "SCORING_TEST"


@pytest.fixture(scope="module")
def original(
    session_settings: Settings, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    """A platform with one batch of 200 parties, its features computed, to be copied."""
    folder = tmp_path_factory.mktemp("original")
    yield from platform_with_batch(session_settings, template_database, folder, BATCH, scored=False)


@pytest.fixture
def settings(original: Settings, session_settings: Settings, tmp_path: Path) -> Iterator[Settings]:
    """A copy of it."""
    yield from copied_platform(session_settings, original, tmp_path)


@pytest.fixture
def service(settings: Settings) -> ScoringService:
    return ScoringService(settings)


def lake(service: ScoringService, sql: str) -> list[tuple[Any, ...]]:
    with service.connection() as con:
        return con.execute(sql).fetchall()


def postgres(service: ScoringService, sql: str) -> list[tuple[Any, ...]]:
    with connect(service.settings) as con:
        return con.execute(sql.encode()).fetchall()


def test_every_party_is_scored_once_and_mirrored(service: ScoringService) -> None:
    result = service.score()
    assert (result.written.rows, result.written.added, result.written.changed) == (200, 200, 0)
    in_lake = lake(
        service, "SELECT party_id, total_score, band, decision, flags, reasons FROM kycc.scores ORDER BY 1"
    )
    mirrored = postgres(
        service,
        "SELECT party_id, total_score, band, decision, flags, reasons FROM kycc.score_requests ORDER BY 1",
    )
    assert in_lake == mirrored
    # Every row can be defended by itself: the decision is there, and what it read is an object, not text inside JSON.
    complete = "decision IS NOT NULL AND json_type(features) = 'OBJECT' AND (features->>'kyc_verified') IN ('0', '1')"
    assert lake(service, f"SELECT count(*) FROM kycc.scores WHERE {complete}") == [(200,)]
    assert sum(result.summary.bands.values()) == sum(result.summary.histogram.values()) == 200


@pytest.mark.slow
def test_scoring_again_changes_nothing(service: ScoringService) -> None:
    service.score()
    before = (
        lake(service, "SELECT * FROM kycc.scores ORDER BY party_id"),
        postgres(service, "SELECT * FROM kycc.score_requests ORDER BY party_id"),
    )
    snapshots = lake(service, "SELECT count(*) FROM ducklake_snapshots('lake')")
    again = service.score()
    assert (again.written.added, again.written.changed, again.written.removed, again.mirrored) == (
        0,
        0,
        0,
        False,
    )
    assert before == (
        lake(service, "SELECT * FROM kycc.scores ORDER BY party_id"),
        postgres(service, "SELECT * FROM kycc.score_requests ORDER BY party_id"),
    )
    assert snapshots == lake(service, "SELECT count(*) FROM ducklake_snapshots('lake')")


def test_a_changed_score_replaces_the_old_one_visibly(service: ScoringService) -> None:
    service.score()
    (party,) = lake(service, "SELECT min(party_id) FROM kycc.features")[0]
    (old,) = lake(service, f"SELECT total_score FROM kycc.scores WHERE party_id = '{party}'")[0]
    service.lake.transaction(
        lambda con: con.execute(
            "UPDATE kycc.features SET kyc_verified = 1 - kyc_verified WHERE party_id = ?", [party]
        )
    )
    result = service.score()
    assert (result.written.added, result.written.changed, result.written.removed) == (0, 1, 0)
    assert lake(service, "SELECT party_id, total_score FROM kycc.score_history") == [(party, old)]
    (new,) = lake(service, f"SELECT total_score FROM kycc.scores WHERE party_id = '{party}'")[0]
    assert new != old
    assert postgres(service, f"SELECT total_score FROM kycc.score_requests WHERE party_id = '{party}'") == [
        (new,)
    ]
    assert postgres(
        service, "SELECT action, subject, details->>'changed' FROM ops.audit WHERE subject_type = 'batch'"
    ) == [("rescored", BATCH, "1")]
    counted = "SELECT source, kind, quantity::int, subject FROM usage.events ORDER BY recorded_at"
    assert postgres(service, counted) == [
        ("kycc", "kycc.party_scored", parties, "kycc") for parties in (result.summary.parties, 1)
    ]


@pytest.mark.slow
def test_a_mirror_that_was_left_behind_is_brought_level(
    service: ScoringService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def died(*_: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(scoring, "mirror_scores", died)
        with pytest.raises(KeyboardInterrupt):
            service.score()
    assert postgres(service, "SELECT count(*) FROM kycc.score_requests") == [(0,)]
    with service.connection() as con, connect(service.settings) as pg:
        assert not checks.scores(con, pg, BATCH, "v1").passed
    assert postgres(service, "SELECT count(*) FROM usage.events") == [(0,)]
    result = service.score()
    assert result.written.added == 0
    assert result.mirrored
    counted = [(result.summary.parties,)]
    assert postgres(service, "SELECT quantity::int FROM usage.events") == counted
    service.score()
    assert postgres(service, "SELECT quantity::int FROM usage.events") == counted
    with service.connection() as con, connect(service.settings) as pg:
        assert checks.scores(con, pg, BATCH, "v1").passed


def test_explain_accounts_for_every_point(service: ScoringService) -> None:
    service.score()
    for party, total in lake(
        service, "SELECT party_id, total_score FROM kycc.scores ORDER BY total_score LIMIT 5"
    ):
        row, explanation = service.explain(party)
        assert row["total_score"] == explanation.total_score == total
        points = sum(c.points for c in explanation.characteristics)
        assert explanation.raw_score == 300 + points == row["raw_score"]
        moved = sum(rule.after - rule.before for rule in explanation.rules)
        assert explanation.raw_score + moved + explanation.clamped == total
        assert list(explanation.reasons) == row["reasons"]


def test_what_is_missing_is_named(service: ScoringService, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"NOBODY.*quayside kycc score"):
        service.explain("NOBODY")
    with pytest.raises(NotFoundError, match=r"ELSEWHERE.*feature_job"):
        service.score("ELSEWHERE")
    other = ScoringService(service.settings)
    other.ingest(write_parquet(generate("LATER", 50, generated_at=MOMENT), tmp_path / "later"))
    assert other.score().batch.batch_id == BATCH, "the last batch with features, not the last batch"


@pytest.mark.slow
def test_checks_see_what_is_wrong(service: ScoringService) -> None:
    service.score()
    with service.connection() as con:
        assert checks.counts(con, BATCH).passed
        assert checks.feature_ranges(con, BATCH, MOMENT).passed
        con.execute(
            "UPDATE kycc.features SET network_balance_ratio = 7 WHERE party_id = (SELECT min(party_id) FROM kycc.features)"
        )
        con.execute("INSERT INTO kycc.accounts SELECT * FROM kycc.accounts LIMIT 1")
        con.execute(
            "DELETE FROM kycc.parties WHERE party_id = (SELECT max(from_party_id) FROM kycc.relationships)"
        )
        con.execute("UPDATE kycc.scores SET band = 'excellent'")
        assert "network_balance_ratio" in checks.feature_ranges(con, BATCH, MOMENT).sentence
        counted = checks.counts(con, BATCH).sentence
        assert "repeat another row's account_id" in counted
        assert "from_party_id that is no party" in counted
        with connect(service.settings) as pg:
            assert "a band that is not theirs" in checks.scores(con, pg, BATCH, "v1").sentence
