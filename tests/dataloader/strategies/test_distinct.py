"""Keys counted from files of their hashes: one that repeats is found wherever it falls, and nothing stays behind."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import duckdb
import pytest

from quayside.dataloader.strategies import distinct


@pytest.mark.unit
def test_one_key_that_repeats_is_found_in_whatever_file_and_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # 101 rows: four files, counted in six passes each
    monkeypatch.setattr(distinct, "KEYS_AT_ONCE", 5)
    monkeypatch.setattr(distinct, "MOST_FILES", 4)
    with closing(duckdb.connect(config={"temp_directory": str(tmp_path / "spilled [h=1]*")})) as con:
        con.execute("CREATE TABLE keys AS SELECT range AS a, 'x' || range AS b FROM range(101)")
        con.execute("BEGIN")  # rows of the open transaction count
        assert distinct.duplicates(con, "keys", "a, b") == 0
        for again in range(0, 101, 8):
            con.execute("INSERT INTO keys SELECT * FROM keys WHERE a = ?", [again])
            assert distinct.duplicates(con, "keys", "a, b") == 1
            con.execute("ROLLBACK")
            con.execute("BEGIN")
        assert con.execute("SELECT current_setting('enable_external_file_cache')").fetchone() == (True,)
        assert not list(tmp_path.glob("*keys*"))
