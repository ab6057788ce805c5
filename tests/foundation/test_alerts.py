"""Alerts: table, log and Slack; folding, retries, and no secret anywhere."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from quayside.foundation import alerts, secrets, slack
from quayside.foundation.alerts import Alert, Outcome, send
from quayside.foundation.errors import ServiceUnavailableError, SettingsError
from quayside.foundation.postgres import connect
from quayside.foundation.settings import Settings

pytestmark = pytest.mark.integration

ALERT = Alert(
    "critical", "Job scoring_job failed", "ValueError: no", "dagster:kycc", "k1", "http://ui/runs/1", "1"
)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "_paused_until", 0.0)
    monkeypatch.setattr(secrets, "_known", set())


@pytest.fixture
def server(slack_server: Any) -> Any:
    return slack_server


@pytest.fixture
def by_webhook(settings: Settings, server: Any) -> Settings:
    return settings.model_copy(update={"slack_webhook_url": SecretStr(server.webhook)})


@pytest.fixture
def by_token(settings: Settings, server: Any) -> Settings:
    return settings.model_copy(update={"slack_bot_token": SecretStr(server.token)})


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the code slept, without sleeping it."""
    slept: list[float] = []
    monkeypatch.setattr(slack, "time", SimpleNamespace(monotonic=time.monotonic, sleep=slept.append))
    return slept


def rows(
    settings: Settings, columns: str = "title, folded_count, delivered_by, delivery_error"
) -> list[tuple[Any, ...]]:
    with connect(settings) as connection:
        return connection.execute(f"SELECT {columns} FROM ops.alerts ORDER BY id".encode()).fetchall()


def test_without_slack_an_alert_is_in_table_and_log(settings: Settings, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "quayside")
    assert send(settings, ALERT) is Outcome.RECORDED
    columns = "severity, title, body, source, link, run_id, fingerprint, channel"
    assert rows(settings, columns) == [
        ("critical", ALERT.title, ALERT.body, ALERT.source, ALERT.link, ALERT.run_id, "k1", None)
    ]
    assert caplog.messages == ["dagster:kycc: Job scoring_job failed (http://ui/runs/1)"]


def test_an_unknown_severity_is_refused():
    with pytest.raises(ValueError, match="severity is 'fatal'"):
        Alert("fatal", "x")  # pyright: ignore[reportArgumentType]


def test_the_webhook_gets_title_cause_and_link(by_webhook: Settings, server: Any):
    assert send(by_webhook, ALERT) is Outcome.DELIVERED
    [message] = server.messages
    assert message["blocks"][0]["text"]["text"] == "🔴 Job scoring_job failed"
    assert message["blocks"][1]["text"]["text"] == "ValueError: no"
    assert "<http://ui/runs/1|Open>" in message["blocks"][2]["elements"][0]["text"]
    assert rows(by_webhook) == [(ALERT.title, 0, ["slack"], None)]


def test_the_token_chooses_the_channel(by_token: Settings, server: Any):
    send(by_token, ALERT)
    send(by_token, Alert("info", "Other"), channel="#kycc")
    assert [message["channel"] for message in server.messages] == ["#alerts", "#kycc"]


def test_repeats_are_folded_and_told_after_the_window(
    by_webhook: Settings, server: Any, monkeypatch: pytest.MonkeyPatch
):
    assert [send(by_webhook, ALERT) for _ in range(3)] == [Outcome.DELIVERED, Outcome.FOLDED, Outcome.FOLDED]
    assert send(by_webhook, Alert("critical", "Another kind")) is Outcome.DELIVERED
    assert len(server.messages) == 2
    monkeypatch.setattr(alerts, "WINDOW", timedelta(0))
    assert send(by_webhook, ALERT) is Outcome.DELIVERED
    assert "2 more like this" in server.messages[-1]["blocks"][-1]["elements"][0]["text"]
    assert [row[:2] for row in rows(by_webhook)] == [(ALERT.title, 2), ("Another kind", 0), (ALERT.title, 0)]


def test_of_many_at_once_one_goes_out(by_webhook: Settings, server: Any):
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda _: send(by_webhook, ALERT), range(8)))
    assert outcomes.count(Outcome.DELIVERED) == 1
    assert outcomes.count(Outcome.FOLDED) == 7
    assert rows(by_webhook) == [(ALERT.title, 7, ["slack"], None)]


def test_a_rate_limit_is_waited_for(
    by_webhook: Settings, by_token: Settings, server: Any, waits: list[float]
):
    server.next.extend([("retry", 2), ("status", 200), ("retry", 3), ("status", 200)])
    assert send(by_webhook, ALERT) is Outcome.DELIVERED
    assert send(by_token, Alert("info", "By token")) is Outcome.DELIVERED
    assert waits == [2.0, 3.0]
    assert server.requests == 4


