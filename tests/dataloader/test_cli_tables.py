"""``quayside tables``, as a person calls it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quayside.cli.main import run
from quayside.dataloader.control.client import LakebaseClient
from quayside.dataloader.result import LoadResult
from quayside.foundation.settings import Settings

pytestmark = pytest.mark.integration

Tables = Callable[..., str]


@pytest.fixture
def tables(settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Tables:
    """``tables(*arguments, code=0)`` → what was printed; with another code what went to standard error."""
    assert settings.database_url is not None
    monkeypatch.setenv("QUAYSIDE_DATABASE_URL", settings.database_url.get_secret_value())
    monkeypatch.setenv("QUAYSIDE_HOME", str(settings.home))

    def call(*arguments: str, code: int = 0) -> str:
        with pytest.raises(SystemExit) as ended:
            run(["tables", *arguments])
        out, err = capsys.readouterr()
        assert int(ended.value.code or 0) == code, err
        assert "Traceback" not in err
        if code:
            assert len(err.strip().splitlines()) == 1
        return err if code else out

    return call


def test_from_a_source_to_a_loaded_table(tables: Tables, settings: Settings) -> None:
    add_source = ("sources", "add", "shop", "--type", "postgresql", "--field", "password=SHOP_PASSWORD")
    assert tables(*add_source, "--set", "max_concurrent_loads=2") == "Source shop is added.\n"
    assert tables(*add_source) == "Source shop is as it was.\n"
    add = (
        "add",
        "--source",
        "shop",
        "--schema",
        "public",
        "--table",
        "orders",
        "--cron",
        "0 6 1 1 *",
        "--key",
        "id,line",
    )
    assert tables(*add, "--to", "trade.orders") == "Config 1 (shop.public.orders) is added.\n"
    assert tables(*add) == "Config 1 (shop.public.orders) is as it was.\n"
    assert tables("why", "trade.orders") == "Config 1 (bronze.trade.orders) is ready: due now.\n"

    with LakebaseClient(settings) as client:
        _through_a_load(tables, client)

    assert tables("set", "1", "priority=4", "load_cron=", "is_active=false") == "Config 1 is changed.\n"
    assert "priority: 0 → 4" in tables("changes", "1")
    assert "Config 1 (bronze.trade.orders) is removed" in tables("remove", "1")


def _through_a_load(tables: Tables, client: LakebaseClient) -> None:
    attempt = client.for_attempt(1, client.claim(1)[0].attempt)
    attempt.begin("http://localhost:3000/runs/0a1b")
    attempt.heartbeat(rows=1200, total=4800, phase="reading")
    told = tables("why", "1")
    assert "is in progress: attempt 1 is loading since" in told
    assert "reading: 1,200 rows of 4,800" in told
    assert "last_dagster_run: http://localhost:3000/runs/0a1b" in told
    assert "stop it first" in tables("remove", "1", code=2)
    attempt.succeed(LoadResult("loaded", "full", 4800, 4800, rows_total=4800))
    (row,) = json.loads(tables("history", "1", "--json"))
    assert (row["load_status"], row["rows_written"]) == ("Succeeded", 4800)
    assert "Succeeded" in tables("history", "1")
    assert "not due" in tables("list")
    assert json.loads(tables("list", "--json", "--state", "failed")) == []

    assert "is ready: due since" in tables("run", "1", "--full")
    client.claim(1)
    assert tables("stop", "1") == "Config 1 was told to stop; it does at its next heartbeat.\n"
    client.give_up(1, 2, "no such table.")
    assert tables("stop", "1") == "Config 1 is not loading.\n"
    assert "free it with `quayside tables reset 1`" in tables("run", "1", code=2)
    assert tables("why", "1").splitlines()[0].endswith("waits for retry analysis or a reset: no such table.")
    assert "is ready: due since" in tables("reset", "1", "--reason", "made the table")
    assert client.get_table_details(1)["load_full"]


def test_a_source_that_is_not_complete_says_what_it_lacks(
    tables: Tables, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    add = ["tables", "sources", "add", "shop", "--type", "mariadb"]
    for fields, wrong in (
        (["hots=A", "user=B"], "hots is not a field of it; host is missing. Its fields are host, port, "),
        (["host=A", "user=B", "database=C", "service_name=D"], "service_name is given twice. "),
        (["host=A", "user=B"], None),
        (["secret_bundle=ALL"], None),
    ):
        with pytest.raises(SystemExit) as ended:
            run([*add, *(word for field in fields for word in ("--field", field))])
        assert not ended.value.code
        out, err = capsys.readouterr()
        assert out.startswith("Source shop is ")
        if wrong is None:
            assert err == ""
        else:
            assert err.startswith(f"quayside: Nothing can be loaded from source shop yet: {wrong}")
            assert len(err.splitlines()) == 1


def test_one_switch_stops_a_source(tables: Tables) -> None:
    tables("sources", "add", "shop", "--type", "csv")
    tables("add", "--source", "shop", "--table", "orders", "--to", "trade.orders")
    assert "Source shop is paused" in tables("pause", "shop", "--reason", "month end")
    assert "source shop is paused: month end" in tables("why", "1")
    assert json.loads(tables("sources", "list", "--json"))[0]["is_paused"] is True
    tables("resume", "shop")
    assert "is ready" in tables("why", "1")


def test_yaml_there_and_back(tables: Tables, tmp_path: Path) -> None:
    file = tmp_path / "tables.yaml"
    file.write_text(
        "sources: [{db_config_key: files, db_type: csv, db_config_value: {path: /data}}]\n"
        "tables:\n"
        "  - {db_config_key: files, source_table_name: a, destination_schema_name: trade, primary_key_cols: [id, no]}\n"
        "  - {db_config_key: files, source_table_name: b, destination_schema_name: trade, is_active: false}\n"
    )
    assert tables("import", str(file)) == "added 3, changed 0, unchanged 0.\n"
    exported = tmp_path / "exported.yaml"
    tables("export", "--out", str(exported))
    assert tables("add", "--file", str(exported)) == "added 0, changed 0, unchanged 3.\n"
    assert tables("export") == exported.read_text()


WRONG = [
    (["why", "77"], 1, "has no table with config_id 77"),
    (["why", "trade.none"], 1, "has no table called 'trade.none'"),
    (["pause", "nowhere"], 1, "There is no source database 'nowhere'"),
    (["list", "--source", "nowhere"], 1, "There is no source database 'nowhere'"),
    (["list", "--state", "faild"], 2, "Invalid value for '--state': 'faild' is not one of 'ready', 'queued'"),
    (["add"], 2, "Give --source and --table, or --file."),
    (["add", "--source", "nowhere", "--table", "x"], 1, "there is no source database 'nowhere'"),
    (
        ["sources", "add", "a b", "--type", "db2"],
        1,
        "db_config_key 'a b' is not made of .*; db_type 'db2' is none",
    ),
    (["sources", "add", "a", "--type", "csv", "--field", "path"], 2, "'path' is not name=value"),
    (["import", "/nowhere.yaml"], 1, "cannot be read: No such file"),
]


def test_what_is_wrong_is_one_sentence(tables: Tables) -> None:
    for arguments, code, sentence in WRONG:
        assert re.search(sentence, tables(*arguments, code=code))


def test_nothing_yet(tables: Tables) -> None:
    for arguments in (["list"], ["sources", "list"]):
        assert tables(*arguments) == "(none)\n"
    shown: Any = json.loads(tables("list", "--json"))
    assert shown == []
