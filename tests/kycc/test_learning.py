"""The verbs of learning on a real platform: outcomes, labels, training, refinement, shadow, comparison."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import copied_platform
from tests.kycc.platforms import MOMENT, platform_with_batch
from typer.testing import CliRunner

from quayside.cli.kycc import app
from quayside.foundation.errors import CheckFailedError, NotFoundError
from quayside.foundation.postgres import connect
from quayside.foundation.settings import Settings
from quayside.kycc.generate import generate, write_outcomes
from quayside.kycc.labels import LabelResult, make_labels
from quayside.kycc.scorecard import Scorecard
from quayside.kycc.service import ScoringService

pytestmark = [pytest.mark.integration, pytest.mark.slow]

BATCH = "LEARNING_TEST"


@pytest.fixture(scope="module")
def original(
    session_settings: Settings, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    """A platform with one batch of 200 parties, scored, to be copied."""
    folder = tmp_path_factory.mktemp("original")
    yield from platform_with_batch(session_settings, template_database, folder, BATCH, scored=True)


@pytest.fixture
def settings(original: Settings, session_settings: Settings, tmp_path: Path) -> Iterator[Settings]:
    """A copy of it."""
    yield from copied_platform(session_settings, original, tmp_path)


@pytest.fixture
def service(settings: Settings, tmp_path: Path) -> Iterator[ScoringService]:
    """The batch's outcomes are beside it and not loaded."""
    write_outcomes(generate(BATCH, 200, generated_at=MOMENT), tmp_path / "outcomes.json")
    service = ScoringService(settings)
    with service.kept_open():
        yield service


def lake(service: ScoringService, sql: str) -> list[tuple[Any, ...]]:
    with service.connection() as con:
        return con.execute(sql).fetchall()


def postgres(service: ScoringService, sql: str) -> list[tuple[Any, ...]]:
    with connect(service.settings) as con:
        return con.execute(sql.encode()).fetchall()