def test_a_rate_limit_beyond_the_deadline_is_not_waited_for(
    by_webhook: Settings, server: Any, waits: list[float]
):
    server.next.append(("retry", 3600))
    assert send(by_webhook, ALERT) is Outcome.UNDELIVERED
    assert waits == []
    assert (
        rows(by_webhook)[0][3] == 'Slack did not take the message: 429 {"ok": false, "error": "ratelimited"}'
    )


def test_server_errors_are_tried_again_within_bounds(by_webhook: Settings, server: Any, waits: list[float]):
    server.next.extend([("status", 500), ("status", 503), ("status", 502), ("status", 500)])
    assert send(by_webhook, ALERT) is Outcome.UNDELIVERED
    assert server.requests == slack.ATTEMPTS
    assert waits == [1.0, 2.0]


def test_an_undelivered_alert_goes_out_with_its_next_repeat(
    by_webhook: Settings, server: Any, waits: list[float], monkeypatch: pytest.MonkeyPatch
):
    server.next.extend([("status", 500)] * slack.ATTEMPTS)
    assert send(by_webhook, ALERT) is Outcome.UNDELIVERED
    # Slack is left alone for a while, also by other alerts of this process …
    assert send(by_webhook, Alert("info", "Other")) is Outcome.UNDELIVERED
    assert server.requests == slack.ATTEMPTS
    # … and then the repeat delivers it.
    monkeypatch.setattr(alerts, "_paused_until", 0.0)
    assert send(by_webhook, ALERT) is Outcome.DELIVERED
    assert rows(by_webhook)[0] == (ALERT.title, 1, ["slack"], None)
    assert send(by_webhook, ALERT) is Outcome.FOLDED


def test_a_refusal_is_not_tried_again(by_token: Settings, server: Any, waits: list[float]):
    wrong = by_token.model_copy(update={"slack_bot_token": SecretStr("xoxb-wrong-token")})
    assert send(wrong, ALERT) is Outcome.UNDELIVERED
    assert server.requests == 1
    assert "refuses the message (200 invalid_auth)" in rows(wrong)[0][3]


def test_a_silent_server_is_given_up_on(by_webhook: Settings, server: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(slack, "REQUEST_TIMEOUT_SECONDS", 0.1)
    monkeypatch.setattr(slack, "ATTEMPTS", 2)
    monkeypatch.setattr(slack, "DEADLINE_SECONDS", 2)
    server.next.extend([("hang", 0.5), ("hang", 0.5)])
    assert send(by_webhook, ALERT) is Outcome.UNDELIVERED
    assert server.requests == 2


@pytest.mark.parametrize(
    "webhook",
    ["http://127.0.0.1:1/services/T0/B0/secretsecret", "not a url secretsecret", "http:///secretsecret"],
)
def test_no_failure_shows_the_webhook(
    webhook: str, settings: Settings, caplog: pytest.LogCaptureFixture, waits: list[float]
):
    caplog.set_level(logging.DEBUG)
    wrong = settings.model_copy(update={"slack_webhook_url": SecretStr(webhook)})
    assert send(wrong, ALERT) is Outcome.UNDELIVERED
    [(error,)] = rows(wrong, "delivery_error")
    assert error
    assert "secretsecret" not in error + secrets.redact(caplog.text)
    with pytest.raises((ServiceUnavailableError, SettingsError)) as raised:
        slack.post(wrong, slack.Message("x"))
    assert "secretsecret" not in str(raised.value)
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


def test_a_message_stays_within_slacks_limits_and_calls_nobody(by_webhook: Settings, server: Any):
    body = "<!channel> & password=hunter2 " + "<&>" * 5000
    assert send(by_webhook, Alert("warning", "T" * 500, body, "s" * 500)) is Outcome.DELIVERED
    [message] = server.messages
    assert "<!channel>" not in str(message)
    assert "hunter2" not in str(message)
    assert len(message["blocks"][0]["text"]["text"]) <= 150
    [(title, kept)] = rows(by_webhook, "title, body")
    assert len(title) == alerts.TITLE_CHARACTERS
    assert len(kept) == alerts.BODY_CHARACTERS
    assert "hunter2" not in kept


def test_an_alert_about_the_database_still_reaches_slack(by_webhook: Settings, server: Any, caplog: Any):
    down = by_webhook.model_copy(update={"database_url": SecretStr("postgresql://me:pw12345@127.0.0.1:1/x")})
    assert send(down, ALERT) is Outcome.DELIVERED
    assert len(server.messages) == 1
    assert "was not recorded" in caplog.text
    assert "pw12345" not in caplog.text


def test_without_a_fingerprint_source_and_title_are_the_kind():
    assert Alert("info", "a", source="s").kind == Alert("critical", "a", "other", source="s").kind
    assert Alert("info", "a", source="s").kind != Alert("info", "a", source="t").kind
