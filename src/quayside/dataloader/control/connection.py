"""Connections to the control database: yours by LAKEBASE_HOST, else the platform's PostgreSQL.

`Connections` keeps the few connections of one client. `Connections.retrying` runs a piece of work again when the server
was lost on the way, so what it is given must give the same result when it is done twice.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from quayside.foundation.errors import ServiceUnavailableError, SettingsError, sentence

if TYPE_CHECKING:
    import psycopg

    from quayside.foundation.settings import Settings

CONNECT_TIMEOUT_SECONDS: Final = 10
#: An open transaction keeps claims waiting or, in `hold`, an attempt from being given up: a hung process loses it.
_OPTIONS: Final = "-c statement_timeout=30s -c idle_in_transaction_session_timeout=10min -c timezone=UTC"
#: How long a result is kept trying to reach a control database that restarts.
RESULT_PATIENCE_SECONDS: Final = 300.0
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})

Row = dict[str, Any]
Connection = Any  # psycopg.Connection[Row]; the name would load the driver
T = TypeVar("T")


def control_settings(settings: Settings) -> Settings:
    """The same settings with the control database as their PostgreSQL.

    Raises:
        SettingsError: LAKEBASE_HOST is set without LAKEBASE_USER.
    """
    if settings.lakebase_host is None:
        return settings
    from urllib.parse import quote

    from pydantic import SecretStr

    if settings.lakebase_user is None:
        raise SettingsError(
            "LAKEBASE_HOST is set and LAKEBASE_USER is not: set it to the control database's user."
        )
    host = settings.lakebase_host
    local = host in _LOOPBACK or host.startswith("/")
    password = settings.lakebase_password
    account = quote(settings.lakebase_user, safe="")
    if password is not None:
        account += ":" + quote(password.get_secret_value(), safe="")
    place = f"[{host}]" if ":" in host else quote(host, safe="")
    url = f"postgresql://{account}@{place}:{settings.lakebase_port}/{quote(settings.lakebase_database, safe='')}"
    secret = SecretStr(url + ("" if local else "?sslmode=require"))
    values: dict[str, Any] = dict(settings) | {"database_url": secret}
    return _control_class().model_construct(settings.model_fields_set, **values)


@cache
def _control_class() -> type[Settings]:
    from quayside.foundation.settings import Settings

    class ControlSettings(Settings):
        """Settings whose errors name the variables that lead to the control database."""

        database_variable: ClassVar[str] = "the LAKEBASE variables"

    return ControlSettings


class Connections:
    """The connections of one process to the control database, opened when needed and used again. Threads may share it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._idle: list[tuple[float, Connection]] = []
        self._lock = threading.Lock()
        self._pid = os.getpid()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A connection in a transaction, committed at the end of the block, rolled back when it raises.

        Raises:
            ServiceUnavailableError: the server does not answer or went away.
        """
        with self._borrowed() as con, con.transaction():
            yield con

    def retrying(
        self, work: Callable[[Connection], T], patience_seconds: float = RESULT_PATIENCE_SECONDS
    ) -> T:
        """`work` in a transaction, again after a pause when the server was lost or gave up, until `patience_seconds`."""
        deadline = time.monotonic() + patience_seconds
        pause = 0.1
        while True:
            try:
                with self.transaction() as con:
                    return work(con)
            except ServiceUnavailableError:
                if time.monotonic() + pause > deadline:
                    raise
                time.sleep(pause)
                pause = min(pause * 2, 5.0)

    def close(self) -> None:
        """Close what is idle."""
        with self._lock:
            idle, self._idle = self._idle, []
        for _, con in idle:
            con.close()

    @contextmanager
    def _borrowed(self) -> Iterator[Connection]:
        import psycopg

        con = self.take()
        try:
            yield con
        except psycopg.Error as error:
            gave_up = con.broken or isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
            self.give_back(con)
            if not gave_up:
                raise
            # Lost connections, shut-downs, time-outs, deadlocks: all of it may go better another time.
            raise ServiceUnavailableError(
                f"The control database gave up: {sentence(error).rstrip('.')}. Look at it with `quayside doctor`."
            ) from error
        except BaseException:
            self.give_back(con)
            raise
        self.give_back(con)

    def take(self) -> Connection:
        """A connection that answers, in autocommit; to be given back with `give_back`."""
        if self._pid != os.getpid():  # a fork: the parent's connections are not ours to use or close
            self._idle, self._lock, self._pid = [], threading.Lock(), os.getpid()
        while True:
            with self._lock:
                since, con = self._idle.pop() if self._idle else (0.0, None)
            if con is None:
                return self._open()
            if time.monotonic() - since < 1.0 or _answers(con):
                return con
            con.close()

    def give_back(self, con: Connection) -> None:
        """Keep a connection for the next use; one in a transaction or broken is closed."""
        from psycopg.pq import TransactionStatus

        if con.closed or con.info.transaction_status != TransactionStatus.IDLE or self._pid != os.getpid():
            con.close()
            return
        with self._lock:
            self._idle.append((time.monotonic(), con))

    def _open(self) -> Connection:
        from psycopg.rows import dict_row

        from quayside.dataloader.schema import SCHEMA
        from quayside.foundation.audit import actor
        from quayside.foundation.postgres import connect, ensure_schema

        con: psycopg.Connection[Any] = connect(
            control_settings(self._settings),
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            autocommit=True,
            row_factory=dict_row,
            application_name="quayside dataloader control",
            options=_OPTIONS,
        )
        try:
            ensure_schema(self._settings, SCHEMA, con)
            con.execute("SELECT set_config('control.changed_by', %s, false)", [actor()])
        except BaseException:
            con.close()
            raise
        return con


def _answers(con: Connection) -> bool:
    import psycopg

    try:
        con.execute("SELECT 1")
    except psycopg.Error:
        return False
    return True