def test_from_outcomes_to_an_active_version(
    service: ScoringService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = service.labels()
    assert (first.source, first.added) == ("simulated", 200)
    circular = service.train()
    assert circular.details["circular"] is True
    assert service.load_outcomes(tmp_path / "outcomes.json").events > 0
    second = service.labels()
    assert (second.source, second.added, set(second.counts)) == ("observed", 200, {"observed", "simulated"})

    # What was drawn and what happened are kept apart, and running again changes nothing.
    snapshots = lake(service, "SELECT count(*) FROM ducklake_snapshots('lake')")
    assert service.load_outcomes(tmp_path / "outcomes.json").already_loaded
    again = service.labels()
    assert (again.added, again.changed, again.removed) == (0, 0, 0)
    assert lake(service, "SELECT count(*) FROM ducklake_snapshots('lake')") == snapshots
    with pytest.raises(CheckFailedError, match="have changed since"):
        service.refine(circular.training_id)

    trained = service.train()
    assert (trained.status, trained.reason, trained.details["circular"]) == ("trained", "", False)
    assert service.train().training_id == trained.training_id
    made = service.refine(blend_factor=0.2)
    assert made.version is not None
    assert made.version.version == "v2"
    assert made.status == ("draft" if all(gate["passed"] for gate in made.version.gates) else "rejected")
    assert (made.version.base_version, made.version.model_id) == ("v1", trained.training_id)
    assert service.refine(blend_factor=0.2).known_before
    assert [v.version for v in service.versions.list()] == ["v2", "v1"]

    # A draft scores in the shadow and decides nothing.
    draft = service.refine(blend_factor=0)
    assert (draft.status, draft.version and draft.version.version) == ("draft", "v3")
    assert service.shadow()["v3"].added == 200
    assert service.shadow()["v3"].added == 0
    before = postgres(service, "SELECT DISTINCT scorecard_version FROM kycc.score_requests")
    assert before == [("v1",)]
    with pytest.raises(CheckFailedError, match="decides nothing"):
        service.score(scorecard_version="v3")
    with service.connection() as con:
        assert service.resolve("scores", None, None, con).batch_id == BATCH
    totals = lake(
        service,
        "SELECT count(DISTINCT total_score) FROM kycc.scores WHERE scorecard_version IN ('v1', 'v3') GROUP BY party_id",
    )
    assert set(totals) == {(1,)}, "blend 0 gives the scores of the base card"

    # Only parties no card was made from are in the test; once active it decides.
    compared = service.compare("v2")
    assert compared.parties == 200
    assert sum(new for _, new in compared.bands.values()) == 200
    held_out = json.loads(service.versions.training(trained.training_id).model or "")["data"]["holdout_rows"]
    assert f"{held_out} parties" in compared.test_note or "too few" in compared.test_note
    assert service.versions.activate("v3").status == "active"
    assert service.score(scorecard_version="active").version == "v3"
    assert (
        service.explain(lake(service, "SELECT min(party_id) FROM kycc.scores")[0][0])[0]["scorecard_version"]
        == "v3"
    )
    assert service.score().version == "v1", "v1 stays the one that is meant when nothing is said"

    # What is simulated is drawn from the scores of the card that is active, not of the first one.
    drawn_from: list[str] = []

    def watched(con: Any, window: Any, rate: float, card: Scorecard) -> LabelResult:
        drawn_from.append(card.version)
        return make_labels(con, window, rate, card)

    monkeypatch.setattr("quayside.kycc.labels.make_labels", watched)
    service.labels()
    assert drawn_from == ["v3"]


def test_too_little_is_skipped_with_its_reason_and_corrections_are_on_record(
    service: ScoringService, tmp_path: Path
) -> None:
    with pytest.raises(NotFoundError, match="quayside kycc train"):
        service.refine()
    nothing = service.train()
    assert (nothing.status, nothing.reason) == ("skipped", "There are 0 labelled rows; training needs 100.")
    refined = service.refine()
    assert (refined.status, refined.version, refined.reason) == ("skipped", None, nothing.reason)
    service.load_outcomes(tmp_path / "outcomes.json")
    service.labels()
    few = service.train(min_samples=500)
    assert few.reason == "There are 200 labelled rows; training needs 500."
    assert service.refine().training_id == few.training_id
    assert [v.version for v in service.versions.list()] == ["v1"]

    # What a corrected outcome file changes is on record.
    outcomes = json.loads((tmp_path / "outcomes.json").read_text())
    outcomes["outcomes"].pop()
    (tmp_path / "corrected.json").write_text(json.dumps(outcomes))
    assert service.load_outcomes(tmp_path / "corrected.json", replace=True).removed == 1
    assert service.labels().changed == 1
    assert postgres(
        service, "SELECT action, subject FROM ops.audit WHERE subject_type = 'batch' ORDER BY id"
    ) == [
        ("replace outcomes", BATCH),
        ("relabelled", BATCH),
    ]


def test_the_commands(
    service: ScoringService,
    tmp_path: Path,
    command_environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("QUAYSIDE_HOME", "QUAYSIDE_DATABASE_URL"):
        monkeypatch.setenv(name, command_environment[name])

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    assert "events" in run("outcomes", str(tmp_path / "outcomes.json"))
    assert json.loads(run("labels", "--json"))["source"] == "observed"
    assert "holdout" in run("train")
    assert "v2 is draft" in run("refine", "--blend-factor", "0")
    assert json.loads(run("shadow", "--json")) == [
        {"version": "v2", "parties": 200, "new": 200, "changed": 0}
    ]
    assert "rank correlation" in run("compare", "v2")
    assert "v2 is active" in run("activate", "v2", "--note", "why not")
    assert "v1 is active" in run("rollback")
    assert [v["status"] for v in json.loads(run("versions", "--json"))] == ["rolled_back", "active"]
