"""The fork server: a code location's definitions, imported and resolved, ready to be forked once per run.

One process per code location and loaded version, single-threaded, started by the launcher. It reads its task from the
socket it is given as file descriptor, loads, makes sure that nothing is open that a fork would break, and then answers
requests until it is told to end, its launcher is gone and its runs have ended, or it was idle for long enough.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from quayside.foundation.dagster.launcher import openness, protocol
from quayside.foundation.dagster.launcher.processes import Process, Records, memory_mb
from quayside.foundation.dagster.launcher.protocol import Message
from quayside.foundation.dagster.launcher.sources import Sources
from quayside.foundation.dagster.launcher.table import Table

LOGGER = logging.getLogger("dagster.warm_launcher")

#: Imported beside what the location imports, because every run needs them and Dagster imports them late.
PRELOADED: Final = (
    "dagster._core.execution.api",
    "dagster._core.execution.plan.execute_step",
    "dagster._core.executor.in_process",
    "dagster._grpc.impl",
)
#: Metadata of a location's `Definitions`: a list of modules that its runs import late and its server is to import beforehand.
PRELOAD_KEY: Final = "warm_launcher/preload"


@dataclass(frozen=True)
class Task:
    """What the launcher asks a new server to be. `origin`, `instance_ref` and `load_data` are Dagster's serialized values."""

    socket: str
    records: str
    location: str
    origin: str
    instance_ref: str
    load_data: str | None
    idle_seconds: float
    grace_seconds: float
    cancel_with_launcher: bool
    mirror_logs: bool
    preload: list[str]


