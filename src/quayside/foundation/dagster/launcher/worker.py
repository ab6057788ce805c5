"""One run in its own process: what the forked child does from its first moment to its last."""

from __future__ import annotations

import multiprocessing.util
import os
import signal
import sys
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import dagster as dg
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.events import EngineEventData
from dagster._core.execution.compute_logs import redirect_to_file
from dagster._core.storage.compute_log_manager import CapturedLogContext, ComputeIOType
from dagster._core.storage.local_compute_log_manager import IO_TYPE_EXTENSION, LocalComputeLogManager
from dagster._grpc.impl import core_execute_run
from dagster._utils import touch_file
from dagster._utils.interrupts import capture_interrupts

from quayside.foundation.dagster.launcher.processes import Records

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dagster._core.storage.dagster_run import DagsterRun

#: Exit code of a worker that has brought its run to an end, good or bad. Not 0, so that an op that calls ``os._exit(0)``
#: is not taken for one.
FINISHED: Final = 93
#: Another process already works on this run.
TAKEN: Final = 94
#: Raised a little for runs, so that the kernel short of memory ends a run and not the daemon beside it.
_OOM_SCORE: Final = "200"


@dataclass(frozen=True)
class Warm:
    """What the fork server has ready for its children."""

    instance: dg.DagsterInstance
    repository: ReconstructableRepository
    records: Records
    server: str  # its socket
    mirror_logs: bool


def run_in_child(warm: Warm, run: DagsterRun) -> int:
    """Execute a run in this process, which was forked for it.

    Returns:
        The process's exit code.
    """
    global _warm
    _warm = True
    detach()
    if not warm.records.claim(run.run_id, warm.server):
        sys.stderr.write(f"Run {run.run_id} is being executed already; this second process ends.\n")
        return TAKEN
    reseed()
    instance = warm.instance
    pool_connections(instance)
    if not warm.mirror_logs:
        capture_without_mirror()
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, "ascii")
    pid = os.getpid()
    with capture_interrupts():
        instance.report_engine_event(
            f"Started process for run (pid: {pid}), forked from a warm server.",
            run,
            EngineEventData.in_process(pid),
        )
        try:
            for _ in core_execute_run(
                warm.repository.get_reconstructable_job(run.job_name), run, instance, inject_env_vars=False
            ):
                pass
        except (Exception, KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
            # Recorded in the event log by core_execute_run before it raises.
            ended = instance.get_run_by_id(run.run_id)
            if ended is not None and not ended.is_finished:
                raise
        instance.report_engine_event(f"Process for run exited (pid: {pid}).", run)
    return FINISHED


_warm = False


def is_warm() -> bool:
    """Whether this process was forked for a run: what may be forked was looked at in the server, before."""
    return _warm


def detach() -> None:
    """Make this process its own session, reading nothing from a terminal, with the signals of a fresh interpreter."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)


def reseed() -> None:
    """Give this process random numbers of its own. Python's `random` does so at a fork; NumPy's global one does not.

    NumPy imports its random numbers when they are first used. Where that comes later, there is nothing to do.
    """
    if random := sys.modules.get("numpy.random"):
        random.seed()


def pool_connections(instance: dg.DagsterInstance) -> None:
    """Let the instance keep its connections for the whole run.

    dagster-postgres opens one per statement unless told otherwise, which costs several times the statement itself.
    Storages that are pooled already (or are SQLite files) are left alone.
    """
    for storage in _storages(instance):
        engine = getattr(storage, "_engine", None)
        if engine is not None and type(engine.pool).__name__ == "NullPool":
            storage.optimize_for_webserver(statement_timeout=0, pool_recycle=-1, max_overflow=20)
            # A run may work for hours between two statements: the server was restarted, a firewall forgot the connection.
            storage._engine.pool._pre_ping = True


def close_connections(instance: dg.DagsterInstance) -> None:
    """Close what the instance's storages have open; they open anew when used."""
    for storage in _storages(instance):
        if (engine := getattr(storage, "_engine", None)) is not None:
            engine.dispose()


def capture_without_mirror() -> None:
    """Write the output of steps straight to the files the UI reads, in this process and those forked from it.

    Dagster's local log manager also copies it to the terminal, for which it starts four processes per step (two `tail`,
    two interpreters that watch them): a third of the cost of a small run.
    """
    LocalComputeLogManager.capture_logs = _capture_logs


def finish() -> None:
    """What `multiprocessing` does when a child ends: wait for its threads, run its finalizers, flush."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    multiprocessing.util._exit_function()  # pyright: ignore[reportAttributeAccessIssue] - what a Process itself calls
    sys.stdout.flush()
    sys.stderr.flush()


@contextmanager
def _capture_logs(self: LocalComputeLogManager, log_key: Sequence[str]) -> Iterator[CapturedLogContext]:
    paths = [
        Path(self.get_captured_local_path(log_key, IO_TYPE_EXTENSION[kind]))
        for kind in (ComputeIOType.STDOUT, ComputeIOType.STDERR)
    ]
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    with redirect_to_file(sys.stdout, str(paths[0])), redirect_to_file(sys.stderr, str(paths[1])):
        yield CapturedLogContext(log_key)
    touch_file(self.complete_artifact_path(log_key))


def _storages(instance: dg.DagsterInstance) -> Iterator[Any]:
    for storage in (instance.run_storage, instance.event_log_storage, instance.schedule_storage):
        if storage is not None:
            yield storage
