"""Kill KYCC at random moments, run it again, and compare with a platform that nothing happened to.

    python -m tests.faults.kycc --kills 60 --seed 1

Every batch runs file → ingest → features → scores on the platform under test; it is killed one to three times on the
way (half of the kills aimed at a moment in which rows are being written) and then run to its end, once more on top, and
by two processes at once. What the platform then holds must equal, row for row and apart from clock times, what an
undisturbed platform holds. ``--without lock transaction`` takes guards out afterwards, one after the other, and stages what
each prevents; the harness must then fail of each. The two platforms get servers of their own, or ``--databases`` of yours.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import quayside.foundation.audit
import quayside.foundation.lake
import quayside.foundation.no_pandas
import quayside.foundation.postgres
import quayside.kycc.features
import quayside.kycc.generate
import quayside.kycc.ingest
import quayside.kycc.scorecard
import quayside.kycc.scoring as scoring
from quayside.foundation.lake import Lake
from quayside.foundation.settings import Settings
from quayside.kycc import tables
from quayside.kycc.service import ScoringService
from tests.faults.harness import Death, PhaseCell, fork, kill_when, wait

PARTIES = 40
MOMENT = datetime(2026, 6, 30, tzinfo=UTC)
#: Columns that tell when something was computed, which two runs cannot share.
CLOCKS = {"loaded_at", "created_at", "completed_at", "superseded_at"}
#: All batches are the same but for their names, so that one undisturbed run tells what each has to become.
NAMES = {"batch_id", "content_sha256", "source"}
WRITING = ("writing", "committing", "mirroring")

cell = PhaseCell()


#: How often a guard's absence is tried: twins of the lock, statements of a write for the transaction.
WITHOUT = {"lock": 1, "transaction": 20}


def settings_of(home: Path, database_url: str | None = None) -> Settings:
    given = {} if database_url is None else {"QUAYSIDE_DATABASE_URL": database_url}
    return Settings(_env_file=None, QUAYSIDE_HOME=str(home), **given)  # pyright: ignore[reportCallIssue]


class Mortal:
    """A connection whose process is killed right after its n-th statement."""

    def __init__(self, con: Any, statements: int) -> None:
        self._con, self._left = con, statements

    def __getattr__(self, name: str) -> Any:
        return getattr(self._con, name)

    def execute(self, *arguments: Any) -> Any:
        result = self._con.execute(*arguments)
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result


def observe(meet: Callable[[], Any] | None = None, transactions: bool = True, statements: int = 0) -> None:
    """In a child: tell the harness when rows are being written, and before each commit do `meet`.

    With `statements`, die after as many statements of a write.
    """
    original, mirror = Lake.transaction, scoring.mirror_scores

    def transaction(self: Lake, work: Callable[[Any], Any], con: Any = None) -> Any:
        def observed(con: Any) -> Any:
            cell.enter("writing", writes=True)
            result = work(Mortal(con, statements) if statements else con)
            cell.enter("committing")
            if meet is not None:
                meet()
            return result

        try:
            return original(self, observed, con) if transactions else observed(con)
        finally:
            cell.enter("between")

    def mirroring(*arguments: Any) -> bool:
        cell.enter("mirroring", writes=True)
        try:
            return mirror(*arguments)
        finally:
            cell.enter("between")

    Lake.transaction = transaction  # pyright: ignore[reportAttributeAccessIssue]
    scoring.mirror_scores = mirroring


def run_line(
    settings: Settings, source: Path, batch_id: str, guard: Callable[[str], Any] | None = None
) -> None:
    """The whole line of one batch."""
    service = ScoringService(settings, guard=guard)
    service.ingest(source)
    service.extract(batch_id)
    service.score(batch_id)


def state(settings: Settings, batch_id: str) -> dict[str, tuple[Any, ...]]:
    """Number of rows and a digest of their content per table, for one batch."""
    service = ScoringService(settings)
    found: dict[str, tuple[Any, ...]] = {}
    with service.connection() as con:
        for table in [*tables.ALL, *quayside.kycc.features.TABLES]:
            if "batch_id" in table.columns:
                columns = ", ".join(f'"{c}"' for c in table.columns if c not in CLOCKS | NAMES)
                found[table.qualified] = (
                    con.execute(
                        f"SELECT count(*), sum(hash({columns})::HUGEINT)::VARCHAR FROM {table.qualified} WHERE batch_id = ?",
                        [batch_id],
                    ).fetchone()
                    or ()
                )
        for stage in ("features", "scores"):
            found[f"stage {stage}"] = (
                con.execute(
                    "SELECT count(*) FROM kycc.stages WHERE batch_id = ? AND stage = ?", [batch_id, stage]
                ).fetchone()
                or ()
            )
    with quayside.foundation.postgres.connect(settings) as con:
        rows = con.execute(
            "SELECT count(*), md5(string_agg((party_id, scorecard_version, as_of, raw_score, total_score, band, decision,"
            " flags, reasons)::text, ',' ORDER BY party_id)) FROM kycc.score_requests WHERE batch_id = %s",
            [batch_id],
        ).fetchone()
        found["postgres kycc.score_requests"] = tuple(rows or ())
        audited = con.execute("SELECT count(*) FROM ops.audit WHERE subject = %s", [batch_id]).fetchone()
        found["postgres ops.audit"] = tuple(audited or ())
    return found


def half_done(settings: Settings, batch_id: str, whole: dict[str, tuple[Any, ...]]) -> list[str]:
    """What a killed run left that is neither nothing nor everything."""
    now = state(settings, batch_id)
    problems = [
        f"{name} holds {now[name][0]} of {rows[0]} rows"
        for name, rows in whole.items()
        if name != tables.STAGES.qualified and now[name][0] not in (0, rows[0])
    ]
    # One row a stage, so its table alone may hold some: each row stands for all rows of its stage.
    for stage, table in (("features", quayside.kycc.features.FEATURES_WIDE), ("scores", tables.SCORES)):
        if (now[f"stage {stage}"][0] > 0) != (now[table.qualified][0] > 0):
            problems.append(f"stage {stage} is noted without its rows, or they are there without the note")
    loaded = {
        now[t.qualified][0] > 0
        for t in (tables.BATCHES, tables.PARTIES, tables.ACCOUNTS, tables.TRANSACTIONS)
    }
    if len(loaded) > 1:
        problems.append("some of the batch's tables are loaded and some are not")
    return problems


def differences(a: dict[str, tuple[Any, ...]], b: dict[str, tuple[Any, ...]]) -> list[str]:
    return [f"{name}: {a[name]} instead of {b[name]}" for name in b if a[name] != b[name]]


class Harness:
    """One run of the harness: its platforms, its random numbers, what it counted and what it found wrong."""

    def __init__(self, seed: int, databases: Sequence[str | None] = (None, None)) -> None:
        self.random = random.Random(seed)
        self.without: str | None = None
        self.folder = Path(tempfile.mkdtemp(prefix="quayside-faults-"))
        self.folder.chmod(0o711)  # as root, the database server's own user has to pass
        self.tested, self.undisturbed = (
            settings_of(self.folder / name, database)
            for name, database in zip(("tested", "undisturbed"), databases, strict=True)
        )
        self.phases: Counter[str] = Counter()
        self.problems: list[str] = []
        self.batches = 0

    def __enter__(self) -> Harness:
        return self

    def __exit__(self, *_: object) -> None:
        for settings in (self.tested, self.undisturbed):
            server = quayside.foundation.postgres.EmbeddedPostgres(settings.home)
            if server.home.is_dir():
                server.stop()
        shutil.rmtree(self.folder)

    def guard(self) -> Callable[[str], AbstractContextManager[None]] | None:
        return (lambda _: nullcontext()) if self.without == "lock" else None

    def child(
        self, source: Path, batch_id: str, meet: Callable[[], Any] | None = None, statements: int = 0
    ) -> int:
        cell.reset()

        def work() -> None:
            observe(meet, self.without != "transaction", statements)
            run_line(self.tested, source, batch_id, self.guard())

        return fork(work)

    def in_child(self, work: Callable[[], Any]) -> Any:
        """Result of `work` from a child, so that this process opens nothing and may go on forking."""
        out = self.folder / "result.json"

        def keep() -> None:
            out.write_text(json.dumps(work()))

        if code := wait(fork(keep)):
            raise RuntimeError(f"a helper process of the harness ended with {code}")
        return json.loads(out.read_text())

    def new_batch(self) -> tuple[Path, str]:
        """The first batch's file under a new batch id: the same parties, observed once more."""
        self.batches += 1
        batch_id = f"FAULT_{self.batches:04d}"
        source = self.folder / f"{batch_id}.json"
        first = self.folder / "FAULT_0000.json"

        def write() -> None:
            batch = quayside.kycc.generate.generate("FAULT_0000", PARTIES, generated_at=MOMENT)
            quayside.kycc.generate.write_json(batch, first)

        if not first.exists():
            self.in_child(write)
        source.write_bytes(first.read_bytes().replace(b"FAULT_0000", batch_id.encode()))
        return source, batch_id

    def expect(self) -> None:
        """Run a batch on the undisturbed platform: what every batch has to become, and the time and writes it takes."""
        source, batch_id = self.new_batch()
        cell.reset()

        def work() -> tuple[dict[str, tuple[Any, ...]], float]:
            ScoringService(self.undisturbed).batches()  # server and tables are there before the clock starts
            started = time.perf_counter()
            observe()
            run_line(self.undisturbed, source, batch_id)
            return state(self.undisturbed, batch_id), time.perf_counter() - started

        rows, self.seconds = self.in_child(work)
        self.expected = {name: tuple(r) for name, r in rows.items()}
        self.writes = cell.read()[0]

    def now(self, batch_id: str) -> dict[str, tuple[Any, ...]]:
        return {name: tuple(r) for name, r in self.in_child(lambda: state(self.tested, batch_id)).items()}

    def kill(self, source: Path, batch_id: str, while_writing: bool) -> Death:
        """Start the line and kill it: at any moment, or a little after a random one of its writes has begun."""
        pid = self.child(source, batch_id)
        if while_writing:
            target, moment = self.random.randint(1, self.writes), self.random.uniform(0, 0.06)
            reached: list[float] = []

            def due() -> bool:
                if not reached and cell.read()[0] >= target:
                    reached.append(time.perf_counter())
                return bool(reached) and (
                    cell.read()[1] in WRITING and time.perf_counter() - reached[0] >= moment
                )
        else:
            at = time.perf_counter() + self.random.uniform(0, self.seconds)

            def due() -> bool:
                return time.perf_counter() >= at

        death = kill_when(pid, cell, due)
        if death.killed:
            self.phases[death.phase] += 1
        return death

    def kills(self, wanted: int) -> None:
        """Kill batches until `wanted` kills are counted, at least half of them while rows were being written."""
        while sum(self.phases.values()) < wanted or self.killed_writing() * 2 < wanted:
            source, batch_id = self.new_batch()
            for _ in range(self.random.randint(1, 3)):
                death = self.kill(source, batch_id, self.killed_writing() * 2 <= sum(self.phases.values()))
                if not death.killed and death.exit_code:
                    self.problems.append(f"{batch_id}: a run failed by itself in phase {death.phase}")
                left = self.in_child(lambda b=batch_id: half_done(self.tested, b, self.expected))
                self.problems += [f"{batch_id}, killed in phase {death.phase}: {problem}" for problem in left]
            once_more = ("run once more",) if self.random.random() < 0.3 else ()
            for again in ("run again", *once_more):
                if wait(self.child(source, batch_id)):
                    self.problems.append(f"{batch_id}: {again} after the kills failed")
                self.problems += [
                    f"{batch_id}, {again}: {d}" for d in differences(self.now(batch_id), self.expected)
                ]
            print(
                f"{batch_id}: {sum(self.phases.values())} kills, {self.killed_writing()} while writing",
                file=sys.stderr,
            )

    def between_statements(self, upto: int) -> None:
        """Kill after the first, the second … statement of a write, until one left half of it."""
        for statements in range(1, upto + 1):
            if self.problems:
                break
            source, batch_id = self.new_batch()
            if wait(self.child(source, batch_id, statements=statements)) == -signal.SIGKILL:
                self.phases["writing"] += 1
            left = self.in_child(lambda b=batch_id: half_done(self.tested, b, self.expected))
            self.problems += [f"{batch_id}, killed after statement {statements}: {p}" for p in left]

    def twins(self, rounds: int) -> None:
        """Two processes run one batch at once; each lingers before its commits, so that they do meet.

        Without the lock that is certain: neither commits before both have looked and written.
        """
        self.in_child(lambda: ScoringService(self.tested).batches() and None)  # makes the tables
        for _ in range(rounds):
            source, batch_id = self.new_batch()
            both = multiprocessing.get_context("fork").Barrier(2)

            def meet(both: Any = both) -> None:
                if self.without != "lock":
                    time.sleep(0.2)
                elif not both.broken:
                    with suppress(
                        threading.BrokenBarrierError
                    ):  # later ones meet or not: one may have failed
                        both.wait(120)
                    both.abort()

            pair = [self.child(source, batch_id, meet) for _ in range(2)]
            codes = [wait(pid) for pid in pair]
            if any(codes):
                self.problems.append(f"{batch_id}: of two runs at once, one failed")
            self.problems += [
                f"{batch_id}, two runs at once: {d}" for d in differences(self.now(batch_id), self.expected)
            ]

    def take_out(self, guard: str) -> list[str]:
        """What goes wrong without a guard, where it would strike."""
        before, self.problems, self.without = self.problems, [], guard
        try:
            {"lock": self.twins, "transaction": self.between_statements}[guard](WITHOUT[guard])
            return self.problems
        finally:
            self.problems, self.without = before, None

    def killed_writing(self) -> int:
        return sum(self.phases[phase] for phase in WRITING)


def warm_up() -> None:
    """Import what every child would import again."""
    quayside.foundation.no_pandas.without_pandas()
    for name in ("alembic.command", "psycopg", "scipy.sparse.csgraph"):
        importlib.import_module(name)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--twins", type=int, default=5)
    parser.add_argument(
        "--between-statements",
        type=int,
        default=3,
        help="kill after each of the first n statements of a write",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--without", choices=list(WITHOUT), nargs="*", default=[])
    parser.add_argument("--databases", nargs=2, default=(None, None), metavar="URL")
    chosen = parser.parse_args()
    warm_up()
    with Harness(chosen.seed, chosen.databases) as harness:
        harness.expect()
        harness.twins(chosen.twins)
        harness.between_statements(chosen.between_statements)
        harness.kills(chosen.kills)
        without = {guard: harness.take_out(guard) for guard in chosen.without}
        report = {
            "seed": chosen.seed,
            "batches": harness.batches,
            "kills": sum(harness.phases.values()),
            "killed_while_writing": harness.killed_writing(),
            "phases": dict(harness.phases),
            "twins": chosen.twins,
            "problems": harness.problems,
            "without": without,
        }
    print(json.dumps(report, indent=2))
    return 1 if harness.problems or any(without.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
