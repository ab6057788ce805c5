"""Kill billing at random moments, run it again, and compare its books with those that nothing happened to.

    python -m tests.faults.billing --kills 200 --seed 1

Every round takes fresh books with customers, snapshots, usage events, grants and debts, and runs two months of jobs on them: collection,
metering, storage bills, overage, allowances, expiry, report. Runs are killed on the way (the process after one of its statements
or at any moment; its database connection; the whole server) and started again until one comes through; then all jobs run once more,
and in other rounds two processes run them at once. Whatever happened, the books have to be the undisturbed ones to the credit, the
invoice numbers without gap or repeat, and the checks of the books find nothing.

The meetings of two sessions that a guard exists for are staged, not left to luck: the second one is seen waiting for the first.
And a server is cut off under consumers: what one of them was told is taken has to be in the books when it is back.
``--without key lock transaction number`` takes guards out, one after the other; the harness must then fail of each.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg

import quayside.cli.db
import quayside.robosystems.ledger.ledger as verbs
from quayside.foundation.errors import QuaysideError
from quayside.foundation.postgres import EmbeddedPostgres, connect, dispose_engines, migrate
from quayside.foundation.settings import Settings
from quayside.foundation.usage import UsageEvent, append
from quayside.robosystems.billing import (
    allocate,
    apply_upgrades,
    bill_month,
    bill_storage,
    expire_credits,
    work,
)
from quayside.robosystems.billing.invoicing import add_lines, begin_lines, issue_lines
from quayside.robosystems.ledger import Ledger
from quayside.robosystems.ledger.posting import Author
from quayside.robosystems.reports import store, usage_report
from quayside.robosystems.usage import collect, meter
from tests.faults.harness import PhaseCell, fork, kill_when, wait
from tests.robosystems.books import BOOKS, GB, START, FixedSizes, snapshots, subscribe

GRAPHS = 12
CONSUMERS, TOLD = 4, 400
FEBRUARY = datetime(2026, 2, 1, tzinfo=UTC)
MARCH = datetime(2026, 3, 1, tzinfo=UTC)
SIZES = FixedSizes({f"g{number}": (8 + 3 * number) * GB for number in range(1, GRAPHS)})  # g0 does not answer
WITHOUT = ("key", "lock", "transaction", "number")

cell = PhaseCell()


def settings_of(home: Path, database: str | None = None) -> Settings:
    url = {}
    if database is not None:
        own = EmbeddedPostgres(home).url
        url = {"QUAYSIDE_DATABASE_URL": own.replace("/quayside?", f"/{database}?")}
    return Settings(_env_file=None, QUAYSIDE_HOME=str(home), **url)  # pyright: ignore[reportCallIssue]


@contextmanager
def private_books() -> Iterator[tuple[Settings, psycopg.Connection[Any]]]:
    """A server of one's own with empty books."""
    folder = Path(tempfile.mkdtemp(prefix="quayside-books-"))
    folder.chmod(0o711)  # as root, the database server's own user has to pass
    settings = settings_of(folder / "home")
    try:
        for spec in quayside.cli.db.registered_schemas():
            migrate(settings, spec)
        dispose_engines()
        with connect(settings, autocommit=True) as con:
            yield settings, con
    finally:
        EmbeddedPostgres(settings.home).stop()
        shutil.rmtree(folder)


# -- what happens in the books ---------------------------------------------------------------------------------------


