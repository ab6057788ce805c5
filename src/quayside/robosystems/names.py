"""Names that people give: ids of customers, subscriptions and graphs, keys of units of work, reasons. One rule for all of them."""

from __future__ import annotations

from typing import Final

from quayside.foundation.errors import UsageError

LONGEST: Final = 200


def named(text: str, what: str) -> str:
    """The text itself, where it can be a name: 1 to `LONGEST` characters that can be printed, none of them a space at an end.

    Args:
        what: what it names, as in "The id of a graph".

    Raises:
        UsageError: it cannot.
    """
    if not 1 <= len(text) <= LONGEST or not text.isprintable() or text != text.strip():
        raise UsageError(
            f"{what} has 1 to {LONGEST} characters that can be printed, and no space at either end, not {shown(text)}."
        )
    return text


def shown(text: str) -> str:
    """A text as a message quotes it: with its beginning alone where it is long."""
    return repr(text) if len(text) <= 60 else f"{text[:40]!r}… ({len(text):,} characters)"
