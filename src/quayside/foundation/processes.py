"""Servers that outlive the command that started them: file locks, detached start, what is left of a dead one.

Liveness is a lock, not a process id. A server inherits an open, flock-ed file and so do all its children; the kernel
lets go of it when the last of them is gone, whatever killed them. So "does anything of this server still run?" has an
answer that neither a stale pid file nor a pid given to another process can spoil.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quayside.foundation.errors import ServiceUnavailableError

#: What a server sees of our environment: nothing that could change its behaviour (PGDATA, LD_PRELOAD …), and no secret,
#: which would stay readable in its process for weeks.
CLEAN_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}

# The server's parent ends at once, so nobody has to wait for it and it belongs to no terminal. `exec` keeps the
# inherited lock in the server alone. The shell makes it ignore SIGINT and SIGQUIT until it handles them itself.
_DETACH = 'log=$1; shift; exec "$@" </dev/null >>"$log" 2>&1 &'


@dataclass(frozen=True)
class Account:
    """The system user a server runs as when we are root."""

    name: str
    uid: int
    gid: int


def say(message: str) -> None:
    """Tell the person what is made on their machine. Standard error, so that results stay clean."""
    sys.stderr.write(f"quayside: {message}\n")
    sys.stderr.flush()


def as_account(account: Account | None) -> dict[str, Any]:
    """Arguments of `subprocess.Popen` that run a command as that account (None: as ourselves)."""
    return {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": []}


def can_run(command: Sequence[str], account: Account) -> bool:
    """Whether the account may run a command and that succeeds: asked of the kernel, as that account."""
    try:
        done = subprocess.run(command, check=False, capture_output=True, cwd="/", **as_account(account))
    except PermissionError:  # from exec; or from setuid, in a container that took the capability away
        return False
    return done.returncode == 0


def private_folder(path: Path, account: Account | None = None, mode: int = 0o700) -> None:
    """Create one folder with exactly this mode, owned by ``account``. An existing one is left as it is.

    Folders above it that are missing are made so that nobody else can list them; as root, whose PostgreSQL runs as
    another user, they can be passed through.
    """
    if path.is_dir():
        return
    if not path.parent.exists():
        private_folder(path.parent, mode=0o711 if os.geteuid() == 0 else 0o700)
    path.mkdir(exist_ok=True, mode=mode)
    path.chmod(mode)
    if account is not None:
        os.chown(path, account.uid, account.gid)


def try_lock(path: Path) -> int | None:
    """An open file descriptor that holds the lock, inheritable on request; None when somebody else holds it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def is_locked(path: Path) -> bool:
    """Whether any process holds the lock. Creates nothing."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


@contextmanager
def locked(path: Path, what: str, wait_seconds: float) -> Iterator[None]:
    """Hold a file lock.

    Raises:
        ServiceUnavailableError: somebody else held it for longer than ``wait_seconds``.
    """
    fd: int | None = None

    def take() -> bool:
        nonlocal fd
        fd = try_lock(path)
        return fd is not None

    taken = wait_until(take, wait_seconds)
    if not taken or fd is None:
        raise ServiceUnavailableError(
            f"Another process has been busy with {what} for {wait_seconds:.0f} s ({path})."
        )
    try:
        yield
    finally:
        os.close(fd)


def wait_until(condition: Callable[[], bool], seconds: float, every: float = 0.01) -> bool:
    """Whether ``condition`` came true within ``seconds``; asked at growing intervals, up to 0.1 s."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(every)
        every = min(every * 1.5, 0.1)
    return True


def start_detached(
    command: Sequence[str | os.PathLike[str]],
    *,
    log: Path,
    lock: int,
    folder: Path,
    account: Account | None = None,
) -> None:
    """Start a server in a session of its own, its output appended to ``log``, holding the lock ``lock``.

    Returns at once. The server died early when the lock is free again.
    """
    subprocess.run(
        ["/bin/sh", "-c", _DETACH, "sh", str(log), *map(str, command)],
        check=True,
        pass_fds=(lock,),
        start_new_session=True,
        cwd=folder,
        env=CLEAN_ENVIRONMENT,
        umask=0o077,
        **as_account(account),
    )


def processes_in(folder: Path, deleted: bool = False) -> list[int]:
    """Ids of the processes whose working directory is ``folder``; with ``deleted``, was until it was deleted.

    Sees what this user may see, and nothing where there is no /proc.
    """
    wanted = f"{folder.resolve()}{' (deleted)' if deleted else ''}"
    found: list[int] = []
    for entry in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if str(entry.readlink()) == wanted:
                found.append(int(entry.parts[2]))
        except OSError:  # it ended meanwhile, or is not ours to look at
            continue
    return found


def end_processes(pids: Sequence[int], how: signal.Signals, wait_seconds: float = 10) -> None:
    """Send a signal, kill what it did not end in time, and wait until all are gone."""

    for what in (how, signal.SIGKILL):
        for pid in filter(_lives, pids):
            with suppress(ProcessLookupError):
                os.kill(pid, what)
        if wait_until(lambda: not any(map(_lives, pids)), wait_seconds):
            return


def _lives(pid: int) -> bool:
    """Whether a process exists and is more than an entry that its parent, in a container often lazy, has to collect."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def telling_line(*outputs: str) -> str:
    """The line of a server's output that says best why it did not start: the last with a fatal word, else the last."""
    lines = [line.strip() for output in outputs for line in output.splitlines() if line.strip()]
    words = ("FATAL", "PANIC", "rror", "ailed", "annot", "could not")
    telling = [line for line in lines if any(word in line for word in words)]
    return (telling or lines or ["it wrote nothing to its log"])[-1]
