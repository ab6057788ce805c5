"""The process of a load: Dagster Pipes on one side, `worker` on the other.

It is run as a script, by its path, on this machine or a cluster; it imports neither Dagster nor a code location, so that it
works within a fraction of a second. Secrets are resolved in here and nowhere else, and every word that leaves passes
through `redact`. It dies with the run that started it: the kernel sends SIGTERM when that process is gone, and SIGTERM,
like Ctrl-C, interrupts the loads and writes their rows.
"""

from __future__ import annotations

import os
import sys

# As a script its own folder comes first on the path, where `secrets` is ours and not Python's.
if sys.path and os.path.realpath(sys.path[0] or ".") == os.path.dirname(os.path.realpath(__file__)):  # noqa: PTH120 - pathlib costs a tenth of the start
    del sys.path[0]

import ctypes
import logging
import signal
import threading
from typing import TYPE_CHECKING, Any, Final

from dagster_pipes import PipesContext, PipesEnvVarParamsLoader, open_dagster_pipes

from quayside.dataloader.request import LoadRequest
from quayside.dataloader.worker import GRACE_SECONDS, Outcome, Stop, Worker
from quayside.foundation.errors import QuaysideError
from quayside.foundation.no_pandas import without_pandas
from quayside.foundation.secrets import redact, remember_all
from quayside.foundation.settings import load_settings

if TYPE_CHECKING:
    from types import FrameType

_PR_SET_PDEATHSIG: Final = 1


class PipesListener:
    """Lines and outcomes as Pipes messages, one at a time."""

    def __init__(self, pipes: PipesContext) -> None:
        self._pipes = pipes
        self._lock = threading.Lock()

    def say(self, text: str) -> None:
        with self._lock:
            self._pipes.log.info(redact(text))

    def ended(self, outcome: Outcome) -> None:
        with self._lock:
            self._pipes.report_custom_message(outcome.to_json())


class _Warnings(logging.Handler):
    """What the product's own code logs as a warning, in the run's log."""

    def __init__(self, listener: PipesListener) -> None:
        super().__init__(logging.WARNING)
        self._listener = listener

    def emit(self, record: logging.LogRecord) -> None:
        self._listener.say(record.getMessage())


def main() -> int:
    """Load the tables that the run asks for; the process's exit code."""
    if not PipesEnvVarParamsLoader().is_dagster_pipes_process():
        sys.stderr.write(
            "quayside: dataloader_pipe.py is started by a run of dataloader_table_load, not by hand; "
            "`quayside tables run` makes a table due.\n"
        )
        return 2
    stop = Stop()
    _stop_on_signals(stop)
    with open_dagster_pipes() as pipes:
        if (parent := pipes.extras.get("parent_pid")) is not None:
            die_with(parent)
        listener = PipesListener(pipes)
        logging.getLogger("quayside").addHandler(_Warnings(listener))
        try:
            settings = load_settings()
            remember_all(settings)
            tables = [LoadRequest.of_json(values) for values in pipes.extras["tables"]]
            grace_seconds = pipes.extras.get("grace_seconds", GRACE_SECONDS)
            Worker(settings, tables, listener, stop=stop, grace_seconds=grace_seconds).run()
        except QuaysideError as error:
            # Before the first table: the run closes their rows, with this sentence as the cause.
            pipes.report_custom_message({"cause": redact(str(error))})
            return error.exit_code
    return 0


def die_with(parent: int) -> None:
    """Get SIGTERM when the process that started this one is gone, also if it is gone already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def _stop_on_signals(stop: Stop) -> None:
    def handle(number: int, frame: FrameType | None) -> None:
        stop.request("its run was cancelled or has ended")

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)


def _excepthook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    import traceback

    sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))


def settle() -> None:
    """What the process of a load does before `main`."""
    sys.excepthook = _excepthook
    without_pandas()


if __name__ == "__main__":
    settle()
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not `sys.exit`: it waits for what a thread that was left behind has open, and takes DuckDB apart piece by piece.
    os._exit(code)
