"""``quayside credits provision | keys`` and ``quayside adapters``: a whole life by commands, and sentences instead of traces."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.robosystems.shared import module_settings  # noqa: F401  a fixture

from quayside.cli.main import run
from quayside.foundation.settings import Settings

pytestmark = pytest.mark.integration


@pytest.fixture
def quayside(
    module_settings: Settings,  # noqa: F811  the fixture
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Any:
    """``quayside("credits keys list", fails=…)``: what it prints; with `fails` it has to end with that exit code."""
    assert module_settings.database_url is not None
    monkeypatch.setenv("QUAYSIDE_HOME", str(module_settings.home))
    monkeypatch.setenv("QUAYSIDE_DATABASE_URL", module_settings.database_url.get_secret_value())
    monkeypatch.setenv("QUAYSIDE_API_KEY_SECRET", "env:KEY_SECRET_OF_TESTS")
    monkeypatch.setenv("KEY_SECRET_OF_TESTS", "x" * 40)

    def call(line: str, fails: int = 0) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run(line.split())
        out, err = capsys.readouterr()
        assert (ended.value.code or 0) == fails, err
        assert "Traceback" not in err
        return out if not fails else err

    return call


def test_a_subscription_from_order_to_end(quayside: Any) -> None:
    quayside("credits provision customer acme --name Acme --email a@example.org")
    quayside("credits provision customer acme --name Acme --terms net_60")
    assert "terms that are one of" in quayside("credits provision customer acme --name A --terms soon", 2)
    assert "s1 is pending (standard)" in quayside(
        "credits provision order acme standard --id s1 --kind entity"
    )
    assert "another order" in quayside("credits provision order acme large --id s1", 1)
    assert "no kind of graph" in quayside("credits provision order acme standard --kind odd", 2)
    assert "only one that is provisioning" in quayside("credits provision run s1", 1)
    assert "is provisioning" in quayside("credits provision paid s1")
    assert "is active (standard, graph kg" in quayside("credits provision run s1")
    (row,) = json.loads(quayside("credits provision list --state active --json"))
    graph = row["graph_id"]
    upgraded = quayside("credits provision plan s1 large")
    assert "is active (large" in upgraded
    assert "The larger plan brings" in upgraded
    assert "are paid elsewhere" in quayside("credits provision fees s1 elsewhere")
    assert "are invoiced from" in quayside("credits provision fees s1 invoiced")
    assert "for a repository" in quayside("credits provision plan s1 starter", 2)
    for command, state in [
        ("pause", "paused"),
        ("resume", "active"),
        ("past-due", "past_due"),
        ("paid", "active"),
    ]:
        assert f"s1 is {state}" in quayside(f"credits provision {command} s1")
    assert f"of graph {graph}" in quayside(f"credits provision backup {graph}")
    (backup,) = json.loads(quayside(f"credits provision backups {graph} --json"))
    assert backup["backup_id"] in quayside(f"credits provision restore {graph} --into kg-copy")
    assert "There is no graph" in quayside("credits provision backup kg-none", 1)
    assert "only one that failed is tried again" in quayside("credits provision retry s1", 2)
    later = quayside("credits provision plan s1 xlarge --from 2099-01-01")
    assert later.splitlines()[-1] == "It changes to xlarge at 2099-01-01 00:00 UTC."
    canceled = quayside("credits provision cancel s1 --at 2099-01-01 --reason moved")
    assert "is canceled" in canceled
    assert "runs until 2099-01-01 00:00 UTC" in canceled
    assert "its graph stays" in quayside("credits provision end s1", 1)
    quayside("credits provision resume s1")
    quayside("credits provision cancel s1")
    assert "Last backup: graph-backups/" in quayside("credits provision end s1")
    history = json.loads(quayside("credits provision history s1 --json"))
    assert [h["to_state"] for h in history][-4:] == ["canceled", "active", "canceled", "ended"]
    assert history[-4]["reason"] == "moved"
    assert "no subscription 'nobody'" in quayside("credits provision history nobody", 1)


def test_access_to_a_repository(quayside: Any) -> None:
    quayside("credits provision customer house --name House")
    assert "Repository sec was made" in quayside("credits provision repository sec --owner house")
    quayside("credits provision order house starter --repository sec --user u1 --id r1")
    quayside("credits provision paid r1")
    assert "r1 is active (starter, graph sec:u1)" in quayside("credits provision run r1")
    (row,) = json.loads(quayside("credits provision access sec --json"))
    assert (row["user_id"], row["plan"], row["until"]) == ("u1", "starter", None)
    quayside("credits provision cancel r1")
    assert "r1 is ended" in quayside("credits provision end r1")
    assert json.loads(quayside("credits provision access sec --json")) == []


def test_keys(quayside: Any) -> None:
    quayside("credits provision customer k --name K")
    key = quayside("credits keys new k --name ci --expires 2099-01-01").strip()
    assert key.startswith("qsk_")
    (row,) = json.loads(quayside("credits keys list k --json"))
    assert row["prefix"] in key
    assert key[17:] not in json.dumps(row)
    assert "is inactive since" in quayside(f"credits keys revoke {row['key_id']}")
    assert "0 keys would be deactivated, 1 would be deleted" in quayside(
        "credits keys cleanup --grace-days 0 --dry-run"
    )
    assert "0 keys deactivated, 0 deleted" in quayside("credits keys cleanup")
    assert "no API key" in quayside("credits keys revoke nothing", 1)


def test_adapters(quayside: Any, tmp_path: Any) -> None:
    rows = json.loads(quayside("adapters list --json"))
    assert {"plaid", "quickbooks", "sec"} <= {row["adapter"] for row in rows}
    assert "is no checkout" in quayside(f"adapters new a --root {tmp_path}", 2)
    (tmp_path / "src/quayside/robosystems").mkdir(parents=True)
    assert "test_custom_a.py" in quayside(f"adapters new a --root {tmp_path}")
