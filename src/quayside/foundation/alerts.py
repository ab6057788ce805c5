"""Alerts: what a person should know about, in the table ``ops.alerts``, in the log, and in Slack where there is one.

The first alert of a kind (a fingerprint) goes out at once. Repeats within `WINDOW` only count up its row; the first one
after the window goes out again and says how many there were. Sending never makes the caller fail: what went wrong with
Slack is kept on the row and logged, and the next repeat tries again.
"""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final, Literal

from quayside.foundation import slack
from quayside.foundation.errors import QuaysideError, sentence
from quayside.foundation.secrets import redact, remember_all
from quayside.foundation.settings import Settings

Severity = Literal["info", "warning", "critical"]

WINDOW: Final = timedelta(hours=1)
TITLE_CHARACTERS: Final = 140
#: What the table keeps of a body; Slack gets less.
BODY_CHARACTERS: Final = 10_000
#: After a failed delivery, alerts of this process only go to table and log for so long: a dead Slack must not cost
#: every alert of a sensor's tick its whole deadline.
PAUSE_SECONDS: Final = 60.0

_LEVELS: Final = {"info": logging.INFO, "warning": logging.WARNING, "critical": logging.ERROR}
_MARKS: Final = {"info": "ℹ️", "warning": "⚠️", "critical": "🔴"}

_log = logging.getLogger(__name__)
_paused_until = 0.0


@dataclass(frozen=True)
class Alert:
    """One thing that happened.

    ``source`` says what raised it (a job, a check), ``run_id`` in which Dagster run, ``link`` leads to more;
    ``fingerprint`` says which alerts are the same kind (default: source and title).
    """

    severity: Severity
    title: str
    body: str = ""
    source: str = "quayside"
    fingerprint: str = ""
    link: str | None = None
    run_id: str | None = None

    def __post_init__(self) -> None:
        if self.severity not in _LEVELS:
            raise ValueError(f"severity is {self.severity!r}; it has to be one of {', '.join(_LEVELS)}.")

    @property
    def kind(self) -> str:
        """The fingerprint, or a digest of source and title."""
        return self.fingerprint or hashlib.sha256(f"{self.source}\0{self.title}".encode()).hexdigest()[:32]


class Outcome(StrEnum):
    """What became of an alert."""

    DELIVERED = "delivered"
    FOLDED = "folded"  # counted on the row of an earlier one
    RECORDED = "recorded"  # table and log: there is no Slack
    UNDELIVERED = "undelivered"  # recorded, but Slack did not take it


@dataclass(frozen=True)
class _Row:
    id: int | None
    due: bool
    repeats_before: int


def send(settings: Settings, alert: Alert, channel: str | None = None) -> Outcome:
    """Record an alert, and deliver it unless it repeats one that was. Never raises for a service that fails."""
    remember_all(settings)
    alert = replace(
        alert,
        title=slack.truncated(redact(alert.title), TITLE_CHARACTERS),
        body=slack.truncated(redact(alert.body), BODY_CHARACTERS),
        fingerprint=alert.kind,
    )
    _log.log(
        _LEVELS[alert.severity],
        "%s: %s%s",
        alert.source,
        alert.title,
        f" ({alert.link})" if alert.link else "",
    )
    row = _record(settings, alert, channel)
    if not row.due:
        return Outcome.FOLDED
    if not slack.is_configured(settings):
        return Outcome.RECORDED
    failure = _deliver(settings, alert, channel, row.repeats_before)
    _note_delivery(settings, row, failure)
    return Outcome.DELIVERED if failure is None else Outcome.UNDELIVERED


def _deliver(settings: Settings, alert: Alert, channel: str | None, repeats_before: int) -> str | None:
    """Post to Slack; the sentence that says why it failed, or None."""
    global _paused_until
    if time.monotonic() < _paused_until:
        return "Slack did not answer a moment ago; not tried again yet."
    try:
        slack.post(settings, _message(alert, repeats_before), channel)
    except QuaysideError as error:
        _paused_until = time.monotonic() + PAUSE_SECONDS
        failure = redact(str(error))
        _log.warning("Alert %r was recorded but not delivered: %s", alert.title, failure)
        return failure
    return None


