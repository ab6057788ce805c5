"""Words for errors of every source."""

from __future__ import annotations

from collections.abc import Mapping

from quayside.dataloader.sources.fields import SECRET_FIELDS
from quayside.foundation.secrets import MASK, redact


def without_secrets(text: str, fields: Mapping[str, str]) -> str:
    """The text without any value that a driver may have put into it, however short the password is."""
    hidden = [value for name, value in fields.items() if name in SECRET_FIELDS and value]
    for value in sorted(hidden, key=len, reverse=True):
        text = text.replace(value, MASK)
    return redact(text)
