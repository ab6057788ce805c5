"""Turns: one short transaction at a time, none that waits for ever."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from quayside.foundation.lake import turns
from quayside.foundation.processes import private_folder, try_lock
from quayside.foundation.settings import Settings

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def folder(settings: Settings) -> None:
    private_folder(settings.home / "duckdb")


def test_one_at_a_time(settings: Settings):
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        with turns.turn(settings):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.01)
            inside.remove(number)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(12)))
    assert most == [1] * 12


def test_whoever_has_it_for_long_loses_it(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(turns, "LONGEST_SECONDS", 0.05)
    done = threading.Event()

    def long_one() -> None:
        with turns.turn(settings):
            assert done.wait(60)

    with ThreadPoolExecutor(1) as pool:
        long = pool.submit(long_one)
        with turns.turn(settings):  # which begins while the long one goes on
            assert not long.done()
            done.set()
        long.result()
    with turns.turn(settings):
        pass  # nothing of the lost turn is left


def test_of_who_hangs_nobody_waits_for_ever(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(turns, "LONGEST_SECONDS", 600.0)
    monkeypatch.setattr(turns, "PATIENCE_SECONDS", 0.05)
    with turns.turn(settings), turns.turn(settings):
        pass


def test_without_its_lock_a_transaction_goes_on_and_it_is_said(
    settings: Settings, caplog: pytest.LogCaptureFixture
):
    (settings.home / "duckdb" / "turn.lock").mkdir()
    with turns.turn(settings):
        pass
    assert "do not take turns" in caplog.text


def test_an_error_gives_it_back(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(turns, "LONGEST_SECONDS", 600.0)
    with pytest.raises(ValueError, match="rubbish"), turns.turn(settings):
        raise ValueError("rubbish")
    handle = try_lock(settings.home / "duckdb" / "turn.lock")
    assert handle is not None
    os.close(handle)
