"""Dagster's own state: runs, events and schedules in the platform's PostgreSQL, files under QUAYSIDE_HOME.

``dagster.yaml`` names the three classes below with an empty config. Each reads the settings in the process that uses
it, so no password is written to ``dagster.yaml`` or to the instance reference that Dagster hands to its
sub-processes on their command lines, and a plain ``dagster …`` in the project folder finds the same state as
``quayside up``, starting the embedded server if need be.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, ParamSpec

import sqlalchemy as sa
from dagster._config.config_schema import UserConfigSchema
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.root import LocalArtifactStorage
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from sqlalchemy import event
from sqlalchemy.exc import InvalidatePoolError, OperationalError

from quayside.foundation.errors import ServiceUnavailableError, SettingsError, sentence
from quayside.foundation.postgres import database_url
from quayside.foundation.settings import Settings, load_settings

P = ParamSpec("P")

SCHEMA: Final = "dagster"
#: Named, because SQLAlchemy 2.1 would choose psycopg 3, which dagster-postgres does not speak (NOTIFY with a bound value).
_DRIVER: Final = "postgresql+psycopg2"
#: Held while Dagster's tables are created, so that two first processes do not create them at once.
_CREATION_LOCK: Final = 0x6461_6773_7465_72
#: Connections one process keeps open. More are opened under load and closed again.
POOL_SIZE: Final = 2
#: A connection that was used within this time is not tried before it is used again.
_TRUSTED_SECONDS: Final = 1.0


class QuaysideStorage(DagsterPostgresStorage):
    """Dagster's storage, with one small pool of connections per process.

    Stock dagster-postgres opens a connection for every statement; pooled, a run of 100 ops takes a third of the time
    (see benchmarks/RESULTS.md). The pool is shared by the three stores and by every instance of a process, and a
    forked child starts an empty one.
    """

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        url = storage_url(load_settings())
        create_tables(url)
        super().__init__(url, should_autocreate_tables=False, inst_data=inst_data)
        for store in (self._run_storage, self._event_log_storage, self._schedule_storage):
            store._engine = pooled_engine(url)
        for store, question in (
            (self._run_storage, "has_run_stats_index_cols"),
            (self._event_log_storage, "has_table"),
        ):
            setattr(store, question, _once_true(getattr(store, question)))

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        return {}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> QuaysideStorage:
        return cls(inst_data)


class HomeComputeLogManager(LocalComputeLogManager):
    """Output of steps and code servers, in ``QUAYSIDE_HOME/dagster/storage``."""

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        return {}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> HomeComputeLogManager:
        return cls(str(files_folder(load_settings()) / "storage"), inst_data=inst_data)


class HomeArtifactStorage(LocalArtifactStorage):
    """What the default IO manager and file manager write, in ``QUAYSIDE_HOME/dagster``."""

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        return {}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> HomeArtifactStorage:
        return cls(str(files_folder(load_settings())), inst_data=inst_data)


def files_folder(settings: Settings) -> Path:
    """Where runs leave files: the same folder whether or not DAGSTER_HOME is set, so that nothing is lost between."""
    return settings.home / "dagster"


def storage_url(settings: Settings) -> str:
    """SQLAlchemy URL of Dagster's tables.

    Without DAGSTER_POSTGRES_* they are in schema ``dagster`` of the platform's database, which is started when it is
    the embedded one. With them they are where Dagster itself would put them: in the default schema of that database.

    Raises:
        SettingsError: some of DAGSTER_POSTGRES_HOST, _USER and _DB are given, but not all.
        ServiceUnavailableError: the embedded server cannot be started.
    """
    own = {
        "DAGSTER_POSTGRES_HOST": settings.dagster_postgres_host,
        "DAGSTER_POSTGRES_USER": settings.dagster_postgres_user,
        "DAGSTER_POSTGRES_DB": settings.dagster_postgres_db,
    }
    if not any(own.values()):
        url = sa.make_url(database_url(settings)).set(drivername=_DRIVER)
        return url.update_query_dict({"options": f"-csearch_path={SCHEMA}"}).render_as_string(
            hide_password=False
        )
    missing = [variable for variable, value in own.items() if not value]
    if missing:
        given = ", ".join(variable for variable, value in own.items() if value)
        raise SettingsError(f"{given} given without {', '.join(missing)}: set all three, or none of them.")
    password = settings.dagster_postgres_password
    return sa.URL.create(
        _DRIVER,
        username=settings.dagster_postgres_user,
        password=password.get_secret_value() if password is not None else None,
        host=settings.dagster_postgres_host,
        port=settings.dagster_postgres_port,
        database=settings.dagster_postgres_db,
    ).render_as_string(hide_password=False)


_engines: Final[dict[str, sa.Engine]] = {}
_engines_lock: Final = threading.Lock()


def pooled_engine(url: str) -> sa.Engine:
    """This process's engine for a database. Thread-safe; statements commit by themselves, as Dagster expects."""
    with _engines_lock:
        if url not in _engines:
            _engines[url] = sa.create_engine(
                url,
                isolation_level="AUTOCOMMIT",
                pool_size=POOL_SIZE,
                max_overflow=20,
                pool_recycle=3600,
            )
            _ping_when_idle(_engines[url])
        return _engines[url]


