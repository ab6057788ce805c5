"""The life of a scorecard version: who may do what, what the database enforces, what happens when two act at once."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from tests.conftest import make_settings

from quayside.foundation.audit import acting_as
from quayside.foundation.errors import (
    CheckFailedError,
    ConflictError,
    NotFoundError,
    QuaysideError,
    UsageError,
)
from quayside.foundation.postgres import connect
from quayside.foundation.settings import Settings
from quayside.kycc.scorecard import Scorecard, load_scorecard
from quayside.kycc.versions import Training, Versions

pytestmark = pytest.mark.integration


@pytest.fixture
def versions(settings: Settings) -> Versions:
    return Versions(settings)


@pytest.fixture
def careful(settings: Settings) -> Versions:
    """The same platform with the second person asked for."""
    assert settings.database_url is not None
    return Versions(
        make_settings(
            QUAYSIDE_HOME=str(settings.home),
            QUAYSIDE_DATABASE_URL=settings.database_url.get_secret_value(),
            QUAYSIDE_KYCC_SECOND_PERSON="true",
        )
    )


def card(version: str, base: int = 0) -> Scorecard:
    """The expert card under another name, its first characteristic worth a little less."""
    v1 = load_scorecard("v1")
    first = v1.characteristics[0]
    lowered = replace(first, points=tuple(max(p - 1 - base, 0) for p in first.points))
    return replace(v1, version=version, characteristics=(lowered, *v1.characteristics[1:]))


def audited(settings: Settings) -> list[tuple[str, str, str]]:
    with connect(settings) as con:
        return con.execute(
            "SELECT actor, action, subject FROM ops.audit WHERE subject_type = 'scorecard' ORDER BY id"
        ).fetchall()


def states(versions: Versions) -> dict[str, str]:
    return {v.version: v.status for v in versions.list()}


def test_the_expert_card_is_active_from_the_start(versions: Versions, settings: Settings) -> None:
    active = versions.get()
    assert (active.version, active.status, active.decides) == ("v1", "active", True)
    assert active.card == versions.card() == versions.card("v1") == load_scorecard("v1")
    assert states(Versions(settings)) == {"v1": "active"}
    assert audited(settings) == [("quayside", "activate", "v1")]


def test_a_draft_becomes_active_and_the_one_before_retires(versions: Versions, settings: Settings) -> None:
    with acting_as("user:ann"):
        draft = versions.add(card("v2"), note="lower")
    assert (draft.status, draft.created_by, draft.decides) == ("draft", "user:ann", False)
    with acting_as("user:bob"):
        active = versions.activate("v2", note="better")
    assert (active.status, active.activated_by, active.predecessor) == ("active", "user:bob", "v1")
    assert states(versions) == {"v2": "active", "v1": "retired"}
    assert versions.card("active") == card("v2")
    assert audited(settings)[1:] == [
        ("user:ann", "create", "v2"),
        ("user:bob", "retire", "v1"),
        ("user:bob", "activate", "v2"),
    ]
    before = versions.list(), audited(settings)
    assert versions.activate("v2") == active
    assert (versions.list(), audited(settings)) == before, "activating what is active changes nothing"


def test_roll_back_returns_step_by_step_to_what_was_active_before(
    versions: Versions, settings: Settings
) -> None:
    for name in ("v2", "v3"):
        versions.add(card(name, base=int(name[1])))
        versions.activate(name)
    assert versions.roll_back(note="wrong").version == "v2"
    assert states(versions) == {"v1": "retired", "v2": "active", "v3": "rolled_back"}
    assert versions.roll_back().version == "v1"
    assert states(versions) == {"v1": "active", "v2": "rolled_back", "v3": "rolled_back"}
    with pytest.raises(UsageError, match="Nothing to roll back to"):
        versions.roll_back()
    assert [row[1:] for row in audited(settings)[-4:]] == [
        ("roll back", "v3"),
        ("activate", "v2"),
        ("roll back", "v2"),
        ("activate", "v1"),
    ]
    assert versions.activate("v3").predecessor == "v1", "what was rolled back may be activated again"
    assert versions.roll_back().version == "v1"


def test_a_rejected_version_is_never_active(versions: Versions, settings: Settings) -> None:
    gates = [
        {"name": "auc", "passed": True},
        {"name": "monotone", "passed": False},
        {"name": "band_share", "passed": False},
    ]
    versions.add(card("v2"), status="rejected", gates=gates)
    with pytest.raises(CheckFailedError, match=r"gates: monotone, band_share\) and cannot be activated"):
        versions.activate("v2")
    versions.add(card("v3"))
    versions.reject("v3", note="a person says no")
    with pytest.raises(CheckFailedError, match="v3 was rejected and cannot"):
        versions.activate("v3")
    with connect(settings) as con, pytest.raises(psycopg.errors.InsufficientPrivilege, match="was rejected"):
        con.execute("UPDATE kycc.scorecard_versions SET status = 'draft' WHERE version = 'v3'")
    assert versions.get().version == "v1"


def test_drafts_are_put_aside_and_nothing_else(versions: Versions) -> None:
    versions.add(card("v2"))
    assert versions.retire("v2").status == "retired"
    for act, name in ((versions.retire, "v2"), (versions.retire, "v1")):
        with pytest.raises(UsageError, match="not a draft"):
            act(name)
    with pytest.raises(UsageError, match="activate another version"):
        versions.reject("v1", note="x")


def test_adding_again_changes_nothing_and_a_name_is_one_card(versions: Versions, settings: Settings) -> None:
    first = versions.add(card("v2"))
    assert versions.add(card("v2")) == first
    assert [row[1:] for row in audited(settings)] == [("activate", "v1"), ("create", "v2")]
    with pytest.raises(ConflictError, match="v2 is another card already"):
        versions.add(card("v2", base=3))
    with pytest.raises(UsageError, match="stands for the active one"):
        versions.add(card("active"))
    with pytest.raises(UsageError, match="a draft or rejected"):
        versions.add(card("v3"), status="active")


@pytest.mark.parametrize("name", ["v9", "", "v1'; --"])
def test_what_is_not_there_is_named(versions: Versions, name: str) -> None:
    for ask in (versions.get, versions.card, versions.activate, versions.retire):
        with pytest.raises(NotFoundError, match="there are v1, and active"):
            ask(name)
    assert versions.find(name) is None


def test_a_file_may_not_pass_for_a_version(versions: Versions, tmp_path: Any) -> None:
    import json

    path = tmp_path / "card.json"
    path.write_text(json.dumps(card("v7").to_dict()))
    assert versions.card(str(path)) == card("v7")
    path.write_text(json.dumps(card("v1").to_dict()))
    with pytest.raises(UsageError, match="calls itself scorecard v1, which is another card"):
        versions.card(str(path))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE kycc.scorecard_versions SET card = '{}' WHERE version = 'v2'",
        "UPDATE kycc.scorecard_versions SET gates = '[1]' WHERE version = 'v2'",
        "DELETE FROM kycc.scorecard_versions WHERE version = 'v2'",
        "UPDATE kycc.scorecard_versions SET status = 'active', activated_at = now() WHERE version = 'v2'",
        "UPDATE kycc.scorecard_versions SET status = 'retired' WHERE version = 'v1'",
        "UPDATE kycc.scorecard_versions SET status = 'shelved' WHERE version = 'v2'",
    ],
)
def test_the_database_itself_keeps_one_active_and_what_was_made(
    versions: Versions, settings: Settings, statement: str
) -> None:
    versions.add(card("v2"))
    with connect(settings) as con:
        con.execute("SET CONSTRAINTS ALL IMMEDIATE")
        with pytest.raises(psycopg.errors.Error):
            con.execute(statement.encode())
        con.rollback()
    assert states(versions) == {"v1": "active", "v2": "draft"}


def both(*acts: Callable[[], Any]) -> list[Any]:
    """What each act, run in a thread of its own, returned or raised."""
    found: list[Any] = [None] * len(acts)

    def run(place: int, act: Callable[[], Any]) -> None:
        try:
            found[place] = act()
        except QuaysideError as error:
            found[place] = error

    threads = [threading.Thread(target=run, args=item) for item in enumerate(acts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.mark.parametrize("second", ["activate", "roll_back"])
def test_of_two_at_once_one_wins_and_the_other_is_told(
    versions: Versions, settings: Settings, second: str
) -> None:
    for name in ("v2", "v3", "v4"):
        versions.add(card(name, base=int(name[1])))
    versions.activate("v2")

    def other() -> Any:
        return versions.activate("v4") if second == "activate" else versions.roll_back()

    with connect(settings) as holder:
        # Both have looked and both want to write: only then may either go on.
        holder.execute("SELECT FROM kycc.scorecard_versions WHERE version = 'v2' FOR UPDATE")
        release = threading.Thread(target=release_when_both_wait, args=(settings, holder))
        release.start()
        found = both(lambda: versions.activate("v3"), other)
        release.join()
    (error,) = [item for item in found if isinstance(item, QuaysideError)]
    (winner,) = [item for item in found if not isinstance(item, QuaysideError)]
    assert isinstance(error, ConflictError)
    assert f"{winner.version} is active now" in str(error)
    assert [name for name, state in states(versions).items() if state == "active"] == [winner.version]
    assert versions.get() == winner


def release_when_both_wait(settings: Settings, holder: psycopg.Connection[Any]) -> None:
    with connect(settings, autocommit=True) as con:
        for _ in range(12_000):
            row = con.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            ).fetchone()
            if row == (2,):
                break
            time.sleep(0.01)
    holder.rollback()


def test_many_at_once_leave_one_active(versions: Versions) -> None:
    names = [f"v{n}" for n in range(2, 8)]
    for name in names:
        versions.add(card(name, base=int(name[1])))
    found = both(*(lambda name=name: versions.activate(name) for name in names))
    assert all(not isinstance(item, QuaysideError) or isinstance(item, ConflictError) for item in found)
    after = states(versions)
    assert list(after.values()).count("active") == 1
    won = [item.version for item in found if not isinstance(item, QuaysideError)]
    assert {name for name, state in after.items() if state == "retired"} == {"v1", *won} - {
        versions.get().version
    }


DIES = """
import os, signal
from quayside.foundation.settings import load_settings
from quayside.kycc.versions import Versions, rows

