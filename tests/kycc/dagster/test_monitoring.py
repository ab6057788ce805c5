"""Monitoring as asset checks: green on a batch like the one before, red on a shifted one, and never a failed run."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from quayside.foundation.settings import Settings
from quayside.kycc.dagster.checks import STABILITY
from quayside.kycc.dagster.definitions import ml_training_job, scoring_job
from quayside.kycc.generate import generate, write_outcomes, write_parquet
from quayside.kycc.service import ScoringService

pytestmark = [pytest.mark.integration, pytest.mark.slow]

#: name and mix; an hour apart, because the regularity of trade counts calendar months
BATCHES = (("FIRST", "safe"), ("SAME", "safe"), ("RISKIER", "risky"))


def checks(result: dg.ExecuteInProcessResult) -> dict[str, tuple[bool, dg.AssetCheckSeverity]]:
    return {e.check_name: (e.passed, e.severity) for e in result.get_asset_check_evaluations()}


def test_a_shifted_batch_is_red_and_one_like_the_last_is_green(
    platform: Settings, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    service = ScoringService(platform)
    found = {}
    for hour, (name, mix) in enumerate(BATCHES):
        batch = generate(name, 600, generated_at=datetime(2025, 12, 31, hour, tzinfo=UTC), mix=mix)
        service.ingest(write_parquet(batch, tmp_path / name))
        service.load_outcomes(write_outcomes(batch, tmp_path / f"{name}_outcomes.json"))
        service.extract(name)
        scored = scoring_job.execute_in_process(
            {"ops": {"score_batch": {"config": {"batch_id": name}}}}, instance=instance
        )
        labelled = ml_training_job.execute_in_process(
            {"ops": {"generate_scorecard_labels": {"config": {"batch_id": name}}}},
            instance=instance,
            asset_selection=[dg.AssetKey("generate_scorecard_labels")],
        )
        assert scored.success
        assert labelled.success
        found[name] = checks(scored) | checks(labelled)
        if name == "RISKIER":
            evaluations = {e.check_name: e for e in scored.get_asset_check_evaluations()}
            figures = evaluations["score_stability"].metadata
            assert figures["reference_batch"].value == "SAME"
            assert figures["reference_rows"].value == figures["current_rows"].value == 600
            assert figures["psi"].value > 0.25
            shifted = evaluations["characteristic_stability"]
            assert isinstance(shifted.metadata["characteristics"], dg.TableMetadataValue)
            assert "points on average against batch SAME" in (shifted.description or "")

    warn, error = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR
    watched = {*STABILITY, "label_balance"}
    green = dict.fromkeys(watched, (True, warn)) | {"score_ranges": (True, error)}
    assert found["SAME"] == green
    assert {name: found["FIRST"][name] for name in STABILITY} == dict.fromkeys(STABILITY, (True, warn))
    red = {name for name, (passed, severity) in found["RISKIER"].items() if not passed and severity is warn}
    assert red == watched
    assert found["RISKIER"]["score_ranges"] == (True, error)
