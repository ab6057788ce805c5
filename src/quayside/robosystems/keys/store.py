"""API keys in PostgreSQL. The key itself is shown once, when it is made; the table holds its prefix and its keyed hash."""
# ruff: noqa: S608 - statements are made of constants of this module; values are bound

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from pydantic import SecretStr

from quayside.foundation import audit
from quayside.foundation.errors import NotFoundError, PermanentError, SettingsError, UsageError
from quayside.foundation.secrets import remember
from quayside.robosystems.keys import hashing
from quayside.robosystems.names import named, shown
from quayside.robosystems.periods import in_utc, utc_now

if TYPE_CHECKING:
    import psycopg

#: Of keys that are made without an expiry.
LIFETIME: Final = timedelta(days=365)
#: A use is noted this often; noting each would write a row for every call.
_NOTED_EVERY: Final = timedelta(minutes=5)


class InvalidKeyError(PermanentError):
    """No such key, or not any more. Why is not said: whoever guesses would learn from it."""


@dataclass(frozen=True)
class ApiKey:
    """A key without what is secret of it; times in UTC."""

    key_id: str
    customer_id: str
    name: str
    prefix: str
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    deactivated_at: datetime | None

    def is_valid(self, at: datetime) -> bool:
        """Whether it may be used at a moment."""
        return self.deactivated_at is None and (self.expires_at is None or self.expires_at > at)


@dataclass(frozen=True)
class NewKey:
    """A key that was just made. `secret` is the only place where it can be read."""

    key: ApiKey
    secret: SecretStr


COLUMNS: Final = ", ".join(field.name for field in fields(ApiKey))
#: A hash to compare with when there is no row, so that both answers take as long.
_NO_HASH: Final = bytes(32)


class ApiKeys:
    """The keys of one database, on one psycopg connection, hashed with one secret (see `hashing_secret`)."""

    def __init__(
        self, connection: psycopg.Connection[Any], secret: SecretStr, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self.connection, self._secret, self._clock = connection, secret, clock

    def create(self, customer_id: str, *, name: str = "", expires_at: datetime | None = None) -> NewKey:
        """Make a key, good for a year unless `expires_at`, which has a time zone, says otherwise.

        Raises:
            NotFoundError: there is no such customer.
            UsageError: `expires_at` has passed, or has no time zone; or the name is none.
        """
        if name:
            named(name, "What a key is for")
        now = self._clock()
        until = now + LIFETIME if expires_at is None else in_utc(expires_at)
        if until <= now:
            raise UsageError(f"A key that expires at {until:%Y-%m-%d %H:%M} UTC could never be used.")
        con = self.connection
        found = con.execute("SELECT FROM robosystems.customers WHERE customer_id = %s", [customer_id])
        if found.fetchone() is None:
            raise NotFoundError(f"There is no customer {customer_id!r}.")
        key, prefix = hashing.new_key()
        secret = SecretStr(key)
        remember(secret)
        with con.transaction():
            row = con.execute(
                "INSERT INTO robosystems.api_keys (key_id, customer_id, name, prefix, key_hash, secret_id, created_by,"
                " created_at, expires_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)"
                f" RETURNING {COLUMNS}".encode(),
                [
                    f"key_{secrets.token_hex(8)}",
                    customer_id,
                    name,
                    prefix,
                    hashing.keyed_hash(self._secret, key),
                    hashing.secret_id(self._secret),
                    audit.actor(),
                    now,
                    until,
                ],
            ).fetchone()
            assert row is not None
            made = ApiKey(*row)
            audit.record(con, audit.actor(), "create", "api key", made.key_id, {"customer": customer_id})
        return NewKey(made, secret)

    def authenticate(self, key: str) -> ApiKey:
        """The key's row, if it may be used now; that it was used is noted.

        Raises:
            InvalidKeyError: it is unknown, expired or deactivated.
            SettingsError: it was hashed with another secret than this process has.
        """
        row = self.connection.execute(
            f"SELECT {COLUMNS}, key_hash, secret_id FROM robosystems.api_keys WHERE prefix = %s".encode(),
            [hashing.prefix_of(key) or ""],
        ).fetchone()
        given = hashing.keyed_hash(self._secret, key)
        equal = hmac.compare_digest(given, _NO_HASH if row is None else bytes(row[-2]))
        now = self._clock()
        if row is not None and row[-1] != hashing.secret_id(self._secret):
            raise SettingsError(
                f"API key {row[0]} was hashed with another secret: set QUAYSIDE_API_KEY_SECRET to the one it was made with, "
                "or make a new key."
            )
        if row is None or not equal or not (found := ApiKey(*row[:-2])).is_valid(now):
            raise InvalidKeyError("The API key is not valid: it is unknown, expired or revoked.")
        if found.last_used_at is None or found.last_used_at < now - _NOTED_EVERY:
            self.connection.execute(
                "UPDATE robosystems.api_keys SET last_used_at = %s WHERE key_id = %s", [now, found.key_id]
            )
        return found

    def revoke(self, key_id: str) -> ApiKey:
        """Deactivate a key at once. Again, nothing changes. Raises: NotFoundError."""
        con = self.connection
        with con.transaction():
            changed = con.execute(
                "UPDATE robosystems.api_keys SET deactivated_at = %s WHERE key_id = %s AND deactivated_at IS NULL",
                [self._clock(), key_id],
            ).rowcount
            if changed:
                audit.record(con, audit.actor(), "revoke", "api key", key_id)
        return self.get(key_id)

    def get(self, key_id: str) -> ApiKey:
        """A key by its id. Raises: NotFoundError."""
        row = self.connection.execute(
            f"SELECT {COLUMNS} FROM robosystems.api_keys WHERE key_id = %s".encode(),
            [key_id],
        ).fetchone()
        if row is None:
            raise NotFoundError(f"There is no API key {shown(key_id)}.")
        return ApiKey(*row)

    def list(self, customer_id: str | None = None) -> list[ApiKey]:
        """The keys of a customer, or all, oldest first."""
        rows = self.connection.execute(
            f"SELECT {COLUMNS} FROM robosystems.api_keys"
            " WHERE customer_id = coalesce(%s, customer_id) ORDER BY created_at, key_id".encode(),
            [customer_id],
        )
        return [ApiKey(*row) for row in rows]
