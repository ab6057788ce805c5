from __future__ import annotations

import json
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from quayside.cli.lake import duration
from quayside.cli.main import run
from quayside.foundation.errors import UsageError
from quayside.foundation.lake import Lake
from quayside.foundation.settings import Settings


@pytest.fixture
def _lake(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.database_url is not None
    monkeypatch.setenv("QUAYSIDE_HOME", str(settings.home))
    monkeypatch.setenv("QUAYSIDE_DATABASE_URL", settings.database_url.get_secret_value())
    with closing(Lake(settings).connect()) as con:
        con.execute("CREATE SCHEMA s")
        con.execute("CREATE TABLE s.rows AS SELECT 'a,b' AS batch, range AS n FROM range(3)")


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    with pytest.raises(SystemExit) as ended:
        run(["lake", *arguments])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return int(ended.value.code or 0), out, err


@pytest.mark.integration
@pytest.mark.usefixtures("_lake")
@pytest.mark.slow
def test_what_each_command_prints(capsys: pytest.CaptureFixture[str], settings: Settings) -> None:
    code, out, _ = call(capsys, "tables")
    assert code == 0
    assert out.splitlines()[1].split()[:3] == ["s.rows", "3", "1"]
    [table] = json.loads(call(capsys, "tables", "--json")[1])
    assert (table["table"], table["rows"], table["deleted_rows"]) == ("s.rows", 3, 0)

    snapshots = json.loads(call(capsys, "snapshots", "--json", "--limit", "2")[1])
    assert [s["snapshot_id"] for s in snapshots] == [2, 1]
    assert snapshots[0]["changes"]["tables_inserted_into"] == ["s.rows"]
    assert "s.rows" in call(capsys, "snapshots")[1]

    sql = "SELECT n, n AS n, batch FROM s.rows ORDER BY n"
    assert call(capsys, "query", sql, "--limit", "2") == (
        0,
        "n  n_2  batch\n0    0  a,b\n1    1  a,b\n",
        "The first 2 rows; --limit 0 shows all.\n",
    )
    assert json.loads(call(capsys, "query", sql, "--json")[1])[2] == {"n": 2, "n_2": 2, "batch": "a,b"}
    assert call(capsys, "query", sql, "--csv")[1].splitlines()[:2] == ["n,n,batch", '0,0,"a,b"']
    assert call(capsys, "query", "SELECT n FROM s.rows WHERE n < 0")[1] == "(none)\n"

    _, out, _ = call(capsys, "export", "s.rows")
    assert out == f"3 rows of s.rows at snapshot 2 are in {settings.home}/exports/s.rows.parquet.\n"
    done = json.loads(call(capsys, "export", "s.rows", "--format", "delta", "--json")[1])
    assert Path(done["target"], "_delta_log").is_dir()
    _, out, _ = call(capsys, "publish", "s.rows", "--to", "bronze.rows")
    assert out == "3 rows of s.rows at snapshot 2 are in PostgreSQL as bronze.rows.\n"

    _, out, _ = call(capsys, "maintain", "--dry-run", "--keep", "0d")
    assert "2 snapshots would be expired" in out
    assert json.loads(call(capsys, "maintain", "--keep", "0s", "--json")[1])["expired_snapshots"] == 2


@pytest.mark.integration
@pytest.mark.usefixtures("_lake")
@pytest.mark.parametrize(
    "arguments, code, sentence",
    [
        (["query", "DROP TABLE s.rows"], 1, "Only one SELECT"),
        (["query", "SELECT 1", "--json", "--csv"], 2, "exclude each other"),
        (["export", "s.rows", "--format", "xlsx"], 2, "is not a format"),
        (["export", "s.none"], 1, "no table s.none"),
        (["export", "s.rows", "--snapshot", "77"], 1, "no snapshot 77"),
        (["publish", "s.rows", "--to", "lake.x"], 2, "not for publications"),
        (["maintain", "--keep", "soon"], 2, "not a duration"),
    ],
)
def test_errors_are_one_sentence(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, sentence: str
) -> None:
    ended, out, err = call(capsys, *arguments)
    assert (ended, out) == (code, "")
    assert err.startswith("quayside: ")
    assert sentence in err
    assert err.count("\n") == 1


@pytest.mark.unit
@pytest.mark.parametrize(
    "text, expected",
    [
        ("7d", timedelta(days=7)),
        ("12h", timedelta(hours=12)),
        ("30m", timedelta(minutes=30)),
        ("45 s", timedelta(seconds=45)),
        ("2w", timedelta(weeks=2)),
        ("3", timedelta(days=3)),
    ],
)
def test_duration(text: str, expected: timedelta) -> None:
    assert duration(text) == expected


@pytest.mark.unit
@pytest.mark.parametrize("text", ["", "-1d", "1y", "d", "1.5d", "9999999d"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError, match="not a duration"):
        duration(text)
