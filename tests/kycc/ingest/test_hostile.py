"""Every hostile input is answered with its own sentence, or its bad rows are quarantined with their reasons.

The cases are data: ``hostile/cases.yaml`` and the files beside it; the head of that file says how to add one.
"""

from __future__ import annotations

import socket
import zipfile
from collections.abc import Callable
from os import mkfifo
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
import yaml

from quayside.foundation.errors import QuaysideError
from quayside.kycc.ingest import ingest

if TYPE_CHECKING:
    from tests.kycc.ingest.conftest import PlainLake

HOSTILE = Path(__file__).parent / "hostile"
CASES: list[dict[str, Any]] = yaml.safe_load((HOSTILE / "cases.yaml").read_text(encoding="utf-8"))

pytestmark = pytest.mark.unit


def _zip_bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("batch.json", b" " * 50_000_000)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


SPECIAL: dict[str, Callable[[Path], None]] = {
    "fifo": mkfifo,
    "folder": Path.mkdir,
    "socket": _socket,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "loop": lambda path: path.symlink_to(path),
    "nothing": lambda path: None,
    "zip bomb": _zip_bomb,
}


def _parquet(case: dict[str, Any], folder: Path) -> None:
    """The good batch as Parquet, its tables replaced by the case's SQL or bytes; None leaves a file out."""
    folder.mkdir()
    tables = dict.fromkeys(("parties", "accounts", "transactions", "relationships"), "FROM good")
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        for table, sql in (tables | case["parquet"]).items():
            if sql is not None:
                con.execute(
                    f"CREATE OR REPLACE VIEW good AS SELECT unnest(rows, max_depth := 2) FROM "
                    f"(SELECT unnest({table}) AS rows FROM read_json('{HOSTILE / 'files' / 'good.json'}'))"
                )
                con.sql(sql).write_parquet(str(folder / f"{table}.parquet"))
    for name, content in case.get("bytes", {}).items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    if "cut" in case:
        file = folder / case["cut"]
        file.write_bytes(file.read_bytes()[:-200])


def _input(case: dict[str, Any], tmp_path: Path) -> Path:
    if "file" in case and "repeat" not in case:
        return HOSTILE / "files" / case["file"]
    path = tmp_path / case.get("as", case.get("file", "batch.json"))
    if "special" in case:
        SPECIAL[case["special"]](path)
    elif "parquet" in case:
        _parquet(case, path)
    else:
        change = case["repeat"]
        text = (HOSTILE / "files" / case["file"]).read_text(encoding="utf-8")
        assert change["find"] in text
        path.write_text(text.replace(change["find"], change["with"] * change["times"], 1), encoding="utf-8")
    return path


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_hostile_input(case: dict[str, Any], plain_lake: PlainLake, tmp_path: Path) -> None:
    path = _input(case, tmp_path)
    options = {"max_reject_ratio": 1, **case.get("options", {})}
    before, commits = plain_lake.state(), plain_lake.commits
    if "error" in case:
        with pytest.raises(QuaysideError) as caught:
            ingest(plain_lake, path, **options)
        assert str(caught.value) == case["error"].replace("{path}", str(path))
        assert plain_lake.state() == before
        if "quarantine" not in case:
            assert plain_lake.commits == commits
    else:
        result = ingest(plain_lake, path, **options)
        assert list(result.rows_kept.values()) == case["kept"]
        assert result.warnings == case.get("warnings", [])
        for table, kept in result.rows_kept.items():
            assert plain_lake.rows(f"SELECT count(*) FROM kycc.{table}") == [(kept,)]
            folded, bad = result.rows_folded.get(table, 0), result.rows_quarantined.get(table, 0)
            assert result.rows_read[table] == kept + bad + folded
    quarantined = plain_lake.rows(
        "SELECT table_name, row_number, reason, detail FROM kycc.quarantine ORDER BY ALL"
    )
    assert [f"{t} {n}: {reason}: {detail}" for t, n, reason, detail in quarantined] == case.get(
        "quarantine", []
    )
    assert plain_lake.rows("SELECT row FROM kycc.quarantine WHERE NOT json_valid(row)") == []
    for sql, expected in case.get("holds", {}).items():
        assert [str(value) for (value,) in plain_lake.rows(sql)] == expected


def test_no_file_is_forgotten() -> None:
    named = {case["file"] for case in CASES if "file" in case}
    assert {path.name for path in (HOSTILE / "files").iterdir()} == named
    assert len({case["name"] for case in CASES}) == len(CASES) >= 25
