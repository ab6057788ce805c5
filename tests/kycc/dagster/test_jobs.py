"""The jobs a reader imports, run for real on an ephemeral instance and a real platform."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from tests.kycc.dagster.conftest import MOMENT, ingest_config, metadata

from quayside.foundation.settings import Settings
from quayside.kycc.dagster.checks import STABILITY
from quayside.kycc.dagster.definitions import defs, feature_job, ingest_job, scoring_job
from quayside.kycc.dagster.partitions import BATCH_TAG
from quayside.kycc.generate import generate, write_json
from quayside.kycc.service import ScoringService

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def batch_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_json(
        generate("JOB_TEST", 60, generated_at=MOMENT), tmp_path_factory.mktemp("batch") / "batch.json"
    )


def passed_checks(result: dg.ExecuteInProcessResult) -> set[str]:
    return {e.check_name for e in result.get_asset_check_evaluations() if e.passed}


@pytest.mark.slow
def test_the_line_through_the_jobs_one_by_one(
    platform: Settings, instance: dg.DagsterInstance, batch_file: Path
) -> None:
    ingested = ingest_job.execute_in_process(run_config=ingest_config(batch_file), instance=instance)
    assert ingested.success
    run = instance.get_run_by_id(ingested.run_id)
    assert run is not None
    assert run.tags[BATCH_TAG] == "JOB_TEST"
    assert passed_checks(ingested) == {"batch_counts"}

    featured = feature_job.execute_in_process(instance=instance)
    assert passed_checks(featured) == {"feature_ranges"}
    assert metadata(featured, "extract_features")["rows"] == 60
    assert "data:image/svg+xml;base64," in metadata(featured, "extract_kyc_features")["distributions"]

    scored = scoring_job.execute_in_process(instance=instance)
    assert passed_checks(scored) == {"score_ranges", *STABILITY}
    reported = metadata(scored, "score_batch")
    assert reported["parties_scored"] == 60
    assert 300 <= reported["avg_score"] <= 900
    assert reported["processing_time_seconds"] > 0
    assert sum(row["parties"] for row in reported["band_mix"]) == 60


@pytest.mark.slow
@pytest.mark.parametrize(
    ("job", "config", "sentence"),
    [
        (feature_job, {}, "No batch is loaded; run ingest_job"),
        (scoring_job, {}, "No batch has features; run feature_job"),
        (
            scoring_job,
            {"ops": {"score_batch": {"config": {"batch_id": "NOWHERE"}}}},
            "Batch NOWHERE",
        ),
        (ingest_job, ingest_config(Path("nowhere.json")), "quayside kycc generate"),
    ],
)
def test_a_job_that_cannot_start_says_so_in_one_sentence(
    platform: Settings,
    instance: dg.DagsterInstance,
    job: dg.JobDefinition,
    config: dict[str, Any],
    sentence: str,
) -> None:
    result = job.execute_in_process(run_config=config, instance=instance, raise_on_error=False)
    assert not result.success
    (failure,) = [e for e in result.all_events if e.is_step_failure and "check" not in str(e.step_key)][:1]
    error = failure.step_failure_data.error
    assert error is not None
    cause = error.cause or error
    assert sentence in cause.message


@pytest.mark.slow
def test_batch_and_moment_come_from_config(
    platform: Settings, instance: dg.DagsterInstance, batch_file: Path
) -> None:
    ingest_job.execute_in_process(
        run_config=ingest_config(batch_file, batch_id="JOB_TEST"), instance=instance
    )
    config = {"batch_id": "JOB_TEST", "as_of": "2026-05-31"}
    names = ["extract_kyc_features", "extract_txn_features", "extract_network_features", "extract_features"]
    run_config = {"ops": {name: {"config": config} for name in names}}
    feature_job.execute_in_process(run_config=run_config, instance=instance)
    scored = scoring_job.execute_in_process(
        run_config={"ops": {"score_batch": {"config": config}}}, instance=instance
    )
    assert metadata(scored, "score_batch")["as_of"] == "2026-05-31T00:00:00+00:00"


def test_score_batch_is_retried(platform: Settings) -> None:
    policy = defs.get_assets_def("score_batch").op.retry_policy
    assert policy is not None
    assert (policy.max_retries, policy.delay) == (3, 30)


@pytest.mark.slow
def test_plain_dagster_commands_work(
    command_environment: dict[str, str], settings: Settings, batch_file: Path, tmp_path: Path
) -> None:
    """A job and an asset as the README prints them: in the project's folder, without DAGSTER_HOME."""
    project = Path(__file__).parents[3]
    config = tmp_path / "run.json"
    config.write_text(json.dumps(ingest_config(batch_file)))
    dagster = str(Path(sys.executable).with_name("dagster"))
    module = ["-m", "quayside.kycc.dagster"]
    for command in (
        ["job", "execute", *module, "-j", "ingest_job", "-c", str(config)],
        ["asset", "materialize", *module, "--select", "score_batch"],
    ):
        if command[0] == "asset":
            ScoringService(settings).extract("JOB_TEST")
        done = subprocess.run(
            [dagster, *command], cwd=project, env=command_environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert "RUN_SUCCESS" in done.stderr
