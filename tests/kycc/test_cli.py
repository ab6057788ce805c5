"""``quayside kycc`` as a person uses it: real processes, from a file to an explained score."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration

QUAYSIDE = str(Path(sys.executable).with_name("quayside"))


@pytest.fixture
def quayside(command_environment: dict[str, str], tmp_path: Path) -> Any:
    def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [QUAYSIDE, *arguments], cwd=tmp_path, env=command_environment, capture_output=True, text=True
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        return done

    return run


@pytest.mark.slow
def test_from_a_file_to_an_explained_score(quayside: Any, tmp_path: Path) -> None:
    file = tmp_path / "batch.json"
    quayside("kycc", "generate", "--out", str(file), "--parties", "80", "--batch-id", "CLI_TEST")
    assert (tmp_path / "CLI_TEST_outcomes.json").is_file()

    loaded = json.loads(quayside("kycc", "ingest", str(file), "--json").stdout)
    assert (loaded["batch_id"], loaded["rows_kept"]["parties"]) == ("CLI_TEST", 80)
    assert "nothing changed" in quayside("kycc", "ingest", str(file)).stdout

    scored = json.loads(quayside("kycc", "score", "--json").stdout)
    assert (scored["batch_id"], scored["parties"], sum(scored["bands"].values())) == ("CLI_TEST", 80, 80)
    assert "very_poor" in quayside("kycc", "score").stdout

    (batch,) = json.loads(quayside("kycc", "batches", "--json").stdout)
    assert (batch["has_features"], batch["scored_by"]) == (True, ["v1"])
    assert json.loads(quayside("kycc", "quarantine", "--json").stdout) == []

    party = json.loads(file.read_bytes())["parties"][0]["party_id"]
    told = json.loads(quayside("kycc", "explain", party, "--json").stdout)
    assert told["score"]["party_id"] == party
    assert told["explanation"]["total_score"] == told["score"]["total_score"]
    assert "Strongest reasons against" in quayside("kycc", "explain", party).stdout
    assert {f["feature"] for f in json.loads(quayside("kycc", "features", "--json").stdout)} >= {
        "kyc_verified",
        "transaction_count_6m",
        "network_size",
    }


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("ingest", "nowhere.json"), 1, "quayside kycc generate"),
        (("ingest", "cut.json"), 1, "cut.json"),
        (("score",), 1, "No batch is loaded"),
        (("score", "--batch-id", "NONE"), 1, "NONE"),
        (("explain", "NOBODY"), 1, "NOBODY"),
        (("scorecard", "show", "v99"), 1, "v99"),
        (("scorecard", "sql", "--dialect", "klingon"), 1, "klingon"),
        (("generate", "--mix", "wild", "--out", "x.json"), 2, "wild"),
        (("explain",), 2, "party"),
    ],
)
def test_what_goes_wrong_is_one_sentence(
    quayside: Any, tmp_path: Path, arguments: tuple[str, ...], code: int, sentence: str
) -> None:
    (tmp_path / "cut.json").write_text('{"batch_id": "B1", "parties": [{"party_id": "P1", ')
    error = quayside("kycc", *arguments, code=code).stderr
    assert sentence in error
    if code == 1:
        assert next(line for line in error.splitlines() if line.startswith("quayside: ")).count("\n") == 0


def test_the_card_as_data_and_as_sql(quayside: Any) -> None:
    card = json.loads(quayside("kycc", "scorecard", "show", "--json").stdout)
    assert len(card["characteristics"]) == 13
    assert quayside("kycc", "scorecard", "sql", "--dialect", "sqlite", "--table", "f").stdout.startswith(
        "SELECT"
    )
