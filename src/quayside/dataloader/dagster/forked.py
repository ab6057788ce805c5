"""A worker forked from its run, which was forked from a warm server itself: nothing is started or imported anew.

Most of what loading one small table costs is an interpreter and its imports. A run of the warm launcher has all of that,
and while it has no thread a fork of it is as good as a fresh process. The child is forked before the Pipes session is opened,
since that starts a thread, and waits to be told its environment. From there it is `dataloader_pipe.main` in either case.
Belongs here: the process. Does not belong here: what is said to it and by it (`plane`).
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, NoReturn

from quayside.foundation.dagster.launcher import openness
from quayside.foundation.dagster.launcher.worker import is_warm

_LOOK_EVERY_SECONDS: Final = 0.05


def can_fork() -> bool:
    """Whether this process is a run of the warm launcher that has started no thread since."""
    return is_warm() and not openness.threads()


class ForkedWorker:
    """A child that waits for `start`. When this process ends without it, so does the child."""

    def __init__(self, script: str) -> None:
        told, self._tell = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(self._tell)
            _live(told, script)
        os.close(told)

    def start(self, environment: Mapping[str, str]) -> None:
        """Let it go, with these variables beside those of this process."""
        with os.fdopen(self._tell, "w", encoding="utf-8") as told:
            json.dump(dict(environment), told)

    def wait(self) -> int:
        """Its exit code, negative for a signal; called once."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def stop(self, seconds: float) -> None:
        """Have it end, and kill it when it has not by then."""
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, signal.SIGINT)
            deadline = time.monotonic() + seconds
            while os.waitpid(self.pid, os.WNOHANG) == (0, 0):
                if time.monotonic() > deadline:
                    os.kill(self.pid, signal.SIGKILL)
                    os.waitpid(self.pid, 0)
                    return
                time.sleep(_LOOK_EVERY_SECONDS)

    def abandon(self) -> None:
        """Let a child that was never started end."""
        os.close(self._tell)
        self.wait()


def _live(told: int, script: str) -> NoReturn:
    """The child's life. It ends without a word to what it has of its parent's: connections, threads, buffers."""
    code = 1
    try:
        with os.fdopen(told, encoding="utf-8") as words:
            environment = words.read()
        if environment:
            os.environ.update(json.loads(environment))
            code = _work(script)
    except BaseException as error:  # noqa: BLE001 - nothing of the parent's may run in here
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _work(script: str) -> int:
    from quayside.dataloader import dataloader_pipe

    sys.argv = [script]
    # The run's own go to Dagster's database, by the run's connection.
    for name in (None, "quayside"):
        logging.getLogger(name).handlers.clear()
    signal.set_wakeup_fd(-1)
    dataloader_pipe.settle()
    return dataloader_pipe.main()
