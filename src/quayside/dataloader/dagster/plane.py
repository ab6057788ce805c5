"""Where loads run: an execution plane starts `dataloader_pipe.py` somewhere and brings back what it says.

`LocalPlane` starts it on this machine. Another plane is another class with the same `run`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import dagster as dg
from dagster import PipesMessageReader, PipesTempFileContextInjector, PipesTempFileMessageReader
from dagster._core.errors import DagsterExecutionInterruptedError, DagsterPipesExecutionError
from dagster._core.pipes.context import PipesMessageHandler
from dagster_pipes import PipesMessage, PipesParams

from quayside.dataloader.dagster.forked import ForkedWorker, can_fork

Listen = Callable[[Mapping[str, Any]], None]
Context = dg.OpExecutionContext | dg.AssetExecutionContext


class ExecutionPlane(Protocol):
    """Runs the worker of one run to its end."""

    def run(self, context: Context, extras: Mapping[str, Any], listen: Listen) -> None:
        """Start the worker with `extras` and wait for it. `listen` gets each message as it comes, on another thread.

        Raises whatever goes wrong on the way, after the messages that came before it.
        """
        ...


class LocalPlane(dg.ConfigurableResource):
    """A process on this machine, ended together with its run.

    ``stop_seconds`` is what a worker has to end once it was told to; the launcher kills the run itself after 30 s.
    """

    stop_seconds: float = 20.0

    def run(self, context: Context, extras: Mapping[str, Any], listen: Listen) -> None:
        """See `ExecutionPlane`."""
        extras = {**extras, "parent_pid": os.getpid(), "grace_seconds": self.stop_seconds * 0.4}
        with warnings.catch_warnings():
            # Of a property that Dagster itself reads whenever it opens a session.
            warnings.simplefilter("ignore", dg.PreviewWarning)
            if can_fork():
                self._run_forked(context, extras, listen)
            else:
                self._run_started(context, extras, listen)

    def _run_started(self, context: Context, extras: Mapping[str, Any], listen: Listen) -> None:
        client = dg.PipesSubprocessClient(
            message_reader=ListeningReader(listen), termination_timeout_seconds=self.stop_seconds
        )
        try:
            client.run(context=context, command=[sys.executable, str(script())], extras=dict(extras))
        except subprocess.TimeoutExpired:
            # It was told to stop and did not: it is stopped, or hangs so that it takes no signal.
            _kill_workers()
            raise DagsterExecutionInterruptedError from None

    def _run_forked(self, context: Context, extras: Mapping[str, Any], listen: Listen) -> None:
        worker = ForkedWorker(str(script()))  # before the session's thread
        started = False
        try:
            with dg.open_pipes_session(
                context=context,
                context_injector=PipesTempFileContextInjector(),
                message_reader=ListeningReader(listen),
                extras=dict(extras),
            ) as session:
                worker.start(session.get_bootstrap_env_vars())
                started = True
                try:
                    code = worker.wait()
                except BaseException:
                    context.log.info("The run was interrupted: its worker is told to stop.")
                    worker.stop(self.stop_seconds)
                    raise
                if code:
                    raise DagsterPipesExecutionError(f"The worker ended with code {code}.")
        finally:
            if not started:
                worker.abandon()


def script() -> Path:
    """The worker's script; found without importing what it needs."""
    return Path(__file__).parents[1] / "dataloader_pipe.py"


def _kill_workers() -> None:
    """End the workers that this process has started; a process has one run."""
    for listed in Path("/proc/self/task").glob("*/children"):
        for pid in listed.read_text().split():
            with suppress(OSError):  # it has ended by itself
                if os.fsencode(script()) in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(int(pid), signal.SIGKILL)


class ListeningReader(PipesTempFileMessageReader):
    """Hands on each of the worker's own messages when it comes.

    Dagster keeps them until the process has ended well: those of tables that were loaded before it was killed would be lost.
    """

    def __init__(self, listen: Listen) -> None:
        super().__init__()
        self._listen = listen

    @contextmanager
    def read_messages(self, handler: PipesMessageHandler) -> Iterator[PipesParams]:
        with super().read_messages(_Handler(handler, self, self._listen)) as params:
            yield params


class _Handler(PipesMessageHandler):
    """The handler of the session, in front of which we listen."""

    def __init__(self, inner: PipesMessageHandler, reader: PipesMessageReader, listen: Listen) -> None:
        super().__init__(inner._context, reader)
        self._inner = inner
        self._listen = listen

    def handle_message(self, message: PipesMessage) -> None:
        if message["method"] == "report_custom_message":
            self._listen((message["params"] or {})["payload"])
        else:
            self._inner.handle_message(message)

    def report_pipes_framework_exception(self, origin: str, exc_info: Any) -> None:
        self._inner.report_pipes_framework_exception(origin, exc_info)
