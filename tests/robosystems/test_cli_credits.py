"""``quayside credits``: what a person types and reads."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.robosystems.books import subscribe

from quayside.cli.main import run
from quayside.foundation.postgres import connect
from quayside.foundation.settings import Settings
from quayside.robosystems.ledger import Ledger

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


def test_an_invoice_of_a_month_with_plan_and_debt(credits: Any, settings: Settings):
    with connect(settings, autocommit=True) as con:
        subscribe(con, "g", "large", at=datetime(2026, 1, 21, tzinfo=UTC), may_overdraw=True)
        con.execute("UPDATE robosystems.subscriptions SET fees_from = '2026-01-01'")
        Ledger(con).consume("g", 1000, key="debt", at=datetime(2026, 1, 25, tzinfo=UTC))
    _, out, _ = credits("bill", "invoices", "--month", "2026-01", "--dry-run", "--json")
    assert (json.loads(out)["fee_cents"], json.loads(out)["overage_cents"]) == (10645, 500)
    credits("bill", "invoices", "--month", "2026-01")
    (number,) = (each["number"] for each in json.loads(credits("invoices", "--json")[1]))
    _, out, _ = credits("invoice", number)
    assert f"Invoice {number} to acme is open, due on" in out
    assert "Plan large of g, 11 of 31 days" in out
    assert "111.45" in out.splitlines()[-1]
    assert len(json.loads(credits("invoice", number, "--json")[1])["lines"]) == 2
    assert "uncollectible" in credits("write-off", number)[1]
    assert "paid" in credits("pay", number, "--reference", "wire 7")[1]


def test_mistakes_are_one_sentence(credits: Any, tmp_path: Path):
    long = "x" * 300
    for command, said in (
        (("balance", "ghost"), "has no credit account"),
        (("balance", long), "(300 characters) has no credit account"),
        (("open", long), "1 to 200 characters"),
        (("open", " "), "no space at either end"),
        (("grant", "g", "1.5x"), "is not a number of credits"),
        (("grant", "g", "1", "--key", ""), "A key has 1 to 200"),
        (("grant", "g", "1", "--expires", "never"), "is not a moment"),
        (("adjust", "g", "--change", "1", "--reason", ""), "The reason has"),
        (("bill", "storage", "--day", "tomorrow"), "is not a day"),
        (("bill", "storage", "--day", "9999-12-31"), "outside the years 2000 to 2999"),
        (("bill", "invoices", "--month", "0001-01"), "outside the years 2000 to 2999"),
        (("statement", "g", "--month", "2026-01", "--since", "2026-01-01"), "not both"),
        (("statement", "g", "--since", "2026-02-01", "--until", "2026-01-01"), "cannot end at"),
        (("gaps", "--day", "2026-01-02", "--until", "2026-01-01"), "before it begins"),
        (("price", "foo", "1"), "is no price"),
        (("price", "event.a", "1e30"), "below 10^15"),
        (("assign", long, "g"), "subject of usage events"),
        (("void", "2026-000001", "--reason", "x"), "no invoice"),
        (("void", "2026-000001", "--reason", ""), "The reason has"),
        (("pay", "2026-000001", "--reference", ""), "What paid an invoice"),
        (("invoices", "--state", "odd"), "no state of an invoice"),
        (("provision", "list", "--state", "odd"), "no state of a subscription"),
        (("provision", "customer", "c", "--name", ""), "The name of a customer"),
        (("provision", "order", "c", "standard", "--fees", "maybe"), "invoiced or elsewhere"),
        (("provision", "order", "c", "starter", "--user", "u"), "needs --repository and --user"),
        (("provision", "order", "c", "standard", "--id", long), "The id of a subscription"),
    ):
        code, _, err = credits(*command)
        assert code > 0, command
        assert said in err, (command, err)
        assert len(err.strip().splitlines()) == 1, command
    assert credits("open", "g")[0] == 0
    code, _, err = credits("statement", "g", "--out", str(tmp_path / "none" / "s.csv"))
    assert (code, "cannot be written: No such file" in err) == (2, True)
    code, _, err = credits("grant", "g", "1", "--expires", "2999-12-31T23:59-14:00")
    assert code == 0, err