def _message(alert: Alert, repeats_before: int) -> slack.Message:
    title = f"{_MARKS[alert.severity]} {alert.title}"
    blocks: list[dict[str, Any]] = [
        {
            "type": "header",
            "text": {"type": "plain_text", "text": slack.truncated(title, slack.HEADER_CHARACTERS)},
        }
    ]
    if alert.body:
        text = slack.truncated(slack.escaped(slack.truncated(alert.body, 2000)), slack.SECTION_CHARACTERS)
        blocks.append({"type": "section", "text": {"type": "mrkdwn", "text": text}})
    context = [slack.escaped(slack.truncated(alert.source, 200))]
    if repeats_before:
        context.append(f"{repeats_before} more like this since the last message")
    if alert.link:
        context.append(f"<{slack.escaped(alert.link).replace('|', '%7C')}|Open>")
    blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": " · ".join(context)}]})
    return slack.Message(slack.escaped(title), blocks)


_FOLD: Final = """
UPDATE ops.alerts SET folded_count = folded_count + 1, last_at = now(), body = %(body)s, link = %(link)s
WHERE id = (SELECT id FROM ops.alerts WHERE fingerprint = %(kind)s AND at > now() - %(window)s
            ORDER BY at DESC LIMIT 1)
RETURNING id, delivery_error IS NOT NULL
"""
_FOLDED_BEFORE: Final = (
    "SELECT folded_count FROM ops.alerts WHERE fingerprint = %(kind)s ORDER BY at DESC LIMIT 1"
)
_INSERT: Final = """
INSERT INTO ops.alerts (fingerprint, severity, title, body, source, run_id, link, channel)
VALUES (%(kind)s, %(severity)s, %(title)s, %(body)s, %(source)s, %(run_id)s, %(link)s, %(channel)s)
RETURNING id
"""
_DELIVERED: Final = """
UPDATE ops.alerts SET delivery_error = %(failure)s,
    delivered_by = CASE WHEN %(failure)s::text IS NULL THEN ARRAY['slack'] ELSE '{}' END
WHERE id = %(id)s
"""


def _record(settings: Settings, alert: Alert, channel: str | None) -> _Row:
    import psycopg

    from quayside.foundation.migrations import SCHEMA
    from quayside.foundation.postgres import connect, ensure_schema

    values = {
        "kind": alert.kind,
        "window": WINDOW,
        "severity": alert.severity,
        "title": alert.title,
        "body": alert.body,
        "source": alert.source,
        "run_id": alert.run_id,
        "link": alert.link,
        "channel": channel,
    }
    try:
        ensure_schema(settings, SCHEMA)
        with connect(settings) as connection:
            # Two processes with the same failure at the same moment: one is the first, the other its repeat.
            connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%(kind)s, 0))", values)
            if (folded := connection.execute(_FOLD, values).fetchone()) is not None:
                return _Row(folded[0], due=folded[1], repeats_before=0)
            before = connection.execute(_FOLDED_BEFORE, values).fetchone()
            inserted = connection.execute(_INSERT, values).fetchone()
            return _Row(
                inserted[0] if inserted else None, due=True, repeats_before=before[0] if before else 0
            )
    except (QuaysideError, psycopg.Error) as error:
        # An alert may be about this very database: it still goes to the log and to Slack, only not folded.
        _log.error("Alert %r was not recorded: %s", alert.title, redact(sentence(error)))
        return _Row(None, due=True, repeats_before=0)


def _note_delivery(settings: Settings, row: _Row, failure: str | None) -> None:
    import psycopg

    from quayside.foundation.postgres import connect

    if row.id is None:
        return
    try:
        with connect(settings) as connection:
            connection.execute(_DELIVERED, {"failure": failure, "id": row.id})
    except (QuaysideError, psycopg.Error) as error:
        _log.error("The delivery of alert %s was not noted: %s", row.id, redact(sentence(error)))
