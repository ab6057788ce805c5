"""The launcher's side of its fork servers: start one per code location and loaded version, keep it, let it go."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from quayside.foundation.dagster.launcher import protocol
from quayside.foundation.dagster.launcher.processes import Records, end_session
from quayside.foundation.dagster.launcher.server import Task

if TYPE_CHECKING:
    from quayside.foundation.dagster.launcher.protocol import Message

LOGGER = logging.getLogger("dagster.warm_launcher")

#: A location that could not be warmed is tried again after this long, in seconds; sooner when it was loaded anew.
RETRY_SECONDS: Final = 300.0
#: One whose files change while it is loaded: somebody is at work on them, or loading writes them.
CHANGING_SECONDS: Final = 30.0
#: How many servers one launch tries because files changed under the one before.
_ATTEMPTS: Final = 2


class CannotWarmError(Exception):
    """Runs of this location cannot be forked here; the text says why."""


@dataclass(frozen=True)
class Version:
    """One loaded version of a code location: what a server is for. All but `location` as Dagster serializes them."""

    location: str
    origin: str
    server_id: str
    load_data: str | None
    executable: str
    folder: str | None


@dataclass
class Options:
    """The launcher's configuration, in seconds and MB; see `WarmRunLauncher.config_type`."""

    idle_seconds: float
    grace_seconds: float
    start_seconds: float
    max_memory_mb: float
    mirror_logs: bool
    preload: list[str]
    base_folder: str | None


@dataclass
class _Server:
    version: Version
    process: subprocess.Popen[bytes]
    lifeline: socket.socket  # closed when we end, by whatever cause: the server then ends after its runs
    socket: str
    memory_mb: float
    used_at: float = field(default_factory=time.monotonic)


