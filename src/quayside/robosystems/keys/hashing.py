"""What a key looks like, and how it is hashed: with a secret, so that who reads the table can try no keys.

A key is ``qsk_<prefix>_<secret>``; the prefix finds its row, and the 256 random bits of the secret need no slow hash.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import SecretStr

from quayside.foundation.errors import SettingsError
from quayside.foundation.secrets import remember, resolve

if TYPE_CHECKING:
    from quayside.foundation.settings import Settings

_KEY: Final = re.compile(r"qsk_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")


def new_key() -> tuple[str, str]:
    """A key nobody has, and its prefix."""
    prefix = secrets.token_hex(6)
    return f"qsk_{prefix}_{secrets.token_urlsafe(32)}", prefix


def prefix_of(key: str) -> str | None:
    """The prefix of a key; None when it does not look like one."""
    match = _KEY.fullmatch(key)
    return None if match is None else match[1]


def keyed_hash(secret: SecretStr, key: str) -> bytes:
    """The hash that is stored."""
    return hmac.digest(secret.get_secret_value().encode(), key.encode(), "sha256")


def secret_id(secret: SecretStr) -> str:
    """Tells secrets apart and gives none away."""
    return hmac.digest(secret.get_secret_value().encode(), b"quayside api keys", "sha256").hex()[:16]


def hashing_secret(settings: Settings) -> SecretStr:
    """The secret that QUAYSIDE_API_KEY_SECRET names; on the embedded PostgreSQL, one made in QUAYSIDE_HOME.

    Raises:
        SettingsError: it is not named although the database is a server of yours, cannot be read, or is too short.
    """
    if settings.api_key_secret is not None:
        found = resolve(settings.api_key_secret)
        if len(found.get_secret_value()) < 32:
            raise SettingsError(
                "The secret that QUAYSIDE_API_KEY_SECRET names is shorter than 32 characters: make one with "
                "`openssl rand -hex 32`."
            )
        return found
    if settings.database_url is not None:
        raise SettingsError(
            "API keys need a secret to be hashed with, the same for every process that uses your PostgreSQL: set "
            "QUAYSIDE_API_KEY_SECRET to its name (env:NAME or file:/path)."
        )
    path = settings.home / "api-keys.secret"
    if not path.is_file():
        _make(path)
    return resolve(f"file:{path}")


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    value = SecretStr(secrets.token_hex(32))
    remember(value)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(value.get_secret_value())
    try:
        os.link(draft, path)  # of two at once the first one's counts
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def digest(key: str) -> str:
    """By which a cache knows a key without holding it."""
    return hashlib.sha256(key.encode()).hexdigest()
