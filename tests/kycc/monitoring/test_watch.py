"""Generated batches through the whole line: watching them in the lake, and the page of each."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from quayside.foundation.errors import NotFoundError
from quayside.foundation.settings import Settings
from quayside.kycc.adverse_action import notices
from quayside.kycc.generate import generate, write_parquet
from quayside.kycc.monitoring import label_balance, label_counts, previous_batch, watch
from quayside.kycc.report import scoring_page, scoring_report
from quayside.kycc.scorecard import load_scorecard
from quayside.kycc.scoring import read_features
from quayside.kycc.service import ScoringService

pytestmark = [pytest.mark.integration, pytest.mark.slow]

CARD = load_scorecard("v1")
NOW = datetime(2026, 7, 1, tzinfo=UTC)
#: name, mix, hour of its moment; one day, because the regularity of trade counts calendar months
BATCHES = (("FIRST", "balanced", 0), ("SAME", "balanced", 1), ("RISKIER", "risky", 2))


def test_batches_are_watched_and_reported(
    settings: Settings,
    command_environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    service = ScoringService(settings)
    for name, mix, hour in BATCHES:
        moment = datetime(2026, 6, 30, hour, tzinfo=UTC)
        service.ingest(write_parquet(generate(name, 600, generated_at=moment, mix=mix), tmp_path / name))
        service.extract(name)
        service.score(name)
    for variable, value in command_environment.items():
        monkeypatch.setenv(variable, value)
    from_the_command_line(tmp_path)
    with service.connection() as con:
        assert [previous_batch(con, name, "v1") for name, _, _ in BATCHES] == [None, "FIRST", "SAME"]

        first = watch(con, CARD, "FIRST")
        assert all(found.passed for found in first.values())
        assert first["score_stability"].figures["status"] == "nothing to compare with"

        same = watch(con, CARD, "SAME")
        assert {name for name, found in same.items() if not found.passed} == set(), [
            found.sentence for found in same.values()
        ]
        riskier = watch(con, CARD, "RISKIER")
        assert {name for name, found in riskier.items() if not found.passed} == set(riskier)
        assert riskier["score_stability"].figures["reference_batch"] == "SAME"
        against = watch(con, CARD, "SAME", "RISKIER")
        assert not against["band_mix"].passed

        con.execute(
            "DELETE FROM kycc.scores WHERE batch_id = 'SAME' AND party_id = (SELECT min(party_id) FROM kycc.scores WHERE batch_id = 'SAME')"
        )
        assert "have no score" in watch(con, CARD, "SAME")["coverage"].sentence
        with pytest.raises(NotFoundError, match=r"NOWHERE has no scores by scorecard v1\. Run scoring_job"):
            watch(con, CARD, "NOWHERE")

        report = scoring_report(con, CARD, "RISKIER", NOW)
        assert report.parties == sum(report.bands.values()) == sum(report.decisions.values()) == 600
        assert report.reference == "SAME"
        page = scoring_page(report)
        (digest,) = con.execute(
            "SELECT content_sha256 FROM kycc.batches WHERE batch_id = 'RISKIER'"
        ).fetchone() or ("",)
        assert digest
        assert digest in page
        assert CARD.content_hash in page
        assert "There is no earlier batch" in scoring_page(scoring_report(con, CARD, "FIRST", NOW))

        moment = datetime(2026, 6, 30, 2, tzinfo=UTC)
        letters = notices(CARD, read_features(con, "RISKIER", moment, CARD), moment)
        assert len(letters) == report.decisions["decline"]

        assert label_counts(con, "RISKIER") == {}
        con.execute(
            """
            INSERT INTO kycc.labels BY NAME
            SELECT batch_id, party_id, as_of, 180 AS observation_window_days, 'observed' AS label_source,
                   (total_score < 500)::TINYINT AS label, party_id <> (SELECT max(party_id) FROM kycc.parties
                   WHERE batch_id = 'RISKIER') AS window_over
            FROM kycc.scores WHERE batch_id = 'RISKIER'
            """
        )
        counts = label_counts(con, "RISKIER")["observed"]
        assert (counts.labelled, counts.unlabelled) == (599, 1)
        assert label_balance(counts).passed
        assert label_counts(con, "RISKIER", 90) == {}


def from_the_command_line(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from quayside.cli.kycc import app

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    told = run("watch")
    assert "band_mix: PROBLEM (RISKIER against SAME)" in told
    assert "sampling explains" in told
    assert "PROBLEM" not in run("watch", "--batch-id", "SAME")
    checks = json.loads(run("watch", "--batch-id", "SAME", "--reference", "RISKIER", "--json"))
    assert checks["score_stability"]["passed"] is False
    assert checks["score_stability"]["figures"]["reference_batch"] == "RISKIER"

    page = tmp_path / "page.html"
    assert "5 of 5 monitoring checks against batch SAME" in run("report", "--out", str(page))
    assert page.read_text("utf-8").startswith("<!doctype html>")

    texts = tmp_path / "texts.yaml"
    texts.write_text("opening: 'Geachte {party}'\nmost: 1\n")
    letters = json.loads(run("notices", "--texts", str(texts), "--json"))
    assert letters
    assert all(len(letter["reasons"]) == 1 and letter["decision"] == "decline" for letter in letters)
    assert f"Geachte {letters[0]['party_id']}" in run("notices", "--texts", str(texts))