def prepare(con: psycopg.Connection[Any]) -> None:
    """Graphs of three customers with debts, grants that expire, measured days and usage events, late ones among them."""
    ledger = Ledger(con)
    with con.transaction():
        for number in range(GRAPHS):
            graph, plan = f"g{number}", ("standard", "large")[number % 2]
            account = subscribe(
                con,
                graph,
                plan,
                at=START + timedelta(days=number, hours=5),
                customer=f"customer-{number % 3}",
                may_overdraw=True,
            )
            for day in (20, 21):
                snapshots(
                    con,
                    account,
                    START + timedelta(days=day),
                    [(8 + 5 * number + hour) * GB for hour in range(0, 24, 4)],
                    plan,
                    10 if plan == "standard" else 50,
                )
        con.execute("UPDATE robosystems.subscriptions SET fees_from = '2026-01-01' WHERE graph_id <> 'g0'")
        con.execute(
            "INSERT INTO robosystems.plan_changes (subscription_id, effective_at, from_plan, plan, actor)"
            " SELECT subscription_id, '2026-01-23 12:00Z', plan, 'xlarge', 'test' FROM robosystems.subscriptions"
            " WHERE graph_id IN ('g2', 'g3')"
        )
        allocate(con, date(2026, 1, 1), at=START + timedelta(days=15))
        for number in range(GRAPHS):
            at = START + timedelta(days=16)
            ledger.grant(
                f"g{number}",
                100 + number,
                key=f"grant:{number}",
                at=at,
                expires_at=FEBRUARY - timedelta(days=3),
            )
            ledger.consume(
                f"g{number}", Decimal("2700.5") * number, key=f"use:{number}", at=at
            ) if number else None
        append(
            con,
            [
                UsageEvent(
                    f"e{n}",
                    "kycc",
                    "kycc.party_scored",
                    n,
                    f"g{n % GRAPHS}",
                    START + timedelta(days=17 + n % 3),
                )
                for n in range(60)
            ]
            + [UsageEvent("unknown", "kycc", "kycc.party_scored", 1, "nobody", START)],
        )


def jobs(folder: Path) -> list[tuple[str, Callable[[psycopg.Connection[Any]], object]]]:
    """Two months of jobs by name. Their times are fixed, so that every run books alike."""
    january, february = date(2026, 1, 1), date(2026, 2, 1)
    day = START + timedelta(days=23)

    def report(month: date, at: datetime) -> Callable[[psycopg.Connection[Any]], object]:
        def upload(file: Any, key: str) -> str:
            target = folder / key.replace("/", "_")
            part = target.with_suffix(f".{os.getpid()}")
            part.write_bytes(file.read())
            part.rename(target)
            return str(target)

        return lambda con: store(con, usage_report(con, month, now=at), upload, at=at)

    return [
        ("collect", lambda con: collect(con, START + timedelta(days=21, hours=3), SIZES, at=day)),
        ("meter", lambda con: meter(con, at=day, batch=25)),
        ("storage", lambda con: bill_storage(con, date(2026, 1, 21), date(2026, 1, 22), at=day)),
        ("upgrades", lambda con: apply_upgrades(con, at=day)),
        ("invoices", lambda con: bill_month(con, january, at=FEBRUARY)),
        ("allocate", lambda con: allocate(con, february, at=FEBRUARY)),
        ("expire", lambda con: expire_credits(con, at=FEBRUARY)),
        ("report", report(january, FEBRUARY + timedelta(days=1))),
        ("invoices", lambda con: bill_month(con, february, at=MARCH)),
        ("allocate", lambda con: allocate(con, date(2026, 3, 1), at=MARCH)),
        ("expire", lambda con: expire_credits(con, at=MARCH)),
        ("report", report(february, MARCH + timedelta(days=1))),
    ]


def run_jobs(settings: Settings, folder: Path) -> None:
    """All jobs, one after the other, as one process would run them; each in several transactions, between which kills fall."""
    work.CHUNK = GRAPHS // 2
    with connect(settings, autocommit=True) as con:
        for name, job in jobs(folder):
            cell.enter(name)
            job(con)