def _ping_when_idle(engine: sa.Engine) -> None:
    """Try a connection that was idle before it is used: the server may have been restarted between two statements of a
    long-lived process. Not before each statement (`pool_pre_ping`), since many a run has a hundred of them in a second."""

    def returned(connection: Any, record: Any) -> None:
        record.info["used"] = time.monotonic()

    def taken(connection: Any, record: Any, proxy: Any) -> None:
        if time.monotonic() - record.info.get("used", time.monotonic()) < _TRUSTED_SECONDS:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError("the server has closed it") from error

    event.listen(engine, "checkin", returned)
    event.listen(engine, "checkout", taken)


def _once_true(question: Callable[P, bool]) -> Callable[P, bool]:
    """`question`, no longer asked once it was answered with yes.

    Dagster asks PostgreSQL's catalog about tables and columns with every run it reads and every event it writes, a third of
    what a short run takes there. What a migration has added stays.
    """
    known: set[Any] = set()

    def asked(*args: P.args, **kwargs: P.kwargs) -> bool:
        key = (args, tuple(kwargs.items()))
        if key not in known and question(*args, **kwargs):
            known.add(key)
        return key in known

    return asked


def _forget_connections() -> None:
    """A connection must not be used by two processes: the child drops its copies without closing the parent's."""
    for engine in _engines.values():
        engine.dispose(close=False)


os.register_at_fork(after_in_child=_forget_connections)


def create_tables(url: str) -> None:
    """Create Dagster's tables where they are missing; cheap (one statement) where they are not.

    Raises:
        ServiceUnavailableError: the database does not answer.
    """
    if has_tables(url):
        return
    with _connected(url) as connection:
        connection.execute(sa.text("SELECT pg_advisory_lock(:key)"), {"key": _CREATION_LOCK})
        try:
            if not _has_tables(connection):
                if sa.make_url(url).query.get("options"):
                    connection.execute(sa.text(f'CREATE SCHEMA IF NOT EXISTS "{SCHEMA}"'))
                DagsterPostgresStorage(url, should_autocreate_tables=True)
        finally:
            connection.execute(sa.text("SELECT pg_advisory_unlock(:key)"), {"key": _CREATION_LOCK})


def has_tables(url: str) -> bool:
    """Whether all of Dagster's tables are there.

    Raises:
        ServiceUnavailableError: the database does not answer.
    """
    with _connected(url) as connection:
        return _has_tables(connection)


@contextmanager
def _connected(url: str) -> Iterator[sa.Connection]:
    try:
        connection = pooled_engine(url).connect()
    except OperationalError as error:
        where = sa.make_url(url).set(query={}).render_as_string(hide_password=True)
        raise ServiceUnavailableError(
            f"Dagster's database {where} does not answer: {sentence(error.orig or error)}"
        ) from None
    with connection:
        yield connection


def _has_tables(connection: sa.Connection) -> bool:
    # One table of each store. Each store creates its tables in one transaction.
    names = ("instance_info", "event_logs", "instigators")
    found = connection.execute(
        sa.text("SELECT count(to_regclass(name)) FROM unnest(CAST(:names AS text[])) AS name"),
        {"names": "{" + ",".join(names) + "}"},
    )
    return found.scalar_one() == len(names)