class Servers:
    """All fork servers of one launcher. Thread-safe: the daemon launches from several threads."""

    def __init__(self, options: Options, instance_ref: str) -> None:
        self._options = options
        self._instance_ref = instance_ref
        self.folder = runtime_folder(options.base_folder)
        self.records = Records(self.folder / "runs")
        self.records.sweep()
        _remove_dead_sockets(self.folder)
        self._servers: dict[Version, _Server] = {}
        self._refused: dict[Version, tuple[str, float]] = {}
        self._lock = threading.Lock()
        self._starting: dict[Version, threading.Lock] = {}

    def run(self, version: Version, run_id: str, serialized_run: str, linger: float = 0.0) -> None:
        """Fork a process for a run, and wait up to ``linger`` seconds for its end.

        Raises:
            CannotWarmError: it cannot be done here, now or for some minutes.
        """
        message = {"what": "run", "run_id": run_id, "run": serialized_run, "linger": linger > 0}
        reason = ""
        for _ in range(_ATTEMPTS):
            server = self._server(version)
            try:
                reply = protocol.request(server.socket, message, linger=linger)
            except protocol.NoServerError as error:
                if self.records.find(run_id) is not None:
                    return  # forked, and killed before it could say so
                reply = {"stale": str(error)}
            if "pid" in reply:
                server.used_at = time.monotonic()
                return
            if "error" in reply:
                LOGGER.warning("Run %s could not be forked: %s.", run_id, reply["error"])
                raise CannotWarmError(reply["error"])
            reason = reply["stale"]
            LOGGER.info("The warm server of %s starts anew: %s.", version.location, reason)
            self._forget(server)
        raise self._refuse(version, f"its server had to start anew {_ATTEMPTS} times in a row: {reason}")

    def release(self) -> None:
        """Let all servers end once their runs have."""
        with self._lock:
            servers, self._servers = list(self._servers.values()), {}
        for server in servers:
            server.lifeline.close()

    def runs(self) -> list[str]:
        """Ids of the runs our servers have going now."""
        with self._lock:
            servers = list(self._servers.values())
        going: list[str] = []
        for server in servers:
            try:
                going += protocol.request(server.socket, {"what": "status"})["runs"]
            except protocol.NoServerError:
                self._forget(server)
        return going

    def _server(self, version: Version) -> _Server:
        with self._lock:
            server = self._servers.get(version)
            if server is not None and server.process.poll() is None:
                return server
            starting = self._starting.setdefault(version, threading.Lock())
        with starting:
            with self._lock:
                server = self._servers.get(version)
                if server is not None and server.process.poll() is None:
                    return server
                refused = self._refused.get(version)
            if server is not None:
                self._forget(server)
            if refused is not None and time.monotonic() < refused[1]:
                raise CannotWarmError(refused[0])
            self._retire_older(version)
            server = self._start(version)
            with self._lock:
                self._servers[version] = server
                self._refused.pop(version, None)
            self._bound_memory(server)
            return server

    def _start(self, version: Version) -> _Server:
        runtime_folder(self._options.base_folder)  # somebody may have cleaned up there
        path = str(self.folder / f"{os.getpid()}-{os.urandom(4).hex()}.sock")
        task = Task(
            socket=path,
            records=str(self.records.folder),
            location=version.location,
            origin=version.origin,
            instance_ref=self._instance_ref,
            load_data=version.load_data,
            idle_seconds=self._options.idle_seconds,
            grace_seconds=self._options.grace_seconds,
            # `dagster dev` is one person's session: what it started ends with it, as with the default launcher.
            cancel_with_launcher=bool(os.environ.get("DAGSTER_IS_DEV_CLI")),
            mirror_logs=self._options.mirror_logs,
            preload=self._options.preload,
        )
        if sys.platform != "linux":
            raise self._refuse(version, "this is not Linux")
        if not Path(version.executable).exists():
            raise self._refuse(version, f"its interpreter {version.executable} does not exist here")
        begun = time.monotonic()
        ours, theirs = socket.socketpair()
        try:
            process = subprocess.Popen(
                [version.executable, "-m", f"{__package__}.serve", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                cwd=version.folder,
            )
        except OSError as error:
            ours.close()
            raise self._refuse(version, f"its folder or interpreter cannot be used: {error}") from None
        finally:
            theirs.close()
        reply = self._await_ready(process, ours, asdict(task))
        if "ready" not in reply:
            ours.close()
            end_session(process.pid, signal.SIGKILL)  # what its code has started as well
            process.kill()
            process.wait()
            raise self._refuse(version, _why(reply))
        memory = reply["memory"]
        LOGGER.info(
            "Warm server of %s ready after %.1f s (pid %d, %.0f MB, of which %.0f private).",
            version.location,
            time.monotonic() - begun,
            process.pid,
            memory["proportional"],
            memory["private"],
        )
        # Reaps the server whenever it ends, so that no zombie waits for the next launch.
        threading.Thread(target=process.wait, name=f"warm-server-{process.pid}", daemon=True).start()
        return _Server(version, process, ours, path, memory["proportional"])

    def _await_ready(self, process: subprocess.Popen[bytes], ours: socket.socket, task: Message) -> Message:
        ours.settimeout(self._options.start_seconds)
        try:
            protocol.send(ours, task)
            reply = protocol.receive(ours)
        except TimeoutError:
            return {"error": f"it did not load within {self._options.start_seconds:.0f} s"}
        except (BrokenPipeError, ConnectionResetError):
            reply = None
        if reply is None:
            return {"error": f"its server ended with exit code {process.wait()}; its output says why"}
        return reply

    def _refuse(self, version: Version, reason: str, seconds: float = RETRY_SECONDS) -> CannotWarmError:
        """Remember that a version cannot be warmed, and say so once."""
        with self._lock:
            known = self._refused.get(version)
            self._refused[version] = (reason, time.monotonic() + seconds)
        if known is None or known[0] != reason:
            LOGGER.warning(
                "Runs of code location %s are started by Dagster's default launcher, which takes seconds each: %s.",
                version.location,
                reason,
            )
        return CannotWarmError(reason)

    def _retire_older(self, version: Version) -> None:
        """Servers of the location as it was before: their runs end, no new ones start."""
        with self._lock:
            older = [s for s in self._servers.values() if s.version.location == version.location]
            older = [s for s in older if s.version.server_id != version.server_id]
            for refused in [v for v in self._refused if v.location == version.location and v != version]:
                del self._refused[refused]
        for server in older:
            self._forget(server)

    def _bound_memory(self, newest: _Server) -> None:
        """Let the servers unused for longest go while all together take more than they may."""
        with self._lock:
            by_use = sorted(self._servers.values(), key=lambda server: server.used_at)
            total = sum(server.memory_mb for server in by_use)
        for server in by_use:
            if total <= self._options.max_memory_mb or server is newest:
                return
            LOGGER.info(
                "The warm server of %s makes room (%.0f MB).", server.version.location, server.memory_mb
            )
            total -= server.memory_mb
            self._forget(server)

    def _forget(self, server: _Server) -> None:
        with self._lock:
            if self._servers.get(server.version) is server:
                del self._servers[server.version]
        server.lifeline.close()


def runtime_folder(base: str | None) -> Path:
    """The folder of sockets and run records: this user's alone, on a local disk, the same for every process here.

    Raises:
        PermissionError: somebody else made a folder of that name.
    """
    parent = base or os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    folder = Path(parent) / f"dagster-warm-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(
            f"{folder} must belong to user {os.getuid()} and be closed to others; remove it."
        )
    (folder / "runs").mkdir(mode=0o700, exist_ok=True)
    return folder


def _remove_dead_sockets(folder: Path) -> None:
    """What killed servers left. A living one answers even while it is busy."""
    for path in folder.glob("*.sock"):
        try:
            protocol.request(str(path), {"what": "status"})
        except protocol.NoServerError:
            path.unlink(missing_ok=True)


def _why(reply: Message) -> str:
    if "open" in reply:
        return (
            "loading it leaves open what a fork would break: "
            + ", ".join(reply["open"])
            + ". Open it inside an op or a "
            "resource instead of at import"
        )
    return f"it cannot be loaded beside the launcher ({reply['error']})"
