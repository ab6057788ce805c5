"""What the embedded PostgreSQL and Valkey have in common: started by whoever needs them, alive until they are stopped.

Two locks make that safe for any number of processes and any way to die. ``server.lock`` is held by the process that
makes or starts the server, by the helpers it runs for that, and then by the server and its children: free means that
nothing of them lives. ``start.lock`` is held while one process starts or stops it. Neither needs cleaning up.
"""

from __future__ import annotations

import os
import secrets
import signal
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from quayside.foundation import processes
from quayside.foundation.errors import ServiceUnavailableError, SettingsError

START_SECONDS: Final = 120.0  # recovery after a crash takes its time
STOP_SECONDS: Final = 60.0


@dataclass(frozen=True)
class ServerStatus:
    """What ``quayside db status`` shows of a server. Sizes in bytes; None where nothing runs or exists."""

    running: bool
    pid: int | None
    version: str | None
    folder: Path
    address: str | None
    size_bytes: int | None


class EmbeddedServer(ABC):
    """A server that belongs to one QUAYSIDE_HOME. Creating the object touches nothing.

    Attributes:
        label: what the server is called in messages.
        quick_end: signal that ends it without writing anything any more.
        home: its folder in QUAYSIDE_HOME.
    """

    label: ClassVar[str]
    quick_end: ClassVar[signal.Signals]

    def __init__(self, home: Path) -> None:
        self.home = home

    @property
    def folder(self) -> Path:
        """Where the server's files are."""
        return self.home

    @property
    def data(self) -> Path:
        """The server's working folder."""
        return self.folder / "data"

    @property
    def lock(self) -> Path:
        """Held by the living server."""
        return self.folder / "server.lock"

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether the server takes connections now. Takes well under a millisecond, starts nothing."""

    @abstractmethod
    def _status(self) -> ServerStatus:
        """See `status`."""

    @abstractmethod
    def _launch(self, lock: int) -> None:
        """Prepare what is missing and start the server detached; it and every helper inherit ``lock``."""

    @abstractmethod
    def _ask_to_stop(self) -> None:
        """Tell the running server to end, cutting its clients off."""

    @abstractmethod
    def _reason(self) -> str:
        """What the log says about a start that failed."""

    def start(self) -> bool:
        """Make sure the server runs, creating it if it does not exist. Safe from many processes at once.

        Returns:
            Whether this call started it.

        Raises:
            ServiceUnavailableError: it did not start; the sentence carries the telling line of its log.
            SettingsError: the folder cannot be used by this user.
        """
        with self._permissions():
            if self.is_ready():
                return False
            # Root's PostgreSQL runs as another user, who has to pass through this folder.
            processes.private_folder(self.home, mode=0o711 if os.geteuid() == 0 else 0o700)
            with processes.locked(self.home / "start.lock", f"starting {self.label}", START_SECONDS):
                return self._start()

    def stop(self) -> bool:
        """Stop the server and wait for its end.

        Returns:
            Whether it ran.

        Raises:
            ServiceUnavailableError: it did not end in time.
        """
        with self._permissions():
            stopped = self._end_abandoned()
            if not processes.is_locked(self.lock):
                return stopped
            with processes.locked(self.home / "start.lock", f"starting {self.label}", START_SECONDS):
                self._ask_to_stop()
                if not processes.wait_until(lambda: not processes.is_locked(self.lock), STOP_SECONDS):
                    raise ServiceUnavailableError(
                        f"{self.label} in {self.data} did not stop within {STOP_SECONDS:.0f} s; see {self.folder}."
                    )
        return True

    def status(self) -> ServerStatus:
        """What runs, and where. Starts nothing.

        Raises:
            SettingsError: the folder cannot be read by this user.
        """
        with self._permissions():
            return self._status()

    @contextmanager
    def _permissions(self) -> Iterator[None]:
        """Turns what the file system refuses into one sentence."""
        try:
            yield
        except (PermissionError, NotADirectoryError, FileExistsError) as error:
            raise SettingsError(
                f"The embedded {self.label} cannot use {error.filename or self.home}: {error.strerror}. Set "
                "QUAYSIDE_HOME to a folder of your own, or run as the user it belongs to."
            ) from None

    def _start(self) -> bool:
        self._end_abandoned()
        lock = self._lock_server()
        if lock is None:
            return False
        try:
            self._launch(lock)
        finally:
            os.close(lock)
        if not self._await_ready():
            raise ServiceUnavailableError(
                f"The embedded {self.label} in {self.data} did not start: {self._reason()}"
            )
        return True

    def _lock_server(self) -> int | None:
        """The lock that says a server lives here; None when one turned out to be ready.

        Waits for one that is starting or stopping, and for what a killed one left behind.
        """
        lock: int | None = None

        def settled() -> bool:
            nonlocal lock
            lock = processes.try_lock(self.lock)
            return lock is not None or self.is_ready()

        if not processes.wait_until(settled, START_SECONDS):
            raise ServiceUnavailableError(
                f"{self.label} in {self.data} runs but takes no connections: {self._reason()}"
            )
        return lock

    def _await_ready(self) -> bool:
        """Whether the server just launched takes connections; False as soon as it has died."""
        processes.wait_until(lambda: self.is_ready() or not processes.is_locked(self.lock), START_SECONDS)
        return self.is_ready()

    def _end_abandoned(self) -> bool:
        """End a server whose folder was deleted under it: nobody can reach it, and at its end it would remove files
        (its socket) that by now belong to another."""
        pids = processes.processes_in(self.data, deleted=True)
        processes.end_processes(pids, self.quick_end)
        return bool(pids)


def read(path: Path) -> str | None:
    """Content of a small file; None when there is none."""
    try:
        return path.read_text("utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None


def write(path: Path, text: str) -> None:
    """Replace a small private file at once, so that nobody reads half of it. Root gives it to its folder's owner."""
    new = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    new.touch(mode=0o600, exist_ok=False)
    new.write_text(text, "utf-8")
    if os.geteuid() == 0:
        folder = path.parent.stat()
        os.chown(new, folder.st_uid, folder.st_gid)
    new.replace(path)


def tail(log: Path, start: int = 0, size: int = 20_000) -> str:
    """At most the last ``size`` bytes of a log, and none before ``start``."""
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(start, log.stat().st_size - size))
        return file.read().decode("utf-8", "replace")


def size_bytes(folder: Path) -> int | None:
    """Bytes of all files below a folder that a running server changes; None when there is no such folder."""
    if not folder.is_dir():
        return None
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118 - thousands of files
            except FileNotFoundError:
                continue
    return total
