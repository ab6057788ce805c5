"""The fork server's companion with a database connection: it reports crashes and sees cancellations made elsewhere.

The server itself must hold no connection, so the two things that need one live in this process, forked from the server
before anything else:

- a worker that ended without bringing its run to an end (killed, out of memory, ``os._exit``) is written down as failed,
  or as canceled when that was asked for;
- a run that was canceled where the server cannot be reached (a webserver in another container, "force terminate", run
  monitoring) is asked to end within seconds, and killed after the grace period;
- runs longer than a minute get a sign of life in a tag, for a daemon on another host;
- when the server is killed, its runs go on, and the warden looks after them until the last has ended.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import socket
import time
from typing import TYPE_CHECKING, Final

import dagster as dg
from dagster._core.events import EngineEventData, JobFailureData, RunFailureReason
from dagster._utils import get_run_crash_explanation

from quayside.foundation.dagster.launcher.processes import Process, oom_kills
from quayside.foundation.dagster.launcher.table import Table
from quayside.foundation.dagster.launcher.worker import FINISHED, TAKEN, close_connections, pool_connections

if TYPE_CHECKING:
    from collections.abc import Callable

    from quayside.foundation.dagster.launcher.processes import Records
    from quayside.foundation.dagster.launcher.protocol import Message

LOGGER = logging.getLogger("dagster.warm_launcher")

#: How often the state of running runs is read, and how old a run must be for that. Most runs never are.
POLL_SECONDS: Final = 2.0
#: Tag with the last sign of life of a long run, Unix seconds, and how often it is written.
ALIVE_TAG: Final = ".dagster/warm_worker_alive"
ALIVE_SECONDS: Final = 60.0
#: A finished run's process that lingers (a thread that does not end) is killed after this long.
LINGER_SECONDS: Final = 300.0
#: A database that is away is asked again for this long about a crash; run monitoring finds the run after that.
REPORT_SECONDS: Final = 600.0


class Warden:
    """See the module. Runs in a process of its own until the server and the last run have ended."""

    def __init__(
        self, server: socket.socket, instance: dg.DagsterInstance, records: Records, grace_seconds: float
    ) -> None:
        self._server: socket.socket | None = server
        self._instance = instance
        self._records = records
        self._table = Table(grace_seconds)
        self._signs: dict[str, float] = {}
        self._crashes: list[tuple[float, str, int | None]] = []  # give up at, run, exit code
        self._last_poll = 0.0
        self._oom_kills = oom_kills()
        self._buffer = b""

    def run(self) -> None:
        """Watch until nothing is left to watch."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # ends when the server does
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        pool_connections(self._instance)
        while self._server is not None or not self._table.empty() or self._crashes:
            self._listen()
            if self._server is None:
                self._notice_ended()
            self._table.force_overdue()
            self._report_crashes()
            if self._due():
                self._poll()
            if not self._table.runs and not self._crashes:
                close_connections(self._instance)

    def _listen(self) -> None:
        waits = [POLL_SECONDS] if self._table.runs or self._crashes else []
        if (deadline := self._table.next_deadline()) is not None:
            waits.append(deadline)
        if self._server is None:
            time.sleep(min([0.5, *waits]))
            return
        ready, _, _ = select.select([self._server], [], [], min(waits) if waits else None)
        if not ready:
            return
        data = self._server.recv(65536)
        if not data:
            self._server.close()
            self._server = None
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            self._handle(json.loads(line))

    def _handle(self, message: Message) -> None:
        run_id = message["run_id"]
        match message["what"]:
            case "started":
                self._table.add(run_id, Process(message["pid"], message["started"]))
            case "asked":
                if run_id in self._table.runs:
                    self._table.runs[run_id].asked_at = time.monotonic()
            case "ended":
                self._ended(run_id, message["code"])

    def _ended(self, run_id: str, code: int | None) -> None:
        self._table.remove(run_id)
        self._signs.pop(run_id, None)
        if code not in {FINISHED, TAKEN}:
            self._crashes.append((time.monotonic() + REPORT_SECONDS, run_id, code))

    def _notice_ended(self) -> None:
        """Without the server nobody is told of exits: look."""
        for run_id, going in list(self._table.runs.items()):
            if not going.process.alive():
                last = self._records.remove(run_id, going.process)
                self._ended(run_id, None if last else TAKEN)

    def _report_crashes(self) -> None:
        waiting, self._crashes = self._crashes, []
        for until, run_id, code in waiting:
            try:
                self._report(run_id, code)
            except Exception:
                # Storage libraries have no common error for a server that is away. Logged here, kept, and tried again for ten
                # minutes; then run monitoring finds the run, whose process is gone.
                LOGGER.exception("Run %s ended unexpectedly and that could not be recorded.", run_id)
                if time.monotonic() < until:
                    self._crashes.append((until, run_id, code))
        if self._crashes:
            time.sleep(1)

    def _report(self, run_id: str, code: int | None) -> None:
        instance = self._instance
        run = instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return
        message = self._explain(run_id, code)
        if run.status == dg.DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run, f"{message} It had been asked to end.")
            return
        instance.report_engine_event(message, run, EngineEventData({}), cls=type(self))
        instance.report_run_failed(
            run, message, JobFailureData(error=None, failure_reason=RunFailureReason.UNEXPECTED_TERMINATION)
        )

    def _explain(self, run_id: str, code: int | None) -> str:
        if code is None:
            return f"The process of run {run_id} ended, and its fork server had been killed: its exit code is not known."
        message = get_run_crash_explanation(f"The process of run {run_id}", code)
        kills = oom_kills()
        if (
            code == -signal.SIGKILL
            and kills is not None
            and self._oom_kills is not None
            and kills > self._oom_kills
        ):
            count = kills - self._oom_kills
            message += f" The kernel has killed {count} process{'es' if count > 1 else ''} of this memory group meanwhile."
            self._oom_kills = kills
        return message

    def _due(self) -> bool:
        now = time.monotonic()
        return now - self._last_poll >= POLL_SECONDS and any(
            now - going.since >= POLL_SECONDS for going in self._table.runs.values()
        )

    def _poll(self) -> None:
        self._last_poll = time.monotonic()
        try:
            found = self._instance.get_runs(dg.RunsFilter(run_ids=list(self._table.runs)))
            for run in found:
                self._look_at(run)
            self._give_signs()
        except Exception:
            # Whatever the storage's library raises when its server is away; the next poll tries again.
            LOGGER.exception("The state of %d runs could not be read.", len(self._table.runs))

    def _look_at(self, run: dg.DagsterRun) -> None:
        going = self._table.runs[run.run_id]
        if going.asked_at is not None:
            return
        if run.status == dg.DagsterRunStatus.SUCCESS:
            going.asked_at = time.monotonic() + LINGER_SECONDS - self._table.grace_seconds
        elif run.status == dg.DagsterRunStatus.CANCELING or run.is_finished:
            self._table.ask_to_end(run.run_id)

    def _give_signs(self) -> None:
        now = time.monotonic()
        for run_id, going in self._table.runs.items():
            if now - self._signs.get(run_id, going.since) >= ALIVE_SECONDS:
                self._signs[run_id] = now
                self._instance.add_run_tags(run_id, {ALIVE_TAG: str(int(time.time()))})


def start(
    own: socket.socket,
    instance: dg.DagsterInstance,
    records: Records,
    grace_seconds: float,
    close_others: Callable[[], None],
) -> int:
    """Fork the warden. `own` is its end of a socket pair; `close_others` closes what it must not keep of the server's.

    Returns:
        Its process id.
    """
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        close_others()
        Warden(own, instance, records, grace_seconds).run()
    except BaseException:
        LOGGER.exception("The warden of the warm launcher ended with an error; run monitoring takes over.")
        os._exit(1)
    os._exit(0)
