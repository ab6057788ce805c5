"""Connections to PostgreSQL: yours by QUAYSIDE_DATABASE_URL, else the embedded one, which starts by itself."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from quayside.foundation.errors import ConflictError, ServiceUnavailableError, SettingsError, sentence
from quayside.foundation.postgres.embedded import EmbeddedPostgres
from quayside.foundation.settings import Settings

if TYPE_CHECKING:
    import psycopg
    import sqlalchemy

_MALFORMED: Final = (
    "QUAYSIDE_DATABASE_URL is malformed: it must look like postgresql://user:password@host:5432/database, with "
    "characters such as @ : / in user and password percent-encoded."
)

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
        ServiceUnavailableError: the server does not answer, or takes no connection now.
        SettingsError: the URL is malformed, or the server refuses user, password or database.
    """
    import psycopg

    # Probes keep firewalls from forgetting a connection that holds a lock through a long computation.
    options = {"connect_timeout": 10, "keepalives_idle": 60, "application_name": "quayside"} | options
    try:
        if is_embedded(settings):
            # It may be stopped between the look at it and this connection; then it is started again.
            with suppress(psycopg.OperationalError):
                return psycopg.connect(database_url(settings), **options)
        return psycopg.connect(database_url(settings), **options)
    except psycopg.OperationalError as error:
        if _has_stray_at(settings):  # then the message names a part of the password as the host
            raise SettingsError(_MALFORMED) from None
        text = _without_secret(sentence(error), settings)
        if any(sign in text for sign in ("authentication failed", "does not exist", "no password", "pg_hba")):
            raise SettingsError(
                f"PostgreSQL refuses the connection: {text}. Correct {settings.database_variable}."
            ) from None
        raise ServiceUnavailableError(f"PostgreSQL takes no connection: {text}.") from None
    except psycopg.ProgrammingError:  # its text quotes parts of the URL, which may be parts of the password
        raise SettingsError(_MALFORMED) from None


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
        with suppress(errors.OperationalError):  # a connection that was lost has given the lock back already
            # Closing frees it too, but a moment after `close` has returned.
            connection.execute("SELECT pg_advisory_unlock(%s)", [number])


def _has_stray_at(settings: Settings) -> bool:
    url = settings.database_url.get_secret_value() if settings.database_url is not None else ""
    return re.match(r"\w+://[^/?]*@[^/?]*@", url) is not None


def _without_secret(text: str, settings: Settings) -> str:
    from psycopg.conninfo import conninfo_to_dict

    if settings.database_url is not None:
        password = conninfo_to_dict(settings.database_url.get_secret_value()).get("password")
        if password:
            text = text.replace(str(password), "***")
    return text.rstrip(".")
