"""Posting to Slack: bounded in size, in attempts and in time, and without a secret in any error.

By SLACK_BOT_TOKEN any channel can be named; SLACK_WEBHOOK_URL posts to the channel it was made for. The token wins
when both are given, since only it can choose a channel. Whoever wants a message recorded and folded uses
`quayside.foundation.alerts`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from quayside.foundation.errors import ServiceUnavailableError, SettingsError, sentence
from quayside.foundation.secrets import redact, remember
from quayside.foundation.settings import Settings

API_URL: Final = "https://slack.com/api/"
ATTEMPTS: Final = 3
REQUEST_TIMEOUT_SECONDS: Final = 4
#: Everything together. A sensor's tick has 60 seconds for several alerts.
DEADLINE_SECONDS: Final = 12.0

#: Slack's own limits are 150 (header), 3,000 (section) and 40,000 (text); the rest is room for the ellipsis.
HEADER_CHARACTERS: Final = 150
SECTION_CHARACTERS: Final = 2900
TEXT_CHARACTERS: Final = 3000


@dataclass(frozen=True)
class Message:
    """``text`` is what notifications show; ``blocks`` (Slack's block kit) is the message itself, if there are any."""

    text: str
    blocks: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class _Answer:
    status: int
    reason: str
    retry_after_seconds: float | None

    @property
    def temporary(self) -> bool:
        return self.status == 429 or self.status >= 500 or self.reason in ("ratelimited", "internal_error")


def is_configured(settings: Settings) -> bool:
    """Whether there is a webhook or a token to post with."""
    return settings.slack_webhook_url is not None or settings.slack_bot_token is not None


def post(settings: Settings, message: Message, channel: str | None = None) -> None:
    """Post a message to ``channel`` (default: SLACK_DEFAULT_CHANNEL), trying again while Slack asks us to wait.

    Raises:
        SettingsError: Slack is not configured, or refuses the webhook, token or channel.
        ServiceUnavailableError: Slack did not take it within `ATTEMPTS` and `DEADLINE_SECONDS`.
    """
    deadline = time.monotonic() + DEADLINE_SECONDS
    delay, answer = 1.0, _Answer(0, "", None)
    for attempt in range(1, ATTEMPTS + 1):
        answer = _request(settings, message, channel or settings.slack_default_channel)
        if answer.status == 200 and not answer.reason:
            return
        if not answer.temporary:
            raise SettingsError(
                f"Slack refuses the message ({answer.status} {answer.reason}); "
                "check SLACK_WEBHOOK_URL or SLACK_BOT_TOKEN, and the channel."
            )
        wait = answer.retry_after_seconds if answer.retry_after_seconds is not None else delay
        if attempt == ATTEMPTS or time.monotonic() + wait > deadline:
            break
        time.sleep(wait)
        delay *= 2
    raise ServiceUnavailableError(
        f"Slack did not take the message: {answer.status or ''} {answer.reason}".rstrip()
    )


def _request(settings: Settings, message: Message, channel: str) -> _Answer:
    from http.client import HTTPException

    body = {"text": truncated(message.text, TEXT_CHARACTERS), "blocks": list(message.blocks) or None}
    try:
        return _by_token(settings, body, channel) if settings.slack_bot_token else _by_webhook(settings, body)
    except (OSError, HTTPException) as error:  # no connection, a time-out, or not HTTP: the same to us
        return _Answer(503, redact(sentence(error)), None)


def _by_webhook(settings: Settings, body: dict[str, Any]) -> _Answer:
    from slack_sdk.webhook import WebhookClient

    if settings.slack_webhook_url is None:
        raise SettingsError("Slack is not configured: set SLACK_WEBHOOK_URL, or SLACK_BOT_TOKEN.")
    remember(settings.slack_webhook_url)
    client = WebhookClient(
        settings.slack_webhook_url.get_secret_value(), timeout=REQUEST_TIMEOUT_SECONDS, retry_handlers=[]
    )
    try:
        response = client.send_dict({key: value for key, value in body.items() if value is not None})
    except ValueError:  # urllib's message would quote the address, which is the secret
        raise SettingsError("SLACK_WEBHOOK_URL is not a web address.") from None
    return _Answer(
        response.status_code,
        "" if response.status_code == 200 else response.body[:100],
        _wait(response.headers),
    )


def _by_token(settings: Settings, body: dict[str, Any], channel: str) -> _Answer:
    from slack_sdk import WebClient
    from slack_sdk.errors import SlackApiError

    if settings.slack_bot_token is None:
        raise SettingsError("Slack is not configured: set SLACK_BOT_TOKEN, or SLACK_WEBHOOK_URL.")
    remember(settings.slack_bot_token)
    client = WebClient(
        settings.slack_bot_token.get_secret_value(),
        base_url=API_URL,
        timeout=REQUEST_TIMEOUT_SECONDS,
        retry_handlers=[],
    )
    try:
        client.chat_postMessage(channel=channel, **body)
    except SlackApiError as error:
        response: Any = error.response
        data = response.data if isinstance(response.data, dict) else {}
        return _Answer(
            response.status_code, str(data.get("error", "unknown error"))[:100], _wait(response.headers)
        )
    return _Answer(200, "", None)


def _wait(headers: Mapping[str, Any]) -> float | None:
    value = next((v for k, v in headers.items() if k.lower() == "retry-after"), None)
    try:
        return max(0.0, float(value[0] if isinstance(value, list) else value)) if value is not None else None
    except (TypeError, ValueError):  # an HTTP date: our own delay will do
        return None


def truncated(text: str, characters: int) -> str:
    """At most so many characters; what was cut is shown by an ellipsis."""
    return text if len(text) <= characters else text[: characters - 1] + "…"


def escaped(text: str) -> str:
    """Text that Slack shows as it is: no mention, no channel call, no link can come out of data."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
