"""The mark of a load: what a source's list of sessions shows beside the application's name, so that they can be found again.

It belongs to the thread that loads, which loads one table at a time; a connection that is kept for the next table keeps it.
"""

from __future__ import annotations

import secrets
import threading
from typing import Final

_PROCESS: Final = secrets.token_hex(3)
#: PostgreSQL cuts names after so many bytes.
_NAME_BYTES: Final = 63


def mark() -> str:
    """The mark of this thread's load, such as ``[3fa9c1-5b2]``."""
    return f"[{_PROCESS}-{threading.get_native_id():x}]"


def marked(name: str, load: str | None = None) -> str:
    """An application's name with a mark: this load's, or that of `load`."""
    end = f" {load or mark()}"
    return name.encode()[: _NAME_BYTES - len(end)].decode(errors="ignore") + end
