"""Names in graphs: which are allowed, and how they are quoted in Cypher."""

from __future__ import annotations

import re
import secrets
from typing import Final

from quayside.foundation.errors import InputError

#: Also a folder's and an object's name, so it can lead nowhere else. ``kg`` and 16 hex digits where we make it.
_GRAPH_ID: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def new_graph_id() -> str:
    """An id nobody has."""
    return f"kg{secrets.token_hex(8)}"


def checked(graph_id: str) -> str:
    """The id itself; raises: InputError: it could not be the name of a folder."""
    if _GRAPH_ID.fullmatch(graph_id) is None:
        raise InputError(
            f"{graph_id!r} is no graph id: it has 1 to 64 of a-z, 0-9, '-' and '_', and starts with a letter or digit."
        )
    return graph_id


def quoted(name: str) -> str:
    """An identifier for a Cypher statement.

    Raises:
        InputError: it is empty, or holds a backtick, for which Cypher knows no escape, or a control character.
    """
    if not name or "`" in name or any(ord(character) < 32 for character in name):
        raise InputError(
            f"{name!r} cannot be a name in a graph: it is empty or has a backtick or control character."
        )
    return f"`{name}`"
