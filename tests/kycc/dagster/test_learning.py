"""`full_scoring_job` and `ml_training_job` as a reader imports them: from a file to a draft, and what they report."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from dagster._core.execution.plan import active
from tests.kycc.dagster.conftest import BATCH, MOMENT, ingest_config, metadata

from quayside.foundation.errors import InputError, ServiceUnavailableError
from quayside.foundation.settings import Settings
from quayside.kycc.dagster import assets
from quayside.kycc.dagster.definitions import (
    feature_job,
    full_scoring_job,
    ingest_job,
    ml_training_job,
    scoring_job,
)
from quayside.kycc.dagster.partitions import (
    BATCH_TAG,
    BATCHES,
    BATCHES_NAME,
    TRAINING_TAG,
    VERSION_TAG,
    WINDOW_TAG,
)
from quayside.kycc.generate import generate, write_json
from quayside.kycc.service import ScoringService

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SVG = "data:image/svg+xml;base64,"


def with_outcomes(folder: Path) -> dict[str, Any]:
    config = ingest_config(folder / f"{BATCH}.json")
    labels = {"config": {"outcomes_path": str(folder / f"{BATCH}_outcomes.json")}}
    return {"ops": config["ops"] | {"generate_scorecard_labels": labels}}


def tags(instance: dg.DagsterInstance, run_id: str) -> dict[str, str]:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return dict(run.tags)


def test_from_a_file_and_its_outcomes_to_a_draft(
    platform: Settings, instance: dg.DagsterInstance, batch_folder: Path
) -> None:
    result = full_scoring_job.execute_in_process(run_config=with_outcomes(batch_folder), instance=instance)
    assert result.success
    assert {e.check_name for e in result.get_asset_check_evaluations()} == {
        "batch_counts", "feature_ranges", "score_ranges", "score_stability", "feature_stability",
        "characteristic_stability", "band_mix", "coverage", "label_balance",
    }  # fmt: skip
    labels = metadata(result, "generate_scorecard_labels")
    assert (labels["batch_id"], labels["label_source"], labels["circular"]) == (BATCH, "observed", False)
    (counts,) = labels["labels"]
    assert counts["good"] + counts["bad"] == 300

    trained = metadata(result, "train_model_asset")
    assert (trained["status"], trained["rows"], trained["circular"]) == ("trained", 300, False)
    assert [row["ranking"] for row in trained["holdout"]] == ["model", "scorecard v1"]
    assert trained["holdout"][0]["auc"] == trained["auc"] > 0.5
    assert trained["plots"].count(SVG) == 3
    assert sum(row["share"] for row in trained["importance"]) == pytest.approx(1, abs=0.01)

    refined = metadata(result, "refine_scorecard")
    assert refined["status"] in {"draft", "rejected"}
    assert (refined["version"], refined["base_version"], refined["blend_factor"]) == ("v2", "v1", 0.5)
    assert (refined["status"] == "draft") == all(gate["passed"] for gate in refined["gates"])
    assert {"characteristic", "base", "model", "refined"} == set(refined["weights"][0])
    version = ScoringService(platform).versions.get("v2")
    assert version.created_by == f"dagster:run:{result.run_id}"

    for page in (refined["report"], metadata(result, "score_batch")["report"]):
        text = Path(page).read_text("utf-8")
        assert text.startswith("<!doctype html>")
        assert Path(page).is_relative_to(platform.home / "reports")
    said = tags(instance, result.run_id)
    assert {said[BATCH_TAG], said[VERSION_TAG], said[WINDOW_TAG]} == {BATCH, "v1", "180"}
    assert said[TRAINING_TAG] == trained["training_id"] == refined["training_id"]

    # The window of the labels is that of the training; with the same labels the version is the same.
    days = {"ops": {"generate_scorecard_labels": {"config": {"observation_window_days": 90}}}}
    shorter = ml_training_job.execute_in_process(run_config=days, instance=instance)
    assert metadata(shorter, "train_model_asset")["observation_window_days"] == 90
    again = metadata(ml_training_job.execute_in_process(instance=instance), "refine_scorecard")
    assert (again["version"], again["known_before"]) == ("v2", True)

    # Drafts score the batch in the shadow of the card that decides.
    drafts = [v.version for v in ScoringService(platform).versions.list() if v.status == "draft"]
    scored = metadata(scoring_job.execute_in_process(instance=instance), "score_batch")
    assert set(scored["shadow_versions"].split(", ")) == set(drafts or ["no draft"])


def test_what_cannot_be_learned_is_skipped_with_its_reason_and_labels_without_outcomes_are_circular(
    platform: Settings, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    path = write_json(generate("SMALL", 60, generated_at=MOMENT), tmp_path / "small.json")
    result = full_scoring_job.execute_in_process(run_config=ingest_config(path), instance=instance)
    assert result.success
    labels = metadata(result, "generate_scorecard_labels")
    assert (labels["label_source"], labels["circular"]) == ("simulated", True)
    trained, refined = metadata(result, "train_model_asset"), metadata(result, "refine_scorecard")
    assert (trained["status"], refined["status"]) == ("skipped", "skipped")
    assert trained["reason"] == refined["reason"] == "There are 60 labelled rows; training needs 100."
    assert "Nothing was trained" in Path(trained["report"]).read_text("utf-8")
    assert [v.version for v in ScoringService(platform).versions.list()] == ["v1"]


def test_a_history_is_backfilled_by_batch(
    platform: Settings, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The partition names the batch in every job; its file is the one that arrived."""
    monkeypatch.setattr(assets, "incoming_folder", lambda: tmp_path)
    write_json(generate("JAN", 20, generated_at=MOMENT), tmp_path / "JAN.json")
    other = write_json(generate("FEB", 20, generated_at=MOMENT), tmp_path / "other.json")
    instance.add_dynamic_partitions(BATCHES_NAME, ["JAN"])
    assert full_scoring_job.partitions_def == BATCHES
    assert ingest_job.execute_in_process(partition_key="JAN", instance=instance).success
    assert ingest_job.execute_in_process(ingest_config(other), instance=instance).success
    assert instance.get_dynamic_partitions(BATCHES_NAME) == ["JAN", "FEB"]
    for job in (feature_job, scoring_job):  # the last batch is FEB
        result = job.execute_in_process(partition_key="JAN", instance=instance)
        assert tags(instance, result.run_id)["dagster/partition"] == "JAN"
    assert metadata(result, "score_batch")["batch_id"] == "JAN"
    both = {"ops": {"score_batch": {"config": {"batch_id": "FEB"}}}}
    wrong = scoring_job.execute_in_process(both, partition_key="JAN", instance=instance, raise_on_error=False)
    (failure,) = [e for e in wrong.all_events if e.is_step_failure and e.step_key == "score_batch"]
    assert "partition JAN, its config names batch FEB" in str(failure.step_failure_data.error)


@pytest.mark.parametrize(
    ("error", "waits"),
    [(ServiceUnavailableError, [30, 30, 30]), (ValueError, [30, 30, 30]), (InputError, [])],
)
def test_a_failure_that_may_pass_is_retried_and_a_permanent_one_is_not(
    platform: Settings,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    error: type[Exception],
    waits: list[float],
) -> None:
    """On a clock that goes on by what is slept."""
    slept: list[float] = []
    calls = []

    def score(*args: object) -> None:
        calls.append(args)
        raise error("not now")

    clock = SimpleNamespace(time=lambda: 1e9 + sum(slept), sleep=slept.append)
    monkeypatch.setattr(active, "time", clock)
    monkeypatch.setattr(ScoringService, "score", score)
    scoring_job.execute_in_process(instance=instance, raise_on_error=False)
    assert slept == waits
    assert len(calls) == len(waits) + 1
