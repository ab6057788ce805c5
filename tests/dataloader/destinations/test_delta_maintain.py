"""Upkeep of Delta tables: what dead writers left goes, what anybody may still need stays."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest
from deltalake import DeltaTable
from tests.conftest import make_settings
from tests.dataloader.destinations.test_delta import OPEN, content, request_of, seen_by_others, state, values

from quayside.dataloader.destinations.delta import SIBLINGS, DeltaDestination
from quayside.dataloader.destinations.delta_maintain import maintain, tables
from quayside.foundation.settings import Settings

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"threads": 2}) as connection:
        yield connection


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    return make_settings(QUAYSIDE_HOME=str(tmp_path))


def _aged(*files: Path) -> None:
    for file in files:
        os.utime(file, (0, 0))


def test_small_files_are_merged_and_the_state_stays(home: Settings, con: duckdb.DuckDBPyConnection) -> None:
    table = DeltaDestination(home, con, request_of(table="größe 1"))
    for number in range(4):
        table.append(values((number, "x")), state(str(number)), OPEN)
    assert tables(home) == ["delta/s/größe~201"]
    before = (content(table), table.state())
    assert maintain(home).merged == {"delta/s/größe~201": 4}
    assert (content(table), table.state()) == before
    assert len(DeltaTable(table.url).file_uris()) == 1
    assert table.merge(values((1, "y")), ["id"], state(), OPEN).updated == 1


def test_only_what_nobody_needs_is_removed(home: Settings, con: duckdb.DuckDBPyConnection) -> None:
    table = DeltaDestination(home, con, request_of())
    table.overwrite(values((1, "a")), state(), OPEN)
    shadow = table.sibling("__backfill")
    shadow.append(values((2, "b")), state(), OPEN)
    folder, below = Path(table.url), Path(shadow.url)
    left, left_by_shadow, writing = (
        folder / "part-l.parquet",
        below / "part-l.parquet",
        folder / "part-w.parquet",
    )
    for file in (left, left_by_shadow, writing):
        file.write_bytes(b"half a file")
    _aged(left, left_by_shadow, *below.glob("part-*"))
    removed = ["_quayside/__backfill/part-l.parquet", "part-l.parquet"]
    assert maintain(home, dry_run=True).removed == {"delta/s/t": removed}
    assert maintain(home).removed == {"delta/s/t": removed}
    assert (left.exists(), left_by_shadow.exists(), writing.exists()) == (False, False, True)
    assert (content(table), content(shadow)) == ([(1, "a")], [(2, "b")])


def test_files_taken_over_from_a_shadow_stay_while_they_are_needed(
    home: Settings, con: duckdb.DuckDBPyConnection
) -> None:
    table = DeltaDestination(home, con, request_of())
    shadow = table.sibling("__backfill")
    shadow.append(values((1, "a"), (2, "b")), state(), OPEN)
    table.replace_with(shadow, state(), OPEN)
    (taken,) = Path(table.url).glob(f"{SIBLINGS}/*/part-*")
    _aged(taken)
    maintain(home)
    assert content(table) == seen_by_others(table) == [(1, "a"), (2, "b")]
    table.overwrite(values((3, "c")), state(), OPEN)
    maintain(home)
    assert taken.exists()  # a reader may have begun with it
    maintain(home, keep=timedelta(0))
    assert not taken.exists()
    assert content(table) == seen_by_others(table) == [(3, "c")]


def test_the_command_says_what_it_did(
    home: Settings, con: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from quayside.cli.tables import app

    table = DeltaDestination(home, con, request_of())
    for number in range(2):
        table.append(values((number, "x")), state(), OPEN)
    (Path(table.url) / "part-left.parquet").write_bytes(b"half a file")
    _aged(Path(table.url) / "part-left.parquet")
    monkeypatch.setenv("QUAYSIDE_HOME", str(home.home))
    would = CliRunner().invoke(app, ["maintain", "--dry-run"])
    assert would.output == "delta/s/t: 0 small files merged, 1 would be removed\n"
    assert CliRunner().invoke(app, ["maintain"]).output == "delta/s/t: 2 small files merged, 1 removed\n"
    assert content(table) == [(0, "x"), (1, "x")]
