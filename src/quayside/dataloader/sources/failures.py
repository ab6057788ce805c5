"""Words for errors of every source."""

from __future__ import annotations

from collections.abc import Mapping

from quayside.foundation.secrets import MASK, redact

#: Values of these fields are no secret, and are what a reader needs to find the cause.
_SHOWN = frozenset(
    {"host", "port", "service_name", "user", "path", "application_name", "warehouse", "url", "sslmode",
     "connect_timeout_seconds", "statement_timeout_seconds", "max_connections"}
)  # fmt: skip


def without_secrets(text: str, fields: Mapping[str, str]) -> str:
    """The text without any value that a driver may have put into it, however short the password is."""
    hidden = [value for name, value in fields.items() if name not in _SHOWN and value]
    for value in sorted(hidden, key=len, reverse=True):
        text = text.replace(value, MASK)
    return redact(text)
