"""Feature flags: the port every system asks, and its default implementation on the table ``ops.flags``.

    flags = DatabaseFlags(settings)
    if flags.enabled("network_features_v2", party_id): ...

The table is filled by analytics (from a sheet, a CSV or a YAML file); everybody else only reads. A flag nobody defined
is off. A subject's answer never changes while the flag stays the same, and widening a rollout only adds subjects.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Final, Protocol

from quayside.foundation.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

#: How long an answer may lag behind the table. Flags are asked in loops, and changed by people.
CACHE_SECONDS: Final = 30.0


class Flags(Protocol):
    """What a system may ask about feature flags."""

    def enabled(self, name: str, subject: str) -> bool:
        """Whether the flag ``name`` is on for ``subject`` (a party, a tenant, a user …)."""
        ...


@dataclass(frozen=True)
class Flag:
    """One flag. ``rollout_percent`` 0–100 of the subjects; ``audience`` names the only subjects it is meant for, or
    nobody in particular; from the day after ``expires_on`` (UTC) it is off.
    """

    name: str
    enabled: bool
    rollout_percent: float = 100.0
    audience: frozenset[str] = frozenset()
    expires_on: date | None = None

    def applies(self, subject: str, today: date) -> bool:
        """Whether the flag is on for this subject today."""
        if not self.enabled or (self.expires_on is not None and today > self.expires_on):
            return False
        if self.audience and subject not in self.audience:
            return False
        return bucket(self.name, subject) < self.rollout_percent


def bucket(name: str, subject: str) -> float:
    """Where a subject stands in a flag's rollout: 0 ≤ bucket < 100, in steps of 0.01, evenly spread, the same in every
    process and release. The flag's name is part of it, so that not always the same subjects come first.
    """
    digest = hashlib.sha256(f"{name}\0{subject}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % 10_000 / 100


class DatabaseFlags:
    """`Flags` on the table ``ops.flags``, read at most every `CACHE_SECONDS`. Not shared between threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._flags: Mapping[str, Flag] = {}
        self._read_at = float("-inf")

    def enabled(self, name: str, subject: str) -> bool:
        """See `Flags.enabled`.

        Raises:
            ServiceUnavailableError: PostgreSQL does not answer, and no answer younger than `CACHE_SECONDS` is held.
        """
        if time.monotonic() - self._read_at >= CACHE_SECONDS:
            self._flags = self._read()
            self._read_at = time.monotonic()
        flag = self._flags.get(name)
        return flag is not None and flag.applies(subject, datetime.now(UTC).date())

    def _read(self) -> dict[str, Flag]:
        from quayside.foundation.migrations import SCHEMA
        from quayside.foundation.postgres import connect, ensure_schema

        ensure_schema(self._settings, SCHEMA)
        with connect(self._settings) as connection:
            rows = connection.execute(
                "SELECT name, enabled, rollout_percent, audience, expires_on FROM ops.flags"
            ).fetchall()
        return {
            name: Flag(name, enabled, float(percent), _subjects(audience), expires_on)
            for name, enabled, percent, audience, expires_on in rows
        }


def _subjects(audience: str) -> frozenset[str]:
    return frozenset(subject.strip() for subject in audience.split(",") if subject.strip())