def state(settings: Settings) -> dict[str, Any]:
    """What the books say, apart from ids and clocks, and what is wrong with them."""
    with connect(settings, autocommit=True) as con:

        def rows(query: str) -> list[list[str]]:
            return [[str(value) for value in row] for row in con.execute(query.encode())]

        checks = [
            f"{check.name}: {found}"
            for check in BOOKS
            if (found := con.execute(check.query.encode(), {"now": MARCH}).fetchall())
        ]
        return {
            "accounts": rows("SELECT name, balance, held FROM robosystems.accounts ORDER BY name"),
            # How many transfers a day's events became depends on the batches they came in, and so on the kills.
            "transfers": rows(
                "SELECT a.name, t.kind, t.operation, t.period, t.effective_at, t.booked_at, sum(t.amount),"
                " count(*) FILTER (WHERE t.key NOT LIKE 'events:%')"
                " FROM robosystems.transfers AS t JOIN robosystems.accounts AS a ON a.id = t.account_id"
                " GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6"
            ),
            "grants": rows(
                "SELECT a.name, g.source, g.amount, g.remaining, g.expires_at FROM robosystems.grants AS g"
                " JOIN robosystems.accounts AS a ON a.id = g.account_id ORDER BY 1, 2, 3, 5"
            ),
            "bills": rows(
                "SELECT a.name, b.day, b.hours_measured, b.credits FROM robosystems.storage_bills AS b"
                " JOIN robosystems.accounts AS a ON a.id = b.account_id ORDER BY 1, 2"
            ),
            "invoices": rows(
                "SELECT customer_id, period, state, total_cents, due_on FROM robosystems.invoices ORDER BY 1, 2"
            ),
            "lines": rows(
                "SELECT graph_id, kind, period, plan, quantity, amount_cents FROM robosystems.invoice_lines ORDER BY 1, 2, 3, 4"
            ),
            "numbers": rows("SELECT series, number FROM robosystems.invoices ORDER BY 1, 2"),
            "events": rows("SELECT state, count(*) FROM robosystems.metered_events GROUP BY 1 ORDER BY 1"),
            "snapshots": rows("SELECT count(*), count(total_bytes) FROM robosystems.usage_snapshots"),
            "reports": rows("SELECT month, sha256 FROM robosystems.usage_reports ORDER BY 1"),
            "checks": checks,
        }


# -- the harness -----------------------------------------------------------------------------------------------------


def watch_statements(fatal_statement: int) -> None:
    """In a child: tell the harness of every statement that was run, and end the process after the fatal one."""
    original = psycopg.Connection.execute

    def execute(self: Any, *arguments: Any, **options: Any) -> Any:
        result = original(self, *arguments, **options)
        cell.enter(cell.read()[1], writes=True)
        if fatal_statement and cell.read()[0] >= fatal_statement:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    psycopg.Connection.execute = execute  # pyright: ignore[reportAttributeAccessIssue]