class Server:
    """See the module. `serve` returns when the server has nothing left to do."""

    def __init__(self, task: Task, launcher: socket.socket) -> None:
        from quayside.foundation.dagster.launcher.worker import Warm

        self._task = task
        self._launcher: socket.socket | None = launcher
        self._records = Records(Path(task.records))
        self._table = Table(task.grace_seconds)
        self._pids: dict[int, str] = {}
        self._asking: socket.socket | None = None
        self._lingering: dict[str, socket.socket] = {}  # who launched a run and waits a moment for its end
        self._sources = Sources()
        self._served = 0
        self._draining = False
        self._idle_since = time.monotonic()
        self._warden_pid = 0
        self._warden_since = 0.0
        self._warden: socket.socket | None = None
        self._unsent = bytearray()
        self._warm: Warm | None = None
        self._listener: socket.socket | None = None
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    # Loading

    def load(self) -> list[str]:
        """Import and resolve the location.

        Returns:
            What is open afterwards and forbids forking; empty when all is well.
        """
        import gc
        import importlib

        import dagster as dg
        from dagster._core.definitions.reconstruct import ReconstructableRepository
        from dagster._core.definitions.repository_definition import RepositoryLoadData
        from dagster._core.instance.ref import InstanceRef
        from dagster._core.origin import RepositoryPythonOrigin
        from dagster._serdes import deserialize_value

        from quayside.foundation.dagster.launcher.worker import Warm, close_connections

        task = self._task
        instance = dg.DagsterInstance.from_ref(deserialize_value(task.instance_ref, InstanceRef))
        instance.inject_env_vars(task.location)
        origin = deserialize_value(task.origin, RepositoryPythonOrigin)
        repository = ReconstructableRepository(
            origin.code_pointer,
            origin.container_image,
            origin.executable_path,
            origin.entry_point,
            origin.container_context,
        )
        with self._sources.recording():
            for name in PRELOADED:
                importlib.import_module(name)
            load_data = deserialize_value(task.load_data, RepositoryLoadData) if task.load_data else None
            definition = repository.with_repository_load_data(load_data).get_definition()
            definition.load_all_definitions()
            own = (definition.metadata or {}).get(PRELOAD_KEY)
            modules: Any = own.value if isinstance(own, dg.JsonMetadataValue) else []
            for name in [*task.preload, *modules]:
                try:
                    importlib.import_module(name)
                except ModuleNotFoundError as error:
                    LOGGER.warning("%s cannot be imported before runs of %s: %s.", name, task.location, error)
        # What every run asks first: its statement is compiled, and what the storage learns about its tables known, for all.
        with suppress(Exception):  # a database that is away now is the runs' matter
            instance.get_run_by_id("none")
        close_connections(instance)
        self._warm = Warm(instance, repository, self._records, task.socket, task.mirror_logs)
        found = openness.what_is_open(self._own_descriptors())
        # What exists now lives as long as the server: keep the collector, and so a copy of each page, out of it.
        gc.freeze()
        return found

    def _sockets(self) -> list[socket.socket]:
        own = (self._launcher, self._listener, self._warden, self._asking, *self._lingering.values())
        return [s for s in own if s is not None]

    def _own_descriptors(self) -> set[int]:
        return {s.fileno() for s in self._sockets()} | {self._wake_read, self._wake_write}

    def _close_own(self) -> None:
        """In a child: let go of what belongs to the server alone."""
        for own in self._sockets():
            own.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    # Serving

    def serve(self) -> None:
        """Answer until there is nothing left to do."""
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self._end())
        signal.signal(
            signal.SIGINT, signal.SIG_IGN
        )  # a terminal's Ctrl-C is for the launcher, which tells us
        self._listener = protocol.listen(self._task.socket)
        memory = memory_mb()  # before the warden shares half of it
        self._start_warden()
        assert self._launcher is not None
        self._idle_since = time.monotonic()  # loading does not count
        protocol.send(self._launcher, {"ready": True, "memory": memory})
        try:
            while not self._done():
                self._wait()
                self._reap()
                self._table.force_overdue()
        finally:
            Path(self._task.socket).unlink(missing_ok=True)
            if self._warden is not None:
                self._warden.close()
                os.waitpid(self._warden_pid, 0)

    def _done(self) -> bool:
        if not self._table.empty():
            return False
        return self._draining or time.monotonic() - self._idle_since >= self._task.idle_seconds

    def _wait(self) -> None:
        assert self._listener is not None
        waiting = [self._wake_read, self._listener, self._launcher]
        seconds = [self._table.next_deadline()]
        if not self._pids:
            seconds.append(max(0.0, self._idle_since + self._task.idle_seconds - time.monotonic()))
        ready, writable, _ = select.select(
            [source for source in waiting if source is not None],
            [self._warden] if self._unsent and self._warden is not None else [],
            [],
            min((s for s in seconds if s is not None), default=None),
        )
        if writable:
            self._flush_to_warden()
        for source in ready:
            if source == self._wake_read:
                with suppress(BlockingIOError):
                    os.read(self._wake_read, 4096)
            elif source is self._listener:
                self._accept()
            elif source is self._launcher:
                self._launcher_gone()

    def _accept(self) -> None:
        assert self._listener is not None
        while True:
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            connection.settimeout(2)
            self._asking = connection  # not to be held open by the run it asks for
            # A client that ends in the middle of its question or before the answer is its own loss.
            with suppress(OSError, ValueError):
                if (
                    protocol.from_own_user(connection)
                    and (message := protocol.receive(connection)) is not None
                ):
                    reply = self._answer(message)
                    protocol.send(connection, reply)
                    if "pid" in reply and message.get("linger"):
                        self._lingering[message["run_id"]], self._asking = connection, None
                        continue
            connection.close()
            self._asking = None

    def _answer(self, message: Message) -> Message:
        match message:
            case {"what": "run", "run": str(run), "run_id": str(run_id)}:
                return self._run(run, run_id)
            case {"what": "cancel", "run_id": str(run_id)}:
                return {"going": self._cancel(run_id)}
            case {"what": "end"}:
                self._draining = True
                return {"runs": len(self._pids)}
            case {"what": "status"}:
                return self._status()
            case _:
                return {
                    "error": f"{message.get('what')!r} is not a request of a fork server, or lacks something"
                }

    def _status(self) -> Message:
        return {
            "location": self._task.location,
            "pid": os.getpid(),
            "runs": sorted(self._table.runs),
            "served": self._served,
            "idle_seconds": 0 if self._pids else round(time.monotonic() - self._idle_since),
            "memory": memory_mb(),
            "warden_memory": memory_mb(self._warden_pid),
        }

    def _launcher_gone(self) -> None:
        assert self._launcher is not None
        if not self._launcher.recv(4096):
            self._launcher.close()
            self._launcher = None
            self._draining = True
            if self._task.cancel_with_launcher:
                self._cancel_all()

    def _end(self) -> None:
        self._draining = True
        self._cancel_all()

    def _cancel_all(self) -> None:
        for run_id in list(self._table.runs):
            self._cancel(run_id)

    def _cancel(self, run_id: str) -> bool:
        going = self._table.ask_to_end(run_id)
        if going:
            self._tell_warden({"what": "asked", "run_id": run_id})
        return going

    # Forking

    def _run(self, serialized_run: str, run_id: str) -> Message:
        if self._draining:
            return {"stale": "it is about to end"}
        if changed := self._sources.changed():
            self._draining = True
            return {"stale": f"{changed} has changed", "served": self._served}
        if (going := self._table.runs.get(run_id)) is not None:
            return {"pid": going.process.pid}
        # Nothing runs in here that could start one; looked at nevertheless, since a fork would not forgive it.
        if appeared := openness.threads():
            self._draining = True
            return {"stale": f"{appeared[0]} appeared in it"}
        try:
            child = self._fork(lambda: self._child(serialized_run))
        except OSError as error:
            return {"error": f"no process could be forked: {error.strerror}"}
        self._served += 1
        self._pids[child.pid] = run_id
        self._table.add(run_id, child)
        self._tell_warden({"what": "started", "run_id": run_id, "pid": child.pid, "started": child.started})
        return {"pid": child.pid}

    def _child(self, serialized_run: str) -> int:
        from dagster._core.storage.dagster_run import DagsterRun
        from dagster._serdes import deserialize_value

        from quayside.foundation.dagster.launcher import worker

        assert self._warm is not None
        code = worker.run_in_child(self._warm, deserialize_value(serialized_run, DagsterRun))
        worker.finish()
        return code

    def _fork(self, body: Callable[[], int]) -> Process:
        # A signal in between would run the server's handlers in the child.
        blocked = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT}
        signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
        try:
            pid = os.fork()
        except OSError:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked)
            raise
        if pid == 0:
            code = 1
            try:
                self._close_own()
                code = body()
            except BaseException:  # noqa: BLE001 - a child must never return into the server's loop; shown, and in its exit code
                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(code)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked)
        return Process.of(pid)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._warden_pid:
                if time.monotonic() - self._warden_since < 1:
                    time.sleep(1)  # whatever ends it at once is not to keep the processor busy
                self._start_warden()
                continue
            run_id = self._pids.pop(pid)
            self._idle_since = time.monotonic()
            self._records.remove(run_id, self._table.runs[run_id].process)
            self._table.remove(run_id)
            if (launched_by := self._lingering.pop(run_id, None)) is not None:
                launched_by.close()  # which says so to who waits for the end
            self._tell_warden({"what": "ended", "run_id": run_id, "code": os.waitstatus_to_exitcode(status)})

    # The warden

    def _start_warden(self) -> None:
        from quayside.foundation.dagster.launcher import warden

        assert self._warm is not None
        if self._warden is not None:
            self._warden.close()
        self._warden, theirs = socket.socketpair()
        self._warden.setblocking(False)
        self._unsent.clear()
        self._warden_since = time.monotonic()
        self._warden_pid = warden.start(
            theirs, self._warm.instance, self._records, self._task.grace_seconds, self._close_own
        )
        theirs.close()
        for run_id, going in self._table.runs.items():
            process = going.process
            self._tell_warden(
                {"what": "started", "run_id": run_id, "pid": process.pid, "started": process.started}
            )

    def _tell_warden(self, message: Message) -> None:
        self._unsent += json.dumps(message).encode() + b"\n"
        self._flush_to_warden()

    def _flush_to_warden(self) -> None:
        """Send what its socket takes now: a warden that waits for the database must not make the server wait."""
        assert self._warden is not None
        with suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            # When it has ended, `_reap` starts another and tells it what is going on.
            del self._unsent[: self._warden.send(self._unsent)]


def main() -> None:
    """``python -m quayside.foundation.dagster.launcher.serve FD``: the socket to the launcher is descriptor FD."""
    os.setsid()
    # Python 3.12 warns of any fork beside threads; here it was made sure that those left are safe (`openness`).
    warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
    launcher = socket.socket(fileno=int(sys.argv[1]))
    task = protocol.receive(launcher)
    if task is None:
        return
    server = Server(Task(**task), launcher)
    try:
        found = server.load()
    except BaseException as error:  # noqa: BLE001 - user code may raise anything at import, SystemExit too; told to the launcher
        traceback.print_exc()
        protocol.send(launcher, {"error": f"{type(error).__name__}: {error}"})
        return
    if found:
        protocol.send(launcher, {"open": found})
        return
    server.serve()
