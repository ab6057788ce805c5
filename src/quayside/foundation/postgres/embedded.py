"""The embedded PostgreSQL.

It listens on a Unix socket alone, in a folder only its user may enter; so it needs no password, and no other user of
the machine and nobody on the network can reach it. Its files are in ``QUAYSIDE_HOME/postgres`` or, for root whose
server user cannot reach that, in ``/var/lib/quayside/<id>``:

``data`` the cluster · ``run`` its socket · ``log`` one file per weekday · ``server.lock`` held while it lives
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Final
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
from quayside.foundation.errors import PermanentError, ServiceUnavailableError, SettingsError
from quayside.foundation.postgres import account as accounts
from quayside.foundation.processes import Account, say

NAME: Final = "quayside"  # of the database and of its owner
_PORT: Final = 5432  # part of the socket's file name, nothing else
_SOCKET_FILE: Final = f".s.PGSQL.{_PORT}"
_SOCKET_PATH_LIMIT: Final = 107 - len(f"/{_SOCKET_FILE}.lock")  # sun_path is 108 bytes with its NUL
# libpq takes a comma in a host for a list of hosts, and PostgreSQL one in its setting for a list of folders.
_PLAIN_PATH: Final = re.compile(r"[\w./+-]+", re.ASCII)

_INITDB_OPTIONS: Final = (
    f"--username {NAME} --auth trust --encoding UTF8 --locale C --locale-provider builtin --builtin-locale C.UTF-8"
    " --no-instructions"
).split()
_HOST_BASED_AUTHENTICATION: Final = "local all all trust\nlocal replication all trust\n"

_SERVER_SETTINGS: Final = {
    "listen_addresses": "",
    "port": str(_PORT),
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "wal_level": "logical",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",
    # A week of logs, one file a day, each overwritten a week later.
    "logging_collector": "on",
    "log_filename": "%a.log",
    "log_rotation_age": "1d",
    "log_rotation_size": "0",
    "log_truncate_on_rotation": "on",
    "log_checkpoints": "off",
    # Statements can hold personal data; the client that sent one gets the error anyway.
    "log_min_error_statement": "panic",
}


class EmbeddedPostgres(EmbeddedServer):
    """The PostgreSQL server of one QUAYSIDE_HOME."""

    label = "PostgreSQL"
    quick_end = signal.SIGQUIT

    def __init__(self, home: Path) -> None:
        super().__init__(home / "postgres")
        self._old_logs: dict[Path, int] = {}  # sizes at the last start: `_reason` reads on from there

    @property
    def folder(self) -> Path:
        identifier = read(self.home / "location")
        if identifier is None:
            return self.home
        if not re.fullmatch(r"[0-9a-f]{16}", identifier):
            raise SettingsError(f"{self.home / 'location'} is damaged: it must hold 16 hexadecimal digits.")
        return accounts.SYSTEM_FOLDER / identifier

    @property
    def socket_folder(self) -> Path:
        """``run`` beside the data, or a private temporary folder where that path is too long for a socket."""
        folder = self.folder
        elsewhere = read(folder / "socket")
        return folder / "run" if elsewhere is None else Path(elsewhere)

    @property
    def url(self) -> str:
        """libpq URL of the database. No password: the folder is the protection. The port, because PGPORT may be set."""
        return f"postgresql://{NAME}@/{NAME}?host={quote(str(self.socket_folder), safe='')}&port={_PORT}"

    def is_ready(self) -> bool:
        lines = _pid_file(self.data)
        if len(lines) < 8 or lines[7].strip() != "ready":
            return False
        folder = self.socket_folder
        self._refuse_foreign(folder)
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(2)
            try:
                probe.connect(f"{folder}/{_SOCKET_FILE}")
            except OSError:
                return False
        return True

    def _status(self) -> ServerStatus:
        running = self.is_ready()
        return ServerStatus(
            running=running,
            pid=int(_pid_file(self.data)[0]) if running else None,
            version=read(self.data / "PG_VERSION"),
            folder=self.data,
            address=f"{self.socket_folder}/{_SOCKET_FILE}" if running else None,
            size_bytes=size_bytes(self.data),
        )

    # -- start and stop --------------------------------------------------------------------------------------------

    def _start(self) -> bool:
        if os.geteuid() == 0 and not self.data.exists() and not (self.home / "location").exists():
            self._end_abandoned()
            self._choose_folder()
        return super()._start()

    def _choose_folder(self) -> None:
        """As root, decide once whether the server's user can live in QUAYSIDE_HOME."""
        owner = accounts.server_account(self.data)
        assert owner is not None
        if self.home.stat().st_uid == 0 and accounts.can_enter(self.home, owner):
            return
        for earlier in accounts.folders_of(self.home):
            say(f"the data of an earlier {self.home} is still in {earlier}: delete it when nobody needs it")
        folder = accounts.new_folder(owner, self.home)
        write(self.home / "location", folder.name)
        say(f"keeping PostgreSQL's data in {folder}, because user {owner.name} cannot enter {self.home}")

    def _launch(self, lock: int) -> None:
        owner = accounts.server_account(self.data)
        binaries = accounts.binaries(owner)
        self._prepare_socket_folder(owner)
        logs = self.folder / "log"
        processes.private_folder(logs, owner)
        if self.data.is_dir():
            self._check_version(binaries)
        else:
            self._create(binaries, owner, lock)
        self._clear_stale()
        settings = _SERVER_SETTINGS | {
            "unix_socket_directories": str(self.socket_folder),
            "log_directory": str(logs),
        }
        (logs / "start.log").unlink(missing_ok=True)
        self._old_logs = {log: log.stat().st_size for log in logs.glob("???.log")}
        processes.start_detached(
            [binaries / "postgres", "-D", self.data]
            + [option for name, value in settings.items() for option in ("-c", f"{name}={value}")],
            log=logs / "start.log",
            lock=lock,
            folder=self.folder,
            account=owner,
        )

    def _ask_to_stop(self) -> None:
        postmaster = _postmaster(self.data)
        if postmaster is not None:
            # PostgreSQL's "fast" shutdown: sessions are cut, open transactions rolled back.
            os.kill(postmaster, signal.SIGINT)

    def _end_abandoned(self) -> bool:
        ended = super()._end_abandoned()
        if os.geteuid() == 0 and not (self.home / "location").exists():
            for folder in accounts.folders_of(self.home):
                # QUAYSIDE_HOME was deleted or moved away. Its data may still be wanted, its server is not.
                postmaster = _postmaster(folder / "data")
                if postmaster is not None:
                    processes.end_processes([postmaster], signal.SIGINT, STOP_SECONDS)
                    ended = True
        return ended

    def _check_version(self, binaries: Path) -> None:
        made_by = read(self.data / "PG_VERSION")
        if made_by is None:
            raise PermanentError(
                f"{self.data} is not a PostgreSQL data folder: move it away, a new one will be made."
            )
        version = subprocess.run(
            [binaries / "postgres", "--version"], check=True, capture_output=True, text=True
        ).stdout
        ours = version.split()[-1].split(".")[0]
        if made_by != ours:
            raise PermanentError(
                f"{self.data} was made by PostgreSQL {made_by} and the embedded one is {ours}: dump it with that "
                "version, move the folder away and restore."
            )

    def _create(self, binaries: Path, owner: Account | None, lock: int) -> None:
        """A new cluster under a temporary name, complete with its database, then renamed."""
        for leftover in self.folder.glob("data.new-*"):
            shutil.rmtree(leftover)
        say(f"creating an embedded PostgreSQL in {self.data}")
        new = self.folder / f"data.new-{secrets.token_hex(4)}"
        processes.private_folder(new, owner)
        # Both hold the lock: if we are killed now, the next to start waits until they have ended as well.
        self._run([binaries / "initdb", "--pgdata", new, *_INITDB_OPTIONS, *_sync_method()], owner, lock)
        write(new / "pg_hba.conf", _HOST_BASED_AUTHENTICATION)
        statement = f"CREATE DATABASE {NAME};\n"
        self._run([binaries / "postgres", "--single", "-D", new, "postgres"], owner, lock, statement)
        new.rename(self.data)

    def _run(self, command: list[str | Path], owner: Account | None, lock: int, text: str = "") -> None:
        done = subprocess.run(
            list(map(str, command)),
            check=False,
            input=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            pass_fds=(lock,),
            cwd=self.folder,
            env=processes.CLEAN_ENVIRONMENT,
            umask=0o077,
            **processes.as_account(owner),
        )
        if done.returncode != 0:
            reason = processes.telling_line(done.stdout)
            raise ServiceUnavailableError(
                f"The embedded PostgreSQL could not be created in {self.data}: {reason}"
            )

    def _clear_stale(self) -> None:
        """Forget the process id of a dead server when another process has it now: PostgreSQL would refuse to start.

        We hold the server's lock, so no server of ours lives. One started by hand is left to PostgreSQL's own check.
        """
        if _postmaster(self.data) is None:
            (self.data / "postmaster.pid").unlink(missing_ok=True)
            for leftover in (_SOCKET_FILE, f"{_SOCKET_FILE}.lock"):
                (self.socket_folder / leftover).unlink(missing_ok=True)

    def _reason(self) -> str:
        logs = [*(self.folder / "log").glob("???.log"), self.folder / "log" / "start.log"]
        return processes.telling_line(*(tail(log, self._old_logs.get(log, 0)) for log in logs))

    # -- the socket's folder ---------------------------------------------------------------------------------------

    def _prepare_socket_folder(self, owner: Account | None) -> None:
        folder = self.folder
        beside = folder / "run"
        if len(os.fsencode(beside)) <= _SOCKET_PATH_LIMIT and _PLAIN_PATH.fullmatch(str(beside)):
            (folder / "socket").unlink(missing_ok=True)
            processes.private_folder(beside, owner)
        elif not (folder / "socket").exists() or not os.path.lexists(self.socket_folder):
            base = tempfile.gettempdir()
            if len(base) > _SOCKET_PATH_LIMIT - 20 or not _PLAIN_PATH.fullmatch(base):
                base = "/tmp"  # noqa: S108 - mkdtemp makes a private folder with a random name in it
            private = Path(tempfile.mkdtemp(prefix="quayside-", dir=base))
            if owner is not None:
                os.chown(private, owner.uid, owner.gid)
            write(folder / "socket", str(private))
        self._refuse_foreign(self.socket_folder)

    def _refuse_foreign(self, folder: Path) -> None:
        """A socket in a folder that others can write to may be anybody's server."""
        try:
            found = folder.lstat()
        except FileNotFoundError:
            return
        owner = accounts.server_uid(self.data)
        if not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o077 or found.st_uid != owner:
            raise SettingsError(
                f"{folder} should hold PostgreSQL's socket but is not a private folder of its user; it is not used. "
                f"Remove it, or remove {self.folder / 'socket'} to have another one chosen."
            )


def _sync_method() -> list[str]:
    # One syncfs instead of an fsync for each of a thousand files: 0.5 s instead of up to 4. Linux alone has it.
    return ["--sync-method", "syncfs"] if os.uname().sysname == "Linux" else []


def _pid_file(data: Path) -> list[str]:
    """Lines of ``postmaster.pid``: 1 the process id … 8 the state; empty when there is none."""
    return (read(data / "postmaster.pid") or "").splitlines()


def _postmaster(data: Path) -> int | None:
    """The process id in the pid file, if that is a process that works in the data folder."""
    lines = _pid_file(data)
    pid = int(lines[0]) if lines and lines[0].isdigit() else None
    return pid if pid in processes.processes_in(data) else None
