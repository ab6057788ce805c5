"""``quayside credits``: what a person types and reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quayside.cli.main import run
from quayside.foundation.postgres import connect
from quayside.foundation.settings import Settings

pytestmark = pytest.mark.integration


@pytest.fixture
def credits(settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a sub-command: its exit code, standard output and standard error."""
    assert settings.database_url is not None
    monkeypatch.setenv("QUAYSIDE_HOME", str(settings.home))
    monkeypatch.setenv("QUAYSIDE_DATABASE_URL", settings.database_url.get_secret_value())

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            run(["credits", *arguments])
        out = capsys.readouterr()
        return int(ended.value.code or 0), out.out, out.err

    return call


def test_from_a_grant_to_a_statement(credits: Any, tmp_path: Path):
    assert credits("open", "g")[0] == 0
    assert credits("grant", "g", "100", "--key", "k")[0] == 0
    _, out, _ = credits("grant", "g", "100", "--key", "k", "--json")
    assert json.loads(out)["repeated"] is True
    credits("adjust", "g", "--change", "-30", "--reason", "test")
    _, out, _ = credits("balance", "g", "--json")
    assert json.loads(out)["available"] == "70.000000"
    _, out, _ = credits("statement", "g")
    assert "Opening balance" in out
    assert "Credits granted: promotion" in out
    for ending in ("csv", "parquet", "html"):
        assert credits("statement", "g", "--out", str(tmp_path / f"s.{ending}"))[0] == 0
        assert (tmp_path / f"s.{ending}").stat().st_size > 100
    _, out, _ = credits("statement", "g", "--json")
    number = str(json.loads(out)["lines"][0]["number"])
    assert credits("void", number, "--reason", "typo")[0] == 0
    _, out, _ = credits("balance")
    assert "-30.000000" in out


def test_billing_reports_and_health(credits: Any, settings: Settings):
    for command in (
        ("bill", "storage", "--day", "2026-01-10"),
        ("bill", "overage", "--month", "2026-01"),
        ("bill", "allowances", "--dry-run"),
        ("bill", "expiry"),
        ("bill", "events"),
        ("price", "event.a.b", "0.25"),
        ("prices",),
        ("invoices",),
        ("gaps", "--day", "2026-01-10"),
        ("report", "--month", "2026-01"),
        ("health",),
    ):
        code, out, err = credits(*command)
        assert (code, err) == (0, ""), command
        assert out
    with connect(settings, autocommit=True) as con:
        con.execute("SET session_replication_role = replica")
        con.execute(
            "INSERT INTO robosystems.accounts (name, graph_id, balance, opened_by) VALUES ('g', 'g', 5, 't')"
        )
    assert credits("health")[0] == 1


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("balance", "ghost"), "has no credit account"),
        (("grant", "g", "1.5x"), "is not a number of credits"),
        (("bill", "storage", "--day", "tomorrow"), "is not a day"),
        (("statement", "g", "--month", "2026-01", "--since", "2026-01-01"), "not both"),
        (("price", "foo", "1"), "is no price"),
        (("void", "2026-000001", "--reason", "x"), "no invoice"),
    ],
)
def test_mistakes_are_one_sentence(credits: Any, command: tuple[str, ...], said: str):
    code, _, err = credits(*command)
    assert code > 0
    assert said in err
    assert len(err.strip().splitlines()) == 1
