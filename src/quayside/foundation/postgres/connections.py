"""Connections to PostgreSQL: yours by QUAYSIDE_DATABASE_URL, else the embedded one, which starts by itself."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from quayside.foundation.errors import ConflictError, ServiceUnavailableError, SettingsError, sentence
from quayside.foundation.postgres.embedded import EmbeddedPostgres
from quayside.foundation.settings import Settings

if TYPE_CHECKING:
    import psycopg
    import sqlalchemy

_engines: dict[tuple[int, str], sqlalchemy.Engine] = {}


def is_embedded(settings: Settings) -> bool:
    """Whether these settings mean the embedded server."""
    return settings.database_url is None


def database_url(settings: Settings) -> str:
    """libpq URL of the database. Starts the embedded server if that is meant and does not run.

    The URL of a server of yours contains its password: do not log it.
    """
    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    server = EmbeddedPostgres(settings.home)
    server.start()
    return server.url


def connect(settings: Settings, **options: Any) -> psycopg.Connection[tuple[Any, ...]]:
    """Open a connection with psycopg; ``options`` are `psycopg.connect`'s, such as ``autocommit=True``.

    Raises:
        ServiceUnavailableError: the server does not answer.
        SettingsError: the server answers but refuses user, password or database.
    """
    import psycopg
    from psycopg import errors

    defaults: dict[str, Any] = {"connect_timeout": 10, "application_name": "quayside"}
    try:
        return psycopg.connect(database_url(settings), **(defaults | options))
    except psycopg.OperationalError as error:
        refused = isinstance(error, errors.InvalidAuthorizationSpecification | errors.InvalidCatalogName)
        text = _without_secret(sentence(error), settings)
        if refused or any(
            word in text for word in ("authentication failed", "does not exist", "no password")
        ):
            raise SettingsError(
                f"PostgreSQL refuses the connection: {text}. Correct QUAYSIDE_DATABASE_URL."
            ) from None
        raise ServiceUnavailableError(f"PostgreSQL does not answer: {text}.") from None
    except psycopg.ProgrammingError as error:
        text = _without_secret(sentence(error), settings)
        raise SettingsError(f"QUAYSIDE_DATABASE_URL is not usable: {text}.") from None


def engine(settings: Settings) -> sqlalchemy.Engine:
    """The process's SQLAlchemy engine for this database: a small pool, tested before use, never shared over a fork."""
    import sqlalchemy

    key = (os.getpid(), database_url(settings))
    if key not in _engines:
        for other in [k for k in _engines if k[0] != key[0]]:
            _engines.pop(other).dispose(close=False)  # the parent's connections are not ours to close
        _engines[key] = sqlalchemy.create_engine(
            "postgresql+psycopg://",
            creator=lambda: connect(settings),
            pool_size=5,
            max_overflow=10,
            pool_pre_ping=True,
            pool_recycle=1800,
        )
    return _engines[key]


def dispose_engines() -> None:
    """Close every pooled connection of this process."""
    for pooled in _engines.values():
        pooled.dispose()
    _engines.clear()


@contextmanager
def advisory_lock(settings: Settings, key: str, wait_seconds: float | None = None) -> Iterator[None]:
    """Hold a lock, known by name to every process that uses this database, on a connection of its own.

    It ends with the block, or with the process however that ends. ``wait_seconds``: None waits for ever, 0 not at all.

    Raises:
        ConflictError: somebody else held it for longer than ``wait_seconds``.
    """
    from psycopg import errors

    number = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big", signed=True)
    with connect(settings, autocommit=True) as connection:
        if wait_seconds is None or wait_seconds > 0:
            milliseconds = 0 if wait_seconds is None else max(1, round(wait_seconds * 1000))
            connection.execute("SELECT set_config('lock_timeout', %s, false)", [f"{milliseconds}ms"])
            try:
                connection.execute("SELECT pg_advisory_lock(%s)", [number])
                taken = True
            except errors.LockNotAvailable:
                taken = False
        else:
            row = connection.execute("SELECT pg_try_advisory_lock(%s)", [number]).fetchone()
            taken = row is not None and row[0]
        if not taken:
            raise ConflictError(f"Another process holds the lock {key!r}; waited {wait_seconds:g} s for it.")
        yield


def _without_secret(text: str, settings: Settings) -> str:
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    if settings.database_url is None:
        return text.rstrip(".")
    url = settings.database_url.get_secret_value()
    try:
        password = conninfo_to_dict(url).get("password")
    except ProgrammingError:  # not even a URL: then it may be quoted back to us with all it contains
        return "it is not a valid postgresql:// URL"
    text = text.replace(url, "the URL")
    return (text.replace(str(password), "***") if password else text).rstrip(".")
