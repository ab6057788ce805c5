"""Three interleavings that each go wrong without one guard, made certain: nothing in here is left to chance.

- ``fencing``: a worker is held before its commit, its attempt is given up, another attempt loads; then it goes on.
- ``unique``: two schedulers claim one row at the same time.
- ``cursor-in-commit``: a worker is killed between its commit and the mirror of its cursor in the control row.

With every guard in place the table equals its source and the books are right. `run` can take a guard out, in the
children that it forks; then one of them must not be.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import psycopg

from quayside.dataloader.request import LoadRequest
from tests.faults.dataloader import books, points
from tests.faults.dataloader.compare import differences
from tests.faults.dataloader.platform import Platform, until
from tests.faults.dataloader.workload import CURSOR, SCHEMA, Table
from tests.faults.harness import fork, wait

GUARDS: Final = ("fencing", "unique", "cursor-in-commit")
_SECONDS: Final = 60.0


def run(without: list[str], with_guards: bool = False) -> dict[str, Any]:
    """The staged interleavings; ``problems`` are those of all that were asked for, the rest tells them apart.

    Args:
        without: guards to take out, each in the interleaving that needs it; ``all`` are all three.
        with_guards: also all three with every guard in place.
    """
    taken = list(GUARDS) if "all" in without else without
    # The keys of the history, once they are gone, are gone for all: last.
    asked = [(guard, False) for guard in GUARDS if with_guards]
    asked += [(guard, True) for guard in sorted(taken, key=lambda guard: guard == "unique")]
    # Rows that must not arrive twice; each interleaving has a table of its own.
    tables = tuple(
        Table(f"events_{n}", "append_only", ("append",), CURSOR, rows=50) for n in range(len(asked))
    )
    report: dict[str, Any] = {"problems": [], "with_guards": {}, "without": {}, "seconds": {}}
    platform = Platform(tables, lease_seconds=120)
    try:
        platform.start()
        for (guard, removed), table in zip(asked, tables, strict=True):
            started = time.monotonic()
            found = Stage(platform, table, guard if removed else None).play(guard)
            report["without" if removed else "with_guards"][guard] = found
            report["problems"] += found
            report["seconds"][f"{'without ' if removed else ''}{guard}"] = round(
                time.monotonic() - started, 1
            )
    finally:
        platform.stop()
    return report


class Stage:
    """One table on a platform without a daemon; this is the scheduler and the monitor, children are the workers."""

    def __init__(self, platform: Platform, table: Table, removed: str | None) -> None:
        self.platform = platform
        self.removed = removed
        self.table = table
        self.problems: list[str] = []
        with platform.control() as con:
            [(self.config_id,)] = con.execute(
                "SELECT config_id FROM control.table_control WHERE source_table_name = %s", [table.name]
            ).fetchall()

    def play(self, guard: str) -> list[str]:
        """What is wrong after the interleaving of a guard."""
        scene = {"fencing": self.fencing, "unique": self.unique, "cursor-in-commit": self.cursor_in_commit}[
            guard
        ]
        self.finish(self.start_worker(self.claim()))
        try:
            scene()
            # Once more, undisturbed: what was lost would be lost for good, and what is twice stays twice.
            self.grow()
            self.finish(self.start_worker(self.claim()))
        except Exception as error:  # noqa: BLE001 - an interleaving that cannot be played to its end is a finding
            self.problems.append(f"it did not come to its end: {error!r}")
            self.platform.points.disarm()
        found = differences(self.platform.settings, self.platform.source.url, [self.table])
        with self.platform.control() as con:
            return self.problems + found + books.problems(con, {self.config_id: self.table.name})

    # -- the interleavings

    def fencing(self) -> None:
        """A worker that was given up while it was about to commit comes back after its successor is done."""
        self.grow()
        late = self.start_worker(self.claim(), hold_at="written")
        self.give_up()
        self.finish(self.start_worker(self.claim()))
        self.platform.points.disarm()
        self.finish(late)

    def unique(self) -> None:
        """Two schedulers find the same row due. Ours wait for one another; without, the keys have to refuse the second."""
        self.grow()
        self.platform.tick(self.config_id)
        if self.removed is None:
            requests = self._claims_at_once()
            # And what if they did not wait? Then the database itself refuses the second, be the first under way or done.
            self._stale_claim_is_refused(requests[0])
        else:
            with self.platform.control() as con:
                con.execute(
                    "ALTER TABLE control.historical_metadata DROP CONSTRAINT historical_metadata_attempt"
                )
                con.execute("DROP INDEX control.historical_metadata_one_open")
            request = self.claim(tick=False)
            self._stale_claim(request.attempt - 1)
            requests = [request, request]
        for number, request in enumerate(requests):
            self.finish(self.start_worker(request, run=f"run {number}"))
        if self.removed is None:
            self._stale_claim_is_refused(requests[0])

    def cursor_in_commit(self) -> None:
        """A worker dies after its rows are committed and before the control row knows of it."""
        self.grow()
        victim = self.start_worker(self.claim(), hold_at="committed")
        os.kill(victim, signal.SIGKILL)
        wait(victim)
        self.platform.points.disarm()
        self.give_up()
        self.finish(self.start_worker(self.claim()))

    # -- what they are made of

    def grow(self) -> None:
        """More rows at the source, half of them at the time of the last one there."""
        name = f"{SCHEMA}.{self.table.name}"
        with psycopg.connect(self.platform.source.url) as con:
            con.execute(
                f"INSERT INTO {name} SELECT m.id + i, m.at + (i / 6) * interval '1 second', i, 'more', current_date "  # type: ignore[arg-type]
                f"FROM (SELECT max(id) AS id, max(updated_at) AS at FROM {name}) m, generate_series(1, 10) AS i"
            )

    def claim(self, tick: bool = True) -> LoadRequest:
        """Make the row due, unless it is, and claim it."""
        if tick:
            self.platform.tick(self.config_id)
        with self.platform.client() as client:
            [request] = [r for r in client.claim(10) if r.config_id == self.config_id]
        return request

    def give_up(self) -> None:
        """What the monitors do when a worker is not heard of any more, and a person or the retry analysis after them."""
        with self.platform.client() as client:
            [attempt] = [a for a in client.running() if a.config_id == self.config_id]
            client.give_up(attempt.config_id, attempt.attempt, "Worker lost")
        self.platform.free_failed(self.config_id)

    def start_worker(self, request: LoadRequest, hold_at: str | None = None, run: str = "a run") -> int:
        """A child that loads as the worker of a run does; with `hold_at` it is held there when this returns."""
        if hold_at is not None:
            self.platform.points.arm(hold_at)
        pid = fork(lambda: self._work(request, run))
        if hold_at is not None:
            place = until(self.platform.points.held, _SECONDS, f"a worker at {hold_at}", every=0.002)
            assert place.pid == pid
        return pid

    def finish(self, pid: int) -> None:
        if code := wait(pid):
            self.problems.append(f"a worker ended with {code}")

    def _work(self, request: LoadRequest, run: str) -> None:
        """In the child: what `dataloader_pipe` does, without a run around it."""
        os.environ.update(self.platform.environment)
        points.install(str(self.platform.points.folder))
        from quayside.dataloader.errors import FencedError
        from quayside.dataloader.worker import Worker

        if self.removed == "fencing":
            _without_fencing()
        if self.removed == "cursor-in-commit":
            _without_cursor_in_commit()
        client = self.platform.client().for_attempt(request.config_id, request.attempt)
        try:
            request = client.begin(f"http://localhost/runs/{run}")
        except FencedError:
            return
        Worker(self.platform.settings, [request], _Listener()).run()

    def _claims_at_once(self) -> list[LoadRequest]:
        """Two claims, the second begun while the first is not committed."""
        from datetime import timedelta
        from threading import Thread

        from quayside.dataloader.control.claim import claim
        from quayside.dataloader.control.connection import Connections
        from quayside.dataloader.control.rows import request_of

        claimed: list[LoadRequest] = []

        def second() -> None:
            with self.platform.client() as client:
                claimed.extend(client.claim(10))

        connections = Connections(self.platform.settings)
        with connections.transaction() as con:
            first = [request_of(row, None) for row in claim(con, 10, timedelta(minutes=90))]
            other = Thread(target=second)
            other.start()
            until(self._somebody_waits, _SECONDS, "the second claim to wait for the first")
        other.join()
        connections.close()
        if len(first) != 1 or claimed:
            self.problems.append(f"two claims at once claimed {len(first)} and {len(claimed)} rows")
        return first + claimed

    def _somebody_waits(self) -> bool:
        with self.platform.control() as con:
            [(waiting,)] = con.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            ).fetchall()
        return waiting > 0

    def _stale_claim_is_refused(self, first: LoadRequest) -> None:
        with suppress(psycopg.errors.UniqueViolation):
            self._stale_claim(first.attempt - 1)
            self.problems.append("the history took two rows of one attempt")

    def _stale_claim(self, attempt: int) -> None:
        """A scheduler that read the row before the other one wrote it, and writes what follows from that."""
        with self.platform.control() as con:
            con.execute(
                "UPDATE control.table_control SET last_status = 'Queued', attempt = %s, "
                "lease_expires_at = now() + interval '90 minutes' WHERE config_id = %s",
                [attempt + 1, self.config_id],
            )
            con.execute(
                "INSERT INTO control.historical_metadata (config_id, control_key, attempt, source_table, target_catalog, "
                "target_schema, target_table, load_strategy, load_full) SELECT config_id, control_key, attempt, "
                "source_table_name, destination_catalog, destination_schema_name, destination_table_name, load_strategy, "
                "load_full FROM control.table_control WHERE config_id = %s",
                [self.config_id],
            )


class _Listener:
    def say(self, text: str) -> None:
        sys.stderr.write(f"worker: {text}\n")

    def ended(self, outcome: Any) -> None:
        sys.stderr.write(f"worker: {outcome.ending}: {outcome.message}\n")


def _without_fencing() -> None:
    """Whoever comes may write, whatever the row says."""
    from quayside.dataloader.control import attempts
    from quayside.dataloader.control.client import LakebaseClient

    @contextmanager
    def hold(self: Any) -> Iterator[None]:
        points.enter("worker", "written", self.attempt)
        yield

    def require(row: Any, *_: Any) -> Any:
        return row

    go_on: Callable[..., Any] = lambda *_, **__: "continue"  # noqa: E731 - two names for it would say no more
    attempts.require = require
    LakebaseClient.hold, LakebaseClient.check, LakebaseClient.heartbeat = hold, go_on, go_on  # type: ignore[method-assign,assignment]


def _without_cursor_in_commit() -> None:
    """The cursor and the keys at it are committed after the rows, and not with them."""
    from quayside.dataloader.destinations import ducklake_state
    from quayside.foundation.lake import Lake

    write, transaction = ducklake_state.write, Lake.transaction
    later: list[tuple[Any, ...]] = []

    def note(con: Any, *state: Any) -> None:
        later.append(state)

    def rows_then_state(self: Lake, work: Any, con: Any = None, **named: Any) -> Any:
        later.clear()
        result = transaction(self, work, con, **named)
        for state in later:
            points.enter("worker", "committed")
            transaction(self, lambda c, s=state: write(c, *s), con)
        later.clear()
        return result

    ducklake_state.write = note
    Lake.transaction = rows_then_state  # type: ignore[method-assign,assignment]
