"""What an outcome file may say, and what is kept of it; several files of one batch."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.kycc.ingest.conftest import GOOD, PlainLake

from quayside.foundation.errors import InputError, NotFoundError, QuaysideError, UsageError
from quayside.kycc.ingest import ingest
from quayside.kycc.outcomes import load_outcomes

pytestmark = pytest.mark.unit

CASES: list[dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parent / "cases.yaml").read_text(encoding="utf-8")
)
FACTS = "SELECT party_id, event, event_date, amount, will_default, observed_through FROM kycc.outcomes ORDER BY ALL"


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[PlainLake]:
    """A plain lake that holds batch B1: parties P1, P2 and P3, as of 2026-01-31."""
    plain = PlainLake(tmp_path)
    ingest(plain, GOOD)
    yield plain
    plain.close()


def write(folder: Path, rows: list[dict[str, Any]], name: str = "outcomes.json", **head: Any) -> Path:
    document = {"batch_id": "B1", "observed_through": "2026-07-30T00:00:00Z", **head, "outcomes": rows}
    path = folder / name
    path.write_text(json.dumps({key: value for key, value in document.items() if value is not None}))
    return path


def event(party: str, day: str, what: str = "write_off") -> dict[str, Any]:
    return {"party_id": party, "event": what, "event_date": day}


def facts(lake: PlainLake) -> list[str]:
    def text(value: object) -> str:
        if isinstance(value, datetime):
            return value.astimezone(UTC).replace(tzinfo=None).isoformat()
        return "-" if value is None else str(value)

    return sorted(" ".join(map(text, row)) for row in lake.rows(FACTS))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_outcome_file(case: dict[str, Any], lake: PlainLake, tmp_path: Path) -> None:
    if "text" in case:
        path = tmp_path / "outcomes.json"
        path.write_text(case["text"])
    else:
        path = write(tmp_path, case["rows"], **case.get("head", {}))
    options = {"max_reject_ratio": 1, **case.get("options", {})}
    if "error" in case:
        with pytest.raises(QuaysideError) as caught:
            load_outcomes(lake, path, **options)
        assert str(caught.value) == case["error"]
        assert lake.rows("FROM kycc.outcomes") == lake.rows("FROM kycc.outcome_files") == []
    else:
        result = load_outcomes(lake, path, **options)
        assert facts(lake) == sorted(case["facts"])
        assert result.added == len(case["facts"])
        assert result.rows_read == result.rows_kept + result.rows_quarantined + result.rows_folded
        if len(case["rows"]) < 12:
            assert result.warnings == case.get("warnings", [])
        assert load_outcomes(lake, path, **options).already_loaded
        assert facts(lake) == sorted(case["facts"])
    quarantined = lake.rows(
        "SELECT row_number, reason, string_agg(detail, '; ' ORDER BY detail) FROM kycc.quarantine "
        "WHERE table_name = 'outcomes' GROUP BY ALL ORDER BY ALL"
    )
    assert [f"{n}: {reason}: {detail}" for n, reason, detail in quarantined] == case.get("quarantine", [])
    assert lake.rows("SELECT row FROM kycc.quarantine WHERE NOT json_valid(row)") == []


def test_a_later_file_extends_and_says_so(lake: PlainLake, tmp_path: Path) -> None:
    early = write(tmp_path, [event("P1", "2026-02-10")], "early.json", observed_through="2026-03-01")
    late = write(
        tmp_path,
        [event("P1", "2026-02-10"), event("P2", "2026-05-01")],
        "late.json",
        observed_through="2026-08-01",
    )
    assert not load_outcomes(lake, early).extends
    result = load_outcomes(lake, late)
    assert (result.extends, result.added, result.missing) == (True, 1, 0)
    assert result.observed_before == datetime(2026, 3, 1, 23, 59, 59, 999999, tzinfo=UTC)
    assert result.warnings == [
        "Batch B1 is now observed through 2026-08-01, before through 2026-03-01; its labels follow with the next "
        "`quayside kycc labels`."
    ]


@pytest.mark.slow
def test_the_order_of_files_does_not_matter(lake: PlainLake, tmp_path: Path) -> None:
    files = [
        write(tmp_path, [event("P1", "2026-02-10")], "a.json", observed_through="2026-03-01"),
        write(tmp_path, [event("P2", "2026-05-01"), event("P1", "2026-02-10")], "b.json"),
        write(tmp_path, [{"party_id": "P3", "will_default": 1}], "c.json", observed_through="2026-04-01"),
    ]
    seen = set()
    for order in itertools.permutations(files):
        for path in order:
            load_outcomes(lake, path)
        loaded = lake.rows("SELECT covers, observed_through FROM kycc.outcome_files ORDER BY ALL")
        seen.add((*facts(lake), *loaded))
        with lake.connect() as con:
            con.execute("DELETE FROM kycc.outcomes; DELETE FROM kycc.outcome_files")
    assert len(seen) == 1


def test_events_a_later_file_lacks_stay_until_replaced(lake: PlainLake, tmp_path: Path) -> None:
    load_outcomes(lake, write(tmp_path, [event("P1", "2026-02-10")], "a.json", observed_through="2026-03-01"))
    corrected = write(tmp_path, [event("P2", "2026-02-11")], "b.json", observed_through="2026-03-02")
    kept = load_outcomes(lake, corrected)
    assert (kept.added, kept.missing, kept.removed) == (1, 1, 0)
    assert "The lake keeps 1 events of batch B1 that this file does not have." in kept.warnings
    replaced = load_outcomes(lake, corrected, replace=True)
    assert (replaced.already_loaded, replaced.removed) == (False, 1)
    assert facts(lake) == ["P2 write_off 2026-02-11T00:00:00 - - -"]
    commits = lake.commits
    assert load_outcomes(lake, corrected, replace=True).already_loaded
    assert lake.commits == commits


def test_nothing_is_written_when_a_row_of_the_transaction_fails(
    lake: PlainLake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    path = write(tmp_path, [event("P1", "2026-02-10"), event("P9", "2026-02-10")])
    monkeypatch.setattr("quayside.kycc.ingest.load.record_quarantine", dies)
    with pytest.raises(KeyboardInterrupt):
        load_outcomes(lake, path, max_reject_ratio=1)
    assert lake.rows("FROM kycc.outcomes") == lake.rows("FROM kycc.outcome_files") == []
    monkeypatch.undo()
    assert load_outcomes(lake, path, max_reject_ratio=1).added == 1


def test_a_lake_table_is_read_as_well(lake: PlainLake) -> None:
    with lake.connect() as con:
        con.execute('CREATE SCHEMA lake."bronze.trade"')
        con.execute(
            'CREATE TABLE lake."bronze.trade".outcomes AS SELECT * FROM (VALUES '
            "('B1', 'P1', 'write_off', TIMESTAMP '2026-03-01 10:00:00', 5.5::DECIMAL(10, 2)), "
            "('B2', 'P1', 'write_off', TIMESTAMP '2026-03-01 10:00:00', 5.5)) t(batch_id, party_id, event, event_date, amount)"
        )
    with pytest.raises(UsageError, match="batch_id"):
        load_outcomes(lake, "lake:bronze.trade")
    with pytest.raises(InputError, match="has no observed_through"):
        load_outcomes(lake, "lake:bronze.trade", batch_id="B1")
    through = datetime(2026, 9, 1, tzinfo=UTC)
    result = load_outcomes(lake, "lake:bronze.trade", batch_id="B1", observed_through=through)
    assert facts(lake) == ["P1 write_off 2026-03-01T10:00:00 5.50 - -"]
    assert result.warnings == ["Outcomes: times without a zone were taken as UTC: event_date (1 row)."]
    assert load_outcomes(lake, "lake:bronze.trade", batch_id="B1", observed_through=through).already_loaded
    with lake.connect() as con:
        con.execute("CREATE SCHEMA lake.elsewhere")
    with pytest.raises(InputError, match="does not exist"):
        load_outcomes(lake, "lake:elsewhere", batch_id="B1")
    with pytest.raises(NotFoundError, match="nowhere"):
        load_outcomes(lake, "lake:nowhere", batch_id="B1")


def test_a_missing_file_is_one_sentence(lake: PlainLake, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="does not exist"):
        load_outcomes(lake, tmp_path / "none.json")
    with pytest.raises(InputError, match="a folder"):
        load_outcomes(lake, tmp_path)
