"""Files that arrive: what is new and complete, whatever happens to the files meanwhile."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from quayside.foundation.errors import InputError, NotFoundError
from quayside.kycc.dagster import incoming
from quayside.kycc.dagster.incoming import Cursor, Look, look

pytestmark = pytest.mark.unit

SETTLED = incoming.SETTLE_SECONDS + 1
GIVEN_UP = incoming.PATIENCE_SECONDS + 1


def put(folder: Path, name: str, content: str = '{"parties": []}') -> Path:
    path = folder / name
    path.write_text(content)
    return path


def after(seconds: float) -> int:
    """A moment so long after now; change times cannot be set, so the tests move the clock."""
    return time.time_ns() + int(seconds * 1e9)


def names(found: Look) -> list[str]:
    return [arrival.file.name for arrival in found.arrivals]


def test_a_file_is_taken_once_it_has_settled_and_once_only(tmp_path: Path):
    put(tmp_path, "A.json")
    early = look(tmp_path, Cursor(), after(0))
    assert (names(early), early.files, early.left) == ([], 1, 1)
    found = look(tmp_path, early.cursor, after(SETTLED))
    assert names(found) == ["A.json"]
    assert found.arrivals[0].file.batch_id == "A"
    again = look(tmp_path, Cursor.parse(found.cursor.to_json()), after(SETTLED))
    assert (names(again), again.files, again.left) == ([], 1, 0)


def test_a_copy_that_keeps_its_old_time_has_to_settle_too(tmp_path: Path):
    os.utime(put(tmp_path, "A.json"), (0, 0))
    assert names(look(tmp_path, Cursor(), after(0))) == []


def test_a_file_that_is_half_written_is_waited_for_and_the_others_are_not_held_up(tmp_path: Path):
    half = put(tmp_path, "HALF.json", '{"parties": [')
    put(tmp_path, "WHOLE.json", "[]\n\n")
    found = look(tmp_path, Cursor(), after(SETTLED))
    assert (names(found), list(found.cursor.waiting), found.left) == (["WHOLE.json"], ["HALF.json"], 1)
    still = look(tmp_path, found.cursor, after(SETTLED + 60))
    assert (names(still), list(still.cursor.waiting)) == ([], ["HALF.json"])
    half.write_text('{"parties": []}')
    whole = look(tmp_path, still.cursor, after(SETTLED))
    assert (names(whole), whole.cursor.waiting) == (["HALF.json"], {})


def test_a_file_that_never_ends_is_handed_on_after_all(tmp_path: Path):
    put(tmp_path, "HALF.json", '{"parties": [')
    waiting = look(tmp_path, Cursor(), after(SETTLED))
    given_up = look(tmp_path, waiting.cursor, after(GIVEN_UP))
    assert (names(given_up), given_up.cursor.waiting) == (["HALF.json"], {})
    assert names(look(tmp_path, given_up.cursor, after(GIVEN_UP + 60))) == []


def test_a_corrected_file_is_another_and_a_touched_one_has_the_same_digest(tmp_path: Path):
    path = put(tmp_path, "A.json")
    first = look(tmp_path, Cursor(), after(SETTLED))
    os.utime(path)
    touched = look(tmp_path, first.cursor, after(SETTLED))
    put(tmp_path, "A.json", '{"parties": [1]}')
    corrected = look(tmp_path, touched.cursor, after(SETTLED))
    digests = [found.arrivals[0].digest for found in (first, touched, corrected)]
    assert digests[0] == digests[1] != digests[2]


def test_a_file_that_is_renamed_is_new_under_its_new_name(tmp_path: Path):
    path = put(tmp_path, "A.json")
    first = look(tmp_path, Cursor(), after(SETTLED))
    path.rename(tmp_path / "B.json")
    assert names(look(tmp_path, first.cursor, after(SETTLED))) == ["B.json"]
    put(tmp_path, "C.json.part").rename(tmp_path / "C.json")
    assert names(look(tmp_path, Cursor(), after(SETTLED))) == ["B.json", "C.json"]


def test_a_file_that_waits_and_is_replaced_is_judged_anew(tmp_path: Path):
    put(tmp_path, "A.json", "{")
    waiting = look(tmp_path, Cursor(), after(SETTLED))
    put(tmp_path, "new").replace(tmp_path / "A.json")
    replaced = look(tmp_path, waiting.cursor, after(SETTLED))
    assert (names(replaced), replaced.cursor.waiting) == (["A.json"], {})


@pytest.mark.parametrize("what", ["vanishes", "replaced", "shrinks"])
def test_what_changes_while_it_is_read_is_left_for_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
):
    from quayside.kycc.ingest import source

    path = put(tmp_path, "A.json")
    put(tmp_path, "B.json")
    whole = source.digest

    def meddling(file: object) -> str:
        if path.exists() and os.fstat(file.fileno()).st_ino == path.stat().st_ino:  # pyright: ignore[reportAttributeAccessIssue]
            if what == "vanishes":
                path.unlink()
            elif what == "replaced":
                put(tmp_path, "other", "[]").replace(path)
            else:
                path.write_text("")
        return whole(file)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(source, "digest", meddling)
    found = look(tmp_path, Cursor(), after(SETTLED))
    assert names(found) == ["B.json"]
    monkeypatch.undo()
    following = look(tmp_path, found.cursor, after(SETTLED))
    assert names(following) == (["A.json"] if what == "replaced" else [])


def test_a_file_that_is_gone_before_it_is_opened_is_no_arrival(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    gone = put(tmp_path, "A.json")
    put(tmp_path, "B.json")
    listing = incoming.listing

    def late(folder: Path) -> list[incoming.File]:
        files = list(listing(folder))
        gone.unlink()
        return files

    monkeypatch.setattr(incoming, "listing", late)
    assert names(look(tmp_path, Cursor(), after(SETTLED))) == ["B.json"]


def test_only_complete_json_files_count(tmp_path: Path):
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "nowhere.json").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "fifo.json")
    for name in (".hidden.json", "notes.txt", "A.json.tmp"):
        put(tmp_path, name)
    put(tmp_path, "EMPTY.json", "")
    found = look(tmp_path, Cursor(), after(SETTLED))
    assert (names(found), found.files, list(found.cursor.waiting)) == ([], 1, ["EMPTY.json"])


def test_a_folder_that_vanished_is_said(tmp_path: Path):
    with pytest.raises(NotFoundError, match="does not exist: make it"):
        look(tmp_path / "gone", Cursor(), after(0))
    with pytest.raises(InputError, match="cannot be listed"):
        look(put(tmp_path, "file"), Cursor(), after(0))


@pytest.mark.slow
def test_ten_thousand_files_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(incoming, "MAX_ARRIVALS", 2500)
    monkeypatch.setattr(incoming, "BUDGET_SECONDS", 600.0)
    for n in range(10_000):
        (tmp_path / f"B{n:05}.json").write_bytes(b"[]")
    cursor, seen, sizes = Cursor(), [], []
    for _ in range(4):
        found = look(tmp_path, cursor, after(SETTLED))
        cursor = Cursor.parse(found.cursor.to_json())
        seen += names(found)
        sizes.append((len(found.arrivals), found.left))
    assert sizes == [(2500, 7500), (2500, 5000), (2500, 2500), (2500, 0)]
    assert len(set(seen)) == 10_000
    assert len(cursor.to_json()) < 100


def test_one_look_ends_in_time_and_the_next_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in "ABC":
        put(tmp_path, f"{name}.json")
    monkeypatch.setattr(incoming, "BUDGET_SECONDS", -1.0)
    none = look(tmp_path, Cursor(), after(SETTLED))
    assert (names(none), none.cursor) == ([], Cursor())
    monkeypatch.undo()
    assert names(look(tmp_path, none.cursor, after(SETTLED))) == ["A.json", "B.json", "C.json"]


def test_what_is_waited_for_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(incoming, "MAX_WAITING", 3)
    for n in range(5):
        put(tmp_path, f"{n}.json", "{")
    found = look(tmp_path, Cursor(), after(SETTLED))
    assert len(found.cursor.waiting) == 3
    later = look(tmp_path, found.cursor, after(GIVEN_UP))
    assert len(later.arrivals) == 5


def test_a_clock_that_was_set_back_loses_no_file(tmp_path: Path):
    put(tmp_path, "A.json")
    ahead = Cursor((after(10_000), "Z.json"))
    assert names(look(tmp_path, ahead, after(SETTLED))) == ["A.json"]


@pytest.mark.parametrize(
    "text", [None, "", "rubbish", "[]", '{"after": 1}', '{"after": ["x", 1], "waiting": {}}']
)
def test_a_cursor_that_is_none_is_the_beginning(text: str | None):
    assert Cursor.parse(text) == Cursor()


def test_outcomes_come_with_their_batch_or_after_its_run(tmp_path: Path):
    put(tmp_path, "A_outcomes.json")
    put(tmp_path, "B_outcomes.json")
    put(tmp_path, "A.json")
    put(tmp_path, "_outcomes.json")
    found = look(tmp_path, Cursor(), after(SETTLED))
    first, whole, odd = found.arrivals
    assert (first.file.name, first.file.has_outcomes, first.file.batch_id) == ("B_outcomes.json", True, "B")
    assert whole.outcomes is not None
    assert [whole.file.name, whole.outcomes.file.name] == ["A.json", "A_outcomes.json"]
    assert whole.key == f"{whole.digest}+{whole.outcomes.digest}"
    assert (odd.file.batch_id, odd.file.has_outcomes) == ("_outcomes", False)
    assert (found.left, names(look(tmp_path, found.cursor, after(SETTLED)))) == (0, [])

    put(tmp_path, "A_outcomes.json", "[1]")
    running = {"A"}
    still = look(tmp_path, found.cursor, after(SETTLED), running.__contains__)
    assert (names(still), list(still.cursor.waiting), still.left) == ([], ["A_outcomes.json"], 1)
    running.clear()
    (alone,) = look(tmp_path, still.cursor, after(SETTLED), running.__contains__).arrivals
    assert (alone.file.name, alone.outcomes) == ("A_outcomes.json", None)


def test_outcomes_wait_for_a_batch_that_is_half_written(tmp_path: Path):
    put(tmp_path, "A_outcomes.json")
    half = put(tmp_path, "A.json", "{")
    waiting = look(tmp_path, Cursor(), after(SETTLED))
    assert (names(waiting), list(waiting.cursor.waiting)) == ([], ["A.json", "A_outcomes.json"])
    half.write_text("{}")
    (whole,) = look(tmp_path, waiting.cursor, after(SETTLED)).arrivals
    assert whole.outcomes is not None


def test_more_outcomes_than_can_be_waited_for_hold_up_no_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(incoming, "MAX_WAITING", 2)
    monkeypatch.setattr(incoming, "MAX_ARRIVALS", 3)
    for suffix in ("_outcomes", ""):
        for n in range(7):
            put(tmp_path, f"B{n}{suffix}.json")
    cursor, seen = Cursor(), []
    for _ in range(10):
        found = look(tmp_path, cursor, after(SETTLED))
        cursor, seen = found.cursor, seen + names(found)
    assert {f"B{n}.json" for n in range(7)} <= set(seen)
    assert found.left == 0


def test_a_file_that_may_not_be_read_gets_a_run_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from quayside.kycc.ingest import source

    def refused(path: Path) -> None:
        raise source.unreadable(path, PermissionError(13, "Permission denied"))

    put(tmp_path, "A.json")
    monkeypatch.setattr(source, "open_file", refused)
    found = look(tmp_path, Cursor(), after(SETTLED))
    assert found.arrivals[0].digest.startswith("unreadable-")


def test_of_a_huge_file_its_size_and_time_stand_for_the_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(incoming, "MAX_HASHED_BYTES", 4)
    path = put(tmp_path, "A.json")
    (arrival,) = look(tmp_path, Cursor(), after(SETTLED)).arrivals
    assert arrival.digest == f"15-{path.stat().st_ctime_ns}"
