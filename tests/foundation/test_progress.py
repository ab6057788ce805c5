"""Progress in a terminal and in a log."""

from __future__ import annotations

import io
import logging
from contextlib import redirect_stderr

import pytest

from quayside.foundation import progress as module
from quayside.foundation.progress import progress, step

pytestmark = pytest.mark.unit


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, module.__name__)
    return caplog


def test_a_log_gets_few_lines_however_often_one_advances(lines: pytest.LogCaptureFixture):
    with progress("Ingest", total=10_000, unit="rows") as bar:
        for _ in range(10_000):
            bar.advance()
    assert len(lines.messages) == 1
    assert lines.messages[0].startswith("Ingest: 10,000 rows, ")


def test_a_long_bar_reports_in_between(lines: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "LOG_EVERY_SECONDS", 0.0)
    with progress("Ingest", total=4) as bar:
        bar.advance(1)
    assert lines.messages[0] == "Ingest: 1 of 4 rows (25%)"
    assert lines.messages[1].startswith("Ingest: 1 of 4 rows, ")


def test_a_step_is_timed_and_carries_its_note(lines: pytest.LogCaptureFixture):
    with step("Score") as timed:
        timed.note = "100 parties"
    assert lines.messages[0] == "Score …"
    assert lines.messages[1].startswith("Score: 100 parties, 0.0")
    seconds = timed.seconds
    assert timed.seconds == seconds  # it has stopped


def test_what_fails_says_so_and_raises(lines: pytest.LogCaptureFixture):
    with pytest.raises(ZeroDivisionError), step("Score"):
        _ = 1 / 0
    assert lines.messages[-1].startswith("Score: stopped after ")


def test_nested_bars_share_the_terminal_and_leave_one_line_each(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    with redirect_stderr(terminal), step("Outer [x]"), progress("Inner", total=2, unit="parties") as bar:
        bar.advance(2)
    text = terminal.getvalue()
    assert "✓" in text
    assert "Inner: 2 parties, " in text
    assert "Outer [x]: " in text
    assert module._Live._current is None


def test_a_terminal_is_given_back_after_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "xterm")
    with redirect_stderr(Terminal()) as terminal, pytest.raises(ValueError), progress("Inner"):
        raise ValueError
    assert "stopped after" in terminal.getvalue()
    assert module._Live._current is None