class Harness:
    """One run of the harness: its server, its random numbers, what it counted and what it found wrong."""

    def __init__(self, seed: int) -> None:
        self.random, self.without, self.template = random.Random(seed), None, "seeded"
        self.folder = Path(tempfile.mkdtemp(prefix="quayside-faults-"))
        self.folder.chmod(0o711)
        self.home = self.folder / "home"
        self.phases: Counter[str] = Counter()
        self.killed: Counter[str] = Counter()
        self.problems: list[str] = []
        self.rounds = 0

    def __enter__(self) -> Harness:
        self.in_child(self._make_template)
        return self

    def __exit__(self, *_: object) -> None:
        EmbeddedPostgres(self.home).stop()
        shutil.rmtree(self.folder)

    def _make_template(self) -> None:
        server = settings_of(self.home)
        with connect(server, autocommit=True) as con:
            # Processes die here, the machine does not: what a server has written is there when it starts again.
            con.execute("ALTER SYSTEM SET fsync = off")
            con.execute("SELECT pg_reload_conf()")
            con.execute("CREATE DATABASE seeded")
        seeded = settings_of(self.home, "seeded")
        for spec in quayside.cli.db.registered_schemas():
            if spec.name in ("ops", "robosystems"):
                migrate(seeded, spec)
        dispose_engines()
        with connect(seeded, autocommit=True) as con:
            prepare(con)

    def take_out(self, guard: str) -> None:
        """From now on books have one guard less than they should."""

        def change() -> None:
            with connect(settings_of(self.home), autocommit=True) as con:
                con.execute(f"CREATE DATABASE without_{guard} TEMPLATE seeded")
            with connect(settings_of(self.home, f"without_{guard}"), autocommit=True) as con:
                if guard == "number":
                    con.execute(
                        "CREATE OR REPLACE FUNCTION robosystems.take_number() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                        " SELECT count(*) + 1 INTO NEW.number FROM robosystems.invoices WHERE series = NEW.series;"
                        " RETURN NEW; END $$"
                    )
                if guard == "key":
                    con.execute("ALTER TABLE robosystems.transfers DROP CONSTRAINT transfers_key_key")

        self.in_child(change)
        self.without, self.template = guard, f"without_{guard}"

    def in_child(self, work: Callable[[], Any]) -> Any:
        """Result of `work` from a child, so that this process opens nothing and may go on forking."""
        out = self.folder / "result.json"

        def keep() -> None:
            out.write_text(json.dumps(work()))

        if code := wait(fork(keep)):
            raise RuntimeError(f"a helper process of the harness ended with {code}")
        return json.loads(out.read_text())

    def new_books(self) -> Settings:
        self.rounds += 1
        name = f"round_{self.rounds}"

        def create() -> None:
            with connect(settings_of(self.home), autocommit=True) as con:
                con.execute(f"CREATE DATABASE {name} TEMPLATE {self.template}")
                if self.rounds > 3:
                    con.execute(f"DROP DATABASE IF EXISTS round_{self.rounds - 3} WITH (FORCE)")

        self.in_child(create)
        return settings_of(self.home, name)

    def child(self, settings: Settings, fatal_statement: int = 0) -> int:
        cell.reset()

        def work() -> None:
            watch_statements(fatal_statement)
            if self.without == "transaction":
                psycopg.Connection.transaction = lambda *_, **__: nullcontext()  # pyright: ignore[reportAttributeAccessIssue]
            run_jobs(settings, self.folder)

        return fork(work)

    def expect(self) -> None:
        """Run everything undisturbed: what the books have to become, and the time and statements that takes."""
        settings = self.new_books()

        def undisturbed() -> float:
            started = time.perf_counter()
            run_jobs(settings, self.folder)
            return time.perf_counter() - started

        self.seconds = self.in_child(undisturbed)
        self.expected = self.in_child(lambda: state(settings))
        self.problems += self.expected["checks"]
        settings = self.new_books()
        if code := wait(self.child(settings)):
            self.problems.append(f"a run that nothing happened to ended with {code}")
        self.statements = cell.read()[0]
        self.compare(settings, "a run that nothing happened to")

    def compare(self, settings: Settings, after: str) -> None:
        found = self.in_child(lambda: state(settings))
        for name, expected in self.expected.items():
            if found[name] != expected:
                wrong = [row for row in found[name] if row not in expected][:2]
                missing = [row for row in expected if row not in found[name]][:2]
                self.problems.append(f"{after}: {name} differ: {wrong} instead of {missing}")

    def kill_process(self, settings: Settings) -> bool:
        """Kill the process after one of its statements, or at any moment; whether it died of it."""
        if self.random.random() < 0.6:
            pid = self.child(settings, self.random.randint(1, self.statements))
            code = wait(pid)
            died = code == -signal.SIGKILL
        else:
            pid = self.child(settings)
            at = time.perf_counter() + self.random.uniform(0, self.seconds)
            death = kill_when(pid, cell, lambda: time.perf_counter() >= at)
            code, died = death.exit_code, death.killed
        return self.noted("process", died, code)

    def kill_connection(self, settings: Settings) -> bool:
        """Cut the connection by which the process works."""

        def cut() -> None:
            with connect(settings_of(self.home), autocommit=True) as con:
                con.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                    [f"round_{self.rounds}"],
                )

        return self.noted("connection", *self.disturb(settings, lambda: self.in_child(cut)))

    def crash(self) -> None:
        """Let the server die; what it had not written by then is lost."""
        pid = EmbeddedPostgres(self.home).status().pid
        assert pid is not None
        os.kill(pid, signal.SIGQUIT)
        while Path(f"/proc/{pid}").exists():
            time.sleep(0.005)

    def restart(self) -> None:
        self.in_child(lambda: EmbeddedPostgres(self.home).start() and None)

    def kill_server(self, settings: Settings) -> bool:
        """Let the server die as in a crash, and start it again."""
        died, code = self.disturb(settings, self.crash)
        self.restart()
        return self.noted("server", died, code)

    def disturb(self, settings: Settings, strike: Callable[[], None]) -> tuple[bool, int]:
        """Run the jobs and strike once a chosen statement was run; whether that ended the run, and its exit code."""
        target = self.random.randint(1, self.statements)
        pid = self.child(settings)
        while cell.read()[0] < target:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                strike()
                return False, os.waitstatus_to_exitcode(status)
            time.sleep(0.0005)
        strike()
        code = wait(pid)
        return code != 0, code

    def noted(self, what: str, died: bool, code: int) -> bool:
        if died:
            self.killed[what] += 1
            self.phases[cell.read()[1]] += 1
        elif code:
            self.problems.append(f"a run failed by itself in phase {cell.read()[1]} with {code}")
        return died

    def kills(self, wanted: int) -> None:
        while self.killed.total() < wanted:
            settings = self.new_books()
            for _ in range(self.random.randint(1, 4)):
                strike = self.random.choices(
                    (self.kill_process, self.kill_connection, self.kill_server), (10, 3, 1)
                )[0]
                strike(settings)
            for again in ("run again", "and once more"):
                if wait(self.child(settings)):
                    self.problems.append(f"round {self.rounds}: {again} after the kills failed")
                self.compare(settings, f"round {self.rounds}, killed, {again}")
            print(f"round {self.rounds}: {dict(self.killed)}", file=sys.stderr)

    def twins(self, rounds: int) -> None:
        """Two processes run all jobs at once, one of them killed in half of the rounds."""
        for number in range(rounds):
            settings = self.new_books()
            pair = [self.child(settings), self.child(settings, self.statements // 2 if number % 2 else 0)]
            codes = [wait(pid) for pid in pair]
            if any(code not in (0, -signal.SIGKILL) for code in codes):
                self.problems.append(f"round {self.rounds}: of two runs at once, one failed: {codes}")
            if wait(self.child(settings)):
                self.problems.append(f"round {self.rounds}: the run after two at once failed")
            self.compare(settings, f"round {self.rounds}, two runs at once")

    def staged(self) -> None:
        """The meetings the guards are there for."""
        settings = self.new_books()
        self.problems += self.in_child(lambda: meetings(settings, self.without))

    def promises(self) -> None:
        """The server dies under consumers of one account and of several: what they were told is taken is in the books."""
        settings = self.new_books()
        files = [self.folder / f"told.{number}" for number in range(CONSUMERS)]
        pids = [fork(lambda n=n, f=f: consume_until_cut(settings, n, f)) for n, f in enumerate(files)]

        def told() -> list[str]:
            return [key for file in files if file.exists() for key in file.read_text().split()]

        look = os.WEXITED | os.WNOHANG | os.WNOWAIT
        while len(told()) < TOLD and all(os.waitid(os.P_PID, pid, look) is None for pid in pids):
            time.sleep(0.005)
        self.crash()
        codes = [wait(pid) for pid in pids]
        self.restart()
        lost = self.in_child(lambda: missing(settings, told()))
        if any(codes) or lost:
            self.problems.append(
                f"the server died under consumers: {len(lost)} of {len(told())} promised consumptions are lost, {codes}"
            )

    def report(self) -> dict[str, Any]:
        return {
            "rounds": self.rounds,
            "kills": self.killed.total(),
            "killed": dict(self.killed),
            "phases": dict(self.phases),
            "problems": self.problems,
        }


# -- staged meetings -------------------------------------------------------------------------------------------------


def meetings(settings: Settings, without: str | None) -> list[str]:
    """Two sessions at one account, at one key and at one series of invoices; what went wrong."""
    if without == "lock":
        verbs._CONSUME = verbs._CONSUME.replace("FOR NO KEY UPDATE", "")  # pyright: ignore[reportPrivateUsage, reportConstantRedefinition]
    if without == "key":
        verbs._CONSUME = verbs._CONSUME.replace("ON CONFLICT (key) DO NOTHING", "")  # pyright: ignore[reportPrivateUsage, reportConstantRedefinition]
    found: list[str] = []
    at = START + timedelta(days=24)

    def consume(key: str, amount: int) -> Callable[[psycopg.Connection[Any]], object]:
        return lambda con: Ledger(con).consume("g1", amount, key=key, at=at)

    with connect(settings, autocommit=True) as con:
        before = Ledger(con).balance("g1", at=at).balance
    found += met(settings, "two consumers of one account", consume("one", 5), consume("two", 7))
    found += met(settings, "one unit of work by two", consume("same", 100), consume("same", 100))
    with connect(settings, autocommit=True) as con:
        taken = before - Ledger(con).balance("g1", at=at).balance
        if taken != 112:
            found.append(f"two consumers and a repeated unit of work took {taken} credits instead of 112")

    found += met(settings, "two that meter", lambda con: meter(con, at=at), lambda con: meter(con, at=at))

    def invoice(customer: str) -> Callable[[psycopg.Connection[Any]], object]:
        def work(con: psycopg.Connection[Any]) -> object:
            line = "SELECT %(customer)s, 'other', '2026-01-01'::date, 'test', 1, 1, 100"
            columns = "customer_id, kind, period, description, quantity, unit_usd, amount_cents"
            author = Author(at, "test")
            with con.transaction():
                begin_lines(con)
                add_lines(con, columns, line, {"customer": customer})
                return issue_lines(con, date(2026, 1, 1), author)

        return work

    found += met(settings, "two invoices of one series", invoice("customer-1"), invoice("customer-2"))
    with connect(settings, autocommit=True) as con:
        numbers = [row[0] for row in con.execute("SELECT number FROM robosystems.invoices ORDER BY number")]
        if numbers != [1, 2]:
            found.append(f"two invoices at once have the numbers {numbers}")
    return found


def consume_until_cut(settings: Settings, number: int, told: Path) -> None:
    """Consume until the server is gone, noting every consumption once it is answered."""
    graph = "g1" if number % 2 else f"g{number + 2}"
    with told.open("ab", buffering=0) as notes, connect(settings, autocommit=True) as con:
        ledger = Ledger(con)
        for count in range(1_000_000):
            try:
                ledger.consume(graph, 1, key=f"told:{number}:{count}", at=MARCH)
            except (psycopg.OperationalError, QuaysideError):
                return
            notes.write(f"told:{number}:{count}\n".encode())


def missing(settings: Settings, keys: list[str]) -> list[str]:
    """Those of the keys that no transfer has; and a line for each check of the books that finds something."""
    with connect(settings, autocommit=True) as con:
        found = con.execute("SELECT key FROM robosystems.transfers WHERE key LIKE 'told:%'").fetchall()
    return sorted(set(keys) - {row[0] for row in found}) + state(settings)["checks"]


def met(
    settings: Settings,
    what: str,
    first: Callable[[psycopg.Connection[Any]], object],
    second: Callable[[psycopg.Connection[Any]], object],
) -> list[str]:
    """The first works and does not commit until the second waits for it or is through; what either says."""
    said: list[str] = []
    with (
        connect(settings) as a,
        connect(settings, autocommit=True) as b,
        connect(settings, autocommit=True) as eye,
    ):
        a.execute("SELECT")  # begins the transaction that everything of the first belongs to
        first(a)

        def follow() -> None:
            try:
                second(b)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is what this is about
                said.append(f"{what}: the second failed: {str(error).splitlines()[0]}")

        thread = threading.Thread(target=follow)
        thread.start()
        while thread.is_alive():
            row = eye.execute(
                "SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s", [b.info.backend_pid]
            ).fetchone()
            if row is not None and row[0] == "Lock":
                break
            time.sleep(0.002)
        a.commit()
        thread.join()
    return said


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--twins", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--without", nargs="+", choices=WITHOUT, default=[])
    chosen = parser.parse_args()
    with Harness(chosen.seed) as harness:
        for guard in chosen.without:
            found = len(harness.problems)
            harness.take_out(guard)
            harness.staged()
            if guard == "transaction":
                harness.expect()
            harness.problems[found:] = [f"without {guard}: {each}" for each in harness.problems[found:]]
        if not chosen.without:
            harness.staged()
            harness.promises()
            harness.expect()
            harness.twins(chosen.twins)
            harness.kills(chosen.kills)
        report = {"seed": chosen.seed, "twins": chosen.twins, **harness.report()}
    print(json.dumps(report, indent=2))
    return 1 if harness.problems else 0


if __name__ == "__main__":
    sys.exit(main())
