"""A worker whose threads cannot work ends, and says so: a heartbeat without a load would keep its row for ever."""

from __future__ import annotations

from typing import Any

import duckdb
import pytest
from tests.dataloader.dagster.conftest import Control

from quayside.dataloader.worker import Outcome, Worker
from quayside.foundation.errors import QuaysideError
from quayside.foundation.lake import Lake

pytestmark = pytest.mark.integration


class Heard:
    """A listener."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def say(self, text: str) -> None:
        pass

    def ended(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


def worker_of(control: Control, *names: str) -> Worker:
    """A worker with tables that are In Progress."""
    control.source()
    for name in names:
        control.table(name)
    requests = [
        control.client.for_attempt(r.config_id, r.attempt).begin("http://localhost/runs/1")
        for r in control.client.claim(10)
    ]
    return Worker(control.settings, requests, Heard())


def test_a_catalog_that_is_lost_while_it_is_opened_fails_every_table(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    # case 1 - as a killed server answers in the middle of opening the lake
    def lost(*_: Any, **__: Any) -> Any:
        raise duckdb.Error("Failed to get partition information from DuckLake: server terminated abnormally")

    monkeypatch.setattr(Lake, "connect", lost)
    outcomes = worker_of(control, "a", "b").run()
    assert [(o.ending, "terminated abnormally" in o.message) for o in outcomes] == [("Failed", True)] * 2
    assert {control.status(o.config_id) for o in outcomes} == {"Failed"}
    assert control.open_history() == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_dies_is_not_waited_for(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    # case 1 - whatever it dies of
    def dies(*_: Any, **__: Any) -> Any:
        raise SystemError("a bug")

    worker = worker_of(control, "a")
    monkeypatch.setattr(worker, "_database", dies)
    with pytest.raises(QuaysideError, match="died"):
        worker.run()
