"""A worker whose threads cannot work ends, and says so: a heartbeat without a load would keep its row for ever."""

from __future__ import annotations

import threading
from typing import Any

import duckdb
import pytest
from tests.dataloader.dagster.conftest import Control

from quayside.dataloader.request import LoadRequest
from quayside.dataloader.worker import Outcome, Worker
from quayside.foundation.errors import QuaysideError
from quayside.foundation.lake import Lake
from quayside.foundation.settings import load_settings

pytestmark = pytest.mark.integration


class Heard:
    """A listener."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def say(self, text: str) -> None:
        pass

    def ended(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


def worker_of(control: Control, *names: str, **more: Any) -> Worker:
    """A worker with tables that are In Progress."""
    control.source()
    for name in names:
        control.table(name)
    requests = [
        control.client.for_attempt(r.config_id, r.attempt).begin("http://localhost/runs/1")
        for r in control.client.claim(10)
    ]
    return Worker(load_settings(), requests, Heard(), **more)


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


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_load_that_hangs_is_left_behind_and_the_others_go_on(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    # case 31 - blocked in C, while the heartbeat beats
    from quayside.dataloader import load

    hung, load_table = threading.Event(), load.load_table

    def hangs(settings: Any, request: LoadRequest, **more: Any) -> Any:
        if request.destination_table_name == "hangs":
            hung.wait()
            raise SystemExit  # its thread alone ends
        return load_table(settings, request, **more)

    monkeypatch.setattr(load, "load_table", hangs)
    monkeypatch.setenv("DATALOADER_STALL_SECONDS", "1")
    control.source_table("passes")
    worker = worker_of(control, "hangs", "passes", grace_seconds=0.1, threads=1)
    outcomes = worker.run()
    hung.set()
    assert [o.ending for o in outcomes] == ["Cancelled", "Succeeded"]
    assert outcomes[0].message == (
        "Cancelled - it hangs: no row came and nothing was done for 1 s; its source did not let go"
    )
    assert [control.status(o.config_id) for o in outcomes] == ["Failed", "Succeeded"]
    assert control.open_history() == 0