def die(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)

setattr(rows, {where!r}, die)
Versions(load_settings()).activate("v2")
"""


@pytest.mark.parametrize("where", ["begin", "record"])
def test_killed_in_between_the_old_one_stays_active(
    versions: Versions, settings: Settings, command_environment: dict[str, str], where: str
) -> None:
    versions.add(card("v2"))
    before = versions.list(), audited(settings)
    done = subprocess.run(
        [sys.executable, "-c", DIES.format(where=where)], env=command_environment, capture_output=True
    )
    assert done.returncode == -9, done.stderr
    assert (versions.list(), audited(settings)) == before
    assert versions.activate("v2").status == "active"


def test_the_author_needs_a_second_person(careful: Versions) -> None:
    with acting_as("user:ann"):
        careful.add(card("v2"))
        with pytest.raises(CheckFailedError, match=r"takes a second person, and user:ann proposed it"):
            careful.activate("v2")
    assert careful.get().version == "v1"
    with acting_as("user:bob"):
        assert careful.activate("v2").status == "active"
    with acting_as("user:ann"):
        assert careful.roll_back().version == "v1", "a fault has to end at once"


def test_a_draft_a_run_made_needs_two_persons(careful: Versions, settings: Settings) -> None:
    with acting_as("dagster:run:1"):
        careful.add(card("v2"))
        with pytest.raises(CheckFailedError, match="takes two persons, and dagster:run:1 is none"):
            careful.activate("v2")
    with acting_as("user:ann"):
        asked = careful.activate("v2")
        assert (asked.status, asked.requested_by) == ("draft", "user:ann")
        with pytest.raises(CheckFailedError, match="user:ann proposed it"):
            careful.activate("v2")
    with acting_as("dagster:run:2"), pytest.raises(CheckFailedError, match="is none"):
        careful.activate("v2")
    with acting_as("user:bob"):
        active = careful.activate("v2")
    assert (active.status, active.activated_by, active.requested_by) == ("active", "user:bob", None)
    assert ("user:ann", "request activation", "v2") in audited(settings)


def test_without_the_setting_one_person_suffices(versions: Versions) -> None:
    versions.add(card("v2"))
    assert versions.activate("v2").status == "active"


def test_names_count_up(versions: Versions) -> None:
    assert versions.next_name() == "v2"
    versions.add(card("expert"))
    versions.add(card("v11"))
    assert versions.next_name() == "v12"


def test_trainings_are_kept_once_and_the_last_one_run_is_the_latest(versions: Versions) -> None:
    with pytest.raises(NotFoundError, match="Nothing was trained"):
        versions.training()
    model = Training("model-1", "trained", "", '{"b": 1.0, "a": 2}', {"rows": 3})
    versions.add_training(model)
    versions.add_training(Training("skipped-1", "skipped", "too few", None, {}))
    assert versions.training().reason == "too few"
    versions.add_training(model)
    assert versions.training() == model, "to the byte, and the latest"
    with pytest.raises(NotFoundError, match="'model-9'"):
        versions.training("model-9")


def test_the_line_of_trainings_goes_back_to_the_expert_card(versions: Versions) -> None:
    for n in (1, 2):
        versions.add_training(Training(f"m{n}", "trained", "", "{}", {}))
    versions.add(card("v2"), base_version="v1", model_id="m1", blend_factor=0.5)
    versions.add(card("v3", base=1), base_version="v2", model_id="m2", blend_factor=1.0)
    assert versions.trainings_of("v3") == ["m1", "m2"]
    assert versions.trainings_of("v1") == versions.trainings_of("nothing") == []
    found = versions.of_origin("m2", "v2", 1.0)
    assert found is not None
    assert found.version == "v3"
    assert versions.of_origin("m2", "v2", 0.5) is None
