"""Small tables of a batch in one commit of the lake; what is wrong with one is not the others'."""

from __future__ import annotations

from typing import Any

import pytest
from tests.dataloader.dagster.conftest import Control

from quayside.dataloader import together
from quayside.dataloader.worker import Outcome, Worker
from quayside.foundation.lake import Lake
from quayside.foundation.postgres import connect

pytestmark = pytest.mark.integration


class Silent:
    def say(self, text: str) -> None:
        del text

    def ended(self, outcome: Outcome) -> None:
        del outcome


def begun(control: Control) -> list[Any]:
    """Everything that is due, claimed and In Progress."""
    return [
        control.client.for_attempt(r.config_id, r.attempt).begin("http://localhost/runs/x")
        for r in control.client.claim(100)
    ]


def load(control: Control, requests: list[Any]) -> list[str]:
    """How each ended, in the order of the requests."""
    outcomes = Worker(control.settings, requests, Silent(), threads=1).run()
    print(*(outcome.message for outcome in outcomes), sep="\n")  # for whoever reads a failure
    return [outcome.ending for outcome in outcomes]


def contents(control: Control, *names: str) -> list[Any]:
    with Lake(control.settings).connect(read_only=True) as con:
        return [
            con.execute(f'SELECT count(*), max(id) FROM lake."bronze.trade"."{name}"').fetchone()
            for name in names
        ]


def commits(control: Control, *names: str) -> set[int]:
    """Snapshots in which the newest files of these tables came."""
    return {
        row[0]
        for row in control.execute(
            "SELECT max(f.begin_snapshot) FROM lake.ducklake_data_file f JOIN lake.ducklake_table t USING (table_id) "
            "WHERE t.end_snapshot IS NULL AND t.table_name = ANY(%s) GROUP BY t.table_id",
            list(names),
        )
    }


def test_one_commit_for_all(control: Control):
    names = ("group_full", "group_merged", "group_appended")
    control.source()
    for name in names:
        control.source_table(name)
    cursor = {"incremental_column": "updated_at", "incremental_type": "timestamp", "primary_key_cols": "id"}
    control.table(names[0])
    control.table(names[1], load_strategy="incremental", **cursor)
    control.table(names[2], load_strategy="append_only", **cursor)
    assert load(control, begun(control)) == ["Succeeded"] * 3
    assert contents(control, *names) == [(10, 10)] * 3
    assert len(commits(control, *names)) == 1

    for name in names:
        control.execute(f"INSERT INTO public.{name} VALUES (11, 'new', '2026-02-01Z')")
    control.execute("UPDATE control.table_control SET next_load_date_time = now()")
    before = commits(control, *names)
    assert load(control, begun(control)) == ["Succeeded"] * 3
    assert contents(control, *names) == [(11, 11)] * 3
    after = commits(control, *names)
    assert len(after) == 1
    assert after != before
    figures = control.execute(
        "SELECT rows_written, bytes_written > 0, rows_total FROM control.historical_metadata WHERE attempt = 2 "
        "ORDER BY config_id"
    )
    assert figures == [(11, True, 11), (1, True, 11), (1, True, 11)]
    assert control.open_history() == 0


def test_a_bad_table_takes_only_itself_out(control: Control):
    names = ("group_good", "group_well")
    control.source()
    for name in names:
        control.source_table(name)
    control.table(names[0])
    control.table("group_missing")
    control.table(names[1])
    assert load(control, begun(control)) == ["Succeeded", "Failed", "Succeeded"]
    assert contents(control, *names) == [(10, 10)] * 2
    assert len(commits(control, *names)) == 1


def test_an_attempt_that_was_given_up_is_not_in_the_commit(control: Control):
    control.source()
    for name in ("group_kept", "group_given_up"):
        control.source_table(name)
        control.table(name)
    requests = begun(control)
    control.client.give_up(requests[1].config_id, requests[1].attempt, "given up")
    assert load(control, requests) == ["Succeeded", "Fenced"]
    assert contents(control, "group_kept") == [(10, 10)]
    assert not commits(control, "group_given_up")


def test_successes_are_written_although_the_control_database_was_lost_after_the_commit(
    control: Control, monkeypatch: pytest.MonkeyPatch
):
    names = ("group_lost", "group_lost_too")
    control.source()
    for name in names:
        control.source_table(name)
        control.table(name)
    commit = together._Group._commit

    def losing(group: Any) -> None:
        commit(group)
        with connect(control.settings) as con:
            con.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
                "AND application_name = 'quayside dataloader control' AND state = 'idle in transaction'"
            )

    monkeypatch.setattr(together._Group, "_commit", losing)
    assert load(control, begun(control)) == ["Succeeded", "Succeeded"]
    assert len(commits(control, *names)) == 1
    assert control.open_history() == 0
