"""Transactions of one machine's lake take turns, as long as they are short.

DuckLake gives each snapshot a number, which whoever commits first gets. Everybody else who had begun by then reads the catalog
anew and tries again, all of them at once again: five small loads side by side spent a third of their processor time on that. A turn saves
that work and proves nothing: whoever has it for long loses it, whoever does not get it goes without, and meets the conflict.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from quayside.foundation.processes import try_lock

if TYPE_CHECKING:
    from pathlib import Path

    from quayside.foundation.settings import Settings

#: Of a transaction that takes longer, a conflict is a small part.
LONGEST_SECONDS: Final = 1.0
#: So long a crowd is waited for; and whoever hangs and cannot even lose its turn.
PATIENCE_SECONDS: Final = 10.0
_LOOK_EVERY_SECONDS: Final = 0.004

_log = logging.getLogger(__name__)


@contextmanager
def turn(settings: Settings) -> Iterator[None]:
    """Have the turn for the block, at most `LONGEST_SECONDS` of it."""
    handle = _wait(settings.home / "duckdb" / "turn.lock")
    if handle is None:
        yield
        return
    given_back = threading.Lock()

    def give_back() -> None:
        if given_back.acquire(blocking=False):
            os.close(handle)

    timer = threading.Timer(LONGEST_SECONDS, give_back)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        give_back()


def _wait(lock: Path) -> int | None:
    """The lock's open file, which the kernel gives back when the process ends, however that happens; None without a turn."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    try:
        while (handle := try_lock(lock)) is None and time.monotonic() < deadline:
            time.sleep(_LOOK_EVERY_SECONDS)
    except OSError as error:  # another user's file, a full disk: no reason to lose a transaction
        _log.warning("Lake transactions do not take turns: %s cannot be used (%s).", lock, error.strerror)
        return None
    return handle
