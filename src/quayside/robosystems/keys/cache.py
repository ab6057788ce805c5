"""Keys that were found valid a moment ago, in the memory of one process.

A cached key dies with its row: the database tells of every change of a key when that is committed, which takes milliseconds
to arrive, and what arrived is read before each answer. Without that line nothing is answered from memory.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from quayside.robosystems.keys.hashing import digest
from quayside.robosystems.keys.store import ApiKey, ApiKeys
from quayside.robosystems.periods import utc_now

if TYPE_CHECKING:
    import psycopg

CHANNEL: Final = "robosystems_api_keys"


class KeyCache:
    """Authentication with a memory. `listener` is an autocommit connection that it has to itself.

    An entry lasts `seconds`, so that the use of a key still shows in its row; safe from any thread.
    """

    def __init__(
        self,
        listener: psycopg.Connection[Any],
        *,
        seconds: float = 300,
        size: int = 10_000,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._listener, self._seconds, self._size, self._clock = listener, seconds, size, clock
        self._found: dict[str, tuple[ApiKey, float]] = {}
        self._lock = threading.Lock()
        self._told = 0
        listener.execute(f"LISTEN {CHANNEL}".encode())

    def authenticate(self, keys: ApiKeys, key: str) -> ApiKey:
        """As `ApiKeys.authenticate`, from memory where it is known to be still true."""
        known = digest(key)
        with self._lock:
            listening = self._forget_changed()
            told = self._told
            entry = self._found.get(known)
        if entry is not None and entry[1] > time.monotonic() and entry[0].is_valid(self._clock()):
            return entry[0]
        found = keys.authenticate(key)
        if listening:
            with self._lock:
                # What another thread was told since may be of this key; what nobody read yet is read before the next answer.
                if self._told != told:
                    return found
                if len(self._found) >= self._size:
                    self._found.clear()
                self._found[known] = (found, time.monotonic() + self._seconds)
        return found

    def _forget_changed(self) -> bool:
        """Read what the database told; whether it can still tell."""
        import psycopg

        try:
            changed = self._read()
            if changed:
                self._told += 1
                self._found = {k: e for k, e in self._found.items() if e[0].key_id not in changed}
        except psycopg.Error:
            self._found.clear()
            with suppress(psycopg.Error):
                self._listener.close()
            return False
        return True

    def _read(self) -> set[str]:
        """Ids of the keys that were told since the last time, without waiting and without a question.

        Read until the socket is empty: the end of a connection shows only after its last message, and is an error here.
        """
        line = self._listener.pgconn
        changed: set[str] = set()
        waiting = select.poll()
        waiting.register(line.socket, select.POLLIN)
        while waiting.poll(0):
            line.consume_input()
            while (told := line.notifies()) is not None:
                changed.add(told.extra.decode())
        return changed
