"""The embedded PostgreSQL: made on first use, started by whoever needs it, alive until ``quayside db stop``.

It listens on a Unix socket alone, in a folder only its user may enter; so it needs no password, and no other user of
the machine and nobody on the network can reach it. Files, in ``QUAYSIDE_HOME/postgres`` or, for root whose server
user cannot reach that, in ``/var/lib/quayside/<id>``:

``data`` the cluster · ``run`` the socket · ``log`` one file per weekday · ``server.lock`` held by the living server
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
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from quayside.foundation import processes
from quayside.foundation.errors import PermanentError, ServiceUnavailableError, SettingsError
from quayside.foundation.postgres import account as accounts
from quayside.foundation.processes import Account, say

NAME: Final = "quayside"  # of the database and of its owner
START_SECONDS: Final = 120.0  # crash recovery of a large write-ahead log takes its time
STOP_SECONDS: Final = 60.0
_SOCKET_FILE: Final = ".s.PGSQL.5432"
_SOCKET_PATH_LIMIT: Final = 107 - len(f"/{_SOCKET_FILE}.lock")  # sun_path is 108 bytes with its NUL
# libpq takes a comma in a host for a list of hosts, and PostgreSQL one in its setting for a list of folders.
_PLAIN_PATH: Final = re.compile(r"[\w./+-]+", re.ASCII)

_SERVER_SETTINGS: Final = {
    "listen_addresses": "",
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

_INITDB_OPTIONS: Final = (
    f"--username {NAME} --auth trust --encoding UTF8 --locale C --locale-provider builtin --builtin-locale C.UTF-8"
    " --no-instructions"
).split()


@dataclass(frozen=True)
class ServerStatus:
    """What ``quayside db status`` shows of a server."""

    running: bool
    pid: int | None
    version: str | None
    folder: Path
    socket: Path | None
    size_bytes: int | None


class EmbeddedPostgres:
    """The server that belongs to one QUAYSIDE_HOME. Creating the object touches nothing."""

    def __init__(self, home: Path) -> None:
        self.home = home / "postgres"

    # -- where things are ------------------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        """Where the server's files are."""
        identifier = _read(self.home / "location")
        if identifier is None:
            return self.home
        if not re.fullmatch(r"[0-9a-f]{16}", identifier):
            raise SettingsError(f"{self.home / 'location'} is damaged: it must hold 16 hexadecimal digits.")
        return accounts.SYSTEM_FOLDER / identifier

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def socket_folder(self) -> Path:
        """``run`` beside the data, or a private temporary folder where that path is too long for a socket."""
        folder = self.folder
        elsewhere = _read(folder / "socket")
        return folder / "run" if elsewhere is None else Path(elsewhere)

    @property
    def url(self) -> str:
        """libpq URL of the database; no password, the folder is the protection."""
        return f"postgresql://{NAME}@/{NAME}?host={quote(str(self.socket_folder), safe='')}"

    # -- state -----------------------------------------------------------------------------------------------------

    def is_ready(self) -> bool:
        """Whether the server takes connections now. Well under a millisecond; starts nothing.

        Raises:
            SettingsError: the socket's folder is not the server's own.
        """
        lines = self._pid_file()
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

    def status(self) -> ServerStatus:
        """What runs, and where. Starts nothing."""
        running = self.is_ready()
        lines = self._pid_file()
        version = _read(self.data / "PG_VERSION")
        return ServerStatus(
            running=running,
            pid=int(lines[0]) if running else None,
            version=version,
            folder=self.folder,
            socket=self.socket_folder / _SOCKET_FILE if running else None,
            size_bytes=_size_bytes(self.data) if version else None,
        )

    # -- start and stop --------------------------------------------------------------------------------------------

    def start(self) -> bool:
        """Make sure the server runs; made first if it does not exist. Safe to call from many processes at once.

        Returns:
            Whether this call started it.

        Raises:
            ServiceUnavailableError: it did not start; the sentence carries the telling line of its log.
            SettingsError: the folder or the system user cannot be used.
        """
        if self.is_ready():
            return False
        try:
            processes.private_folder(self.home, mode=0o711 if os.geteuid() == 0 else 0o700)
            with processes.locked(self.home / "start.lock", "starting PostgreSQL", START_SECONDS) as starting:
                return self._start(starting)
        except PermissionError as error:
            raise SettingsError(
                f"The embedded PostgreSQL cannot use {error.filename or self.home}: permission denied. Run as the user "
                "it belongs to, or set QUAYSIDE_HOME to a folder of your own."
            ) from None

    def stop(self) -> bool:
        """Stop the server and wait for its end: sessions are cut, their open transactions rolled back.

        Returns:
            Whether it ran.

        Raises:
            ServiceUnavailableError: it did not end in time.
        """
        if not self.home.is_dir():
            return False
        with processes.locked(self.home / "start.lock", "starting PostgreSQL", START_SECONDS):
            lock = self.folder / "server.lock"
            if not processes.is_locked(lock):
                return False
            postmaster = self._postmaster()
            if postmaster is not None:
                os.kill(postmaster, signal.SIGINT)  # PostgreSQL's "fast" shutdown
            if not processes.wait_until(lambda: not processes.is_locked(lock), STOP_SECONDS):
                raise ServiceUnavailableError(
                    f"PostgreSQL in {self.data} did not stop within {STOP_SECONDS:.0f} s."
                )
            return True

    def _start(self, starting: int) -> bool:
        self._choose_folder()
        folder = self.folder
        owner = accounts.server_account(self.data)
        if not self.data.is_dir():
            # Of a folder deleted under a running server: when that ends it would remove the new one's socket.
            processes.end_processes(processes.processes_in(self.data), signal.SIGQUIT, 10)
        lock = self._lock_server()
        if lock is None:
            return False
        try:
            self._prepare_socket_folder(owner)
            processes.private_folder(folder / "log", owner)
            binaries = accounts.binaries(owner)
            self._check_version(binaries)
            if not self.data.is_dir():
                self._create(binaries, owner, starting)
            self._clear_stale()
            self._launch(binaries, owner, lock)
        finally:
            os.close(lock)
        self._await_ready()
        return True

    def _choose_folder(self) -> None:
        """As root, decide once whether the server's user can live in QUAYSIDE_HOME."""
        if os.geteuid() != 0 or (self.home / "location").exists() or (self.home / "data").exists():
            return
        owner = accounts.server_account(self.home / "data")
        assert owner is not None
        if self.home.stat().st_uid == 0 and accounts.can_enter(self.home, owner):
            return
        folder = accounts.new_folder(owner)
        _write(self.home / "location", folder.name)
        say(f"keeping PostgreSQL's data in {folder}, because user {owner.name} cannot enter {self.home}")

    def _lock_server(self) -> int | None:
        """The lock that says a server lives here; None when one turned out to be ready.

        Waits for one that is starting or stopping, and for what a killed postmaster left behind.
        """
        lock: int | None = None

        def settled() -> bool:
            nonlocal lock
            lock = processes.try_lock(self.folder / "server.lock")
            return lock is not None or self.is_ready()

        if not processes.wait_until(settled, START_SECONDS):
            raise ServiceUnavailableError(
                f"A PostgreSQL server in {self.data} runs but takes no connections: {self._reason()}"
            )
        return lock

    def _check_version(self, binaries: Path) -> None:
        made_by = _read(self.data / "PG_VERSION")
        if self.data.is_dir() and made_by is None:
            raise PermanentError(
                f"{self.data} is not a PostgreSQL data folder: move it away, a new one will be made."
            )
        ours = _major_version(binaries)
        if made_by is not None and made_by != ours:
            raise PermanentError(
                f"{self.data} was made by PostgreSQL {made_by} and the embedded one is {ours}: dump it with that "
                "version, move the folder away and restore."
            )

    def _create(self, binaries: Path, owner: Account | None, starting: int) -> None:
        """A new cluster under a temporary name, complete with its database, then renamed."""
        for leftover in self.folder.glob("data.new-*"):
            shutil.rmtree(leftover)
        say(f"creating an embedded PostgreSQL in {self.data}")
        new = self.folder / f"data.new-{secrets.token_hex(4)}"
        processes.private_folder(new, owner)
        # These inherit the start lock: if we are killed now, the next to start waits until they have ended too.
        self._run(
            [binaries / "initdb", "--pgdata", new, *_INITDB_OPTIONS, *_sync_method()],
            owner,
            starting,
        )
        _write(new / "pg_hba.conf", "local all all trust\nlocal replication all trust\n")
        self._run(
            [binaries / "postgres", "--single", "-D", new, "postgres"],
            owner,
            starting,
            f"CREATE DATABASE {NAME};\n",
        )
        new.rename(self.data)

    def _run(self, command: list[str | Path], owner: Account | None, keep: int, text: str = "") -> None:
        done = subprocess.run(
            list(map(str, command)),
            check=False,
            input=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            pass_fds=(keep,),
            cwd=self.folder,
            env=processes.CLEAN_ENVIRONMENT,
            umask=0o077,
            **processes.as_account(owner),  # pyright: ignore[reportArgumentType, reportCallIssue]
        )
        if done.returncode != 0:
            reason = processes.telling_line(done.stdout)
            raise ServiceUnavailableError(
                f"The embedded PostgreSQL could not be created in {self.data}: {reason}"
            )

    def _clear_stale(self) -> None:
        """Forget the process id of a dead server when another process has it now: PostgreSQL would refuse to start.

        We hold the server's lock, so no server started by us lives. One started by hand is left to PostgreSQL's own check.
        """
        if self._pid_file() and self._postmaster() is None:
            (self.data / "postmaster.pid").unlink(missing_ok=True)
        if self._postmaster() is None:
            for leftover in (_SOCKET_FILE, f"{_SOCKET_FILE}.lock"):
                (self.socket_folder / leftover).unlink(missing_ok=True)

    def _launch(self, binaries: Path, owner: Account | None, lock: int) -> None:
        settings = {
            **_SERVER_SETTINGS,
            "unix_socket_directories": str(self.socket_folder),
            "log_directory": str(self.folder / "log"),
        }
        options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
        first_log = self.folder / "log" / "start.log"
        first_log.unlink(missing_ok=True)
        processes.start_detached(
            [binaries / "postgres", "-D", self.data, *options],
            log=first_log,
            lock=lock,
            folder=self.folder,
            account=owner,
        )

    def _await_ready(self) -> None:
        lock = self.folder / "server.lock"
        processes.wait_until(lambda: self.is_ready() or not processes.is_locked(lock), START_SECONDS)
        if not self.is_ready():
            raise ServiceUnavailableError(
                f"The embedded PostgreSQL in {self.data} did not start: {self._reason()}"
            )

    def _reason(self) -> str:
        logs = sorted((self.folder / "log").glob("???.log"), key=lambda log: log.stat().st_mtime)
        return processes.telling_line(
            *(_tail(log) for log in [self.folder / "log" / "start.log", *logs[-1:]])
        )

    def _pid_file(self) -> list[str]:
        """Lines of ``postmaster.pid``: 1 the process id … 8 the state; empty when there is none."""
        return (_read(self.data / "postmaster.pid") or "").splitlines()

    def _postmaster(self) -> int | None:
        """The process id in the pid file, if that is a process that works in the data folder."""
        lines = self._pid_file()
        pid = int(lines[0]) if lines and lines[0].isdigit() else None
        return pid if pid in processes.processes_in(self.data) else None

    # -- the socket's folder ---------------------------------------------------------------------------------------

    def _prepare_socket_folder(self, owner: Account | None) -> None:
        folder = self.folder
        beside = folder / "run"
        if len(os.fsencode(beside)) <= _SOCKET_PATH_LIMIT and _PLAIN_PATH.fullmatch(str(beside)):
            (folder / "socket").unlink(missing_ok=True)
            processes.private_folder(beside, owner)
        elif not self.socket_folder.is_dir() or not (folder / "socket").exists():
            base = tempfile.gettempdir()
            if len(base) > _SOCKET_PATH_LIMIT - 20 or not _PLAIN_PATH.fullmatch(base):
                base = "/tmp"  # noqa: S108 - mkdtemp makes a private folder with a random name in it
            private = Path(tempfile.mkdtemp(prefix="quayside-", dir=base))
            if owner is not None:
                os.chown(private, owner.uid, owner.gid)
            _write(folder / "socket", str(private))
        self._refuse_foreign(self.socket_folder)

    def _refuse_foreign(self, folder: Path) -> None:
        """A socket in a folder that others can write to may be anybody's server."""
        try:
            found = folder.lstat()
            owner = self.data.stat().st_uid if self.data.is_dir() else None
        except FileNotFoundError:
            return
        private = stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o077
        if not private or owner not in (None, found.st_uid):
            raise SettingsError(
                f"{folder} should hold PostgreSQL's socket but is not a private folder of its owner; it is not used. "
                f"Remove it, or {self.folder / 'socket'} to choose another."
            )


def _read(path: Path) -> str | None:
    try:
        return path.read_text("utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _write(path: Path, text: str) -> None:
    """Replace a small file at once, so that nobody reads half of it."""
    new = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    new.write_text(text, "utf-8")
    if path.exists():
        shutil.copymode(path, new)
        owner = path.stat()
        os.chown(new, owner.st_uid, owner.st_gid)
    new.replace(path)


def _tail(log: Path, size: int = 20_000) -> str:
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - size))
        return file.read().decode("utf-8", "replace")


def _sync_method() -> list[str]:
    # One syncfs instead of an fsync for each of a thousand files: 0.5 s instead of up to 4. Linux alone has it.
    return ["--sync-method", "syncfs"] if os.uname().sysname == "Linux" else []


def _major_version(binaries: Path) -> str:
    done = subprocess.run([binaries / "postgres", "--version"], check=True, capture_output=True, text=True)
    return done.stdout.split()[-1].split(".")[0]


def _size_bytes(folder: Path) -> int:
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file())
