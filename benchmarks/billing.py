"""`make bench-billing`: storage bills, allowances, events, larger plans, invoices, reports and single consumes at 1k, 10k and 100k
graphs, and beside them SQL functions in the style of pgledger (two entries per transfer, balances by row lock), on the same server in the same run.

Everything runs on an embedded server of its own with its shipped settings, fsync included. Consumers are processes of their own.
Of the events a tenth is appended twice and a twentieth is a month late; appending is one statement, metering the job. A tenth of the graphs
changes to a larger plan in mid-month; invoices are the fees of all of them, ten graphs to a customer. Beside the rates by
the clock stand processor seconds, which depend less on what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks import report

SIZES = {"1k": 1_000, "10k": 10_000, "100k": 100_000}
CLIENTS = 8
START = datetime(2026, 1, 1, tzinfo=UTC)

SEED = """
INSERT INTO robosystems.customers (customer_id, name) SELECT 'c' || n, 'c' || n FROM generate_series(0, %(n)s / 10) AS n;
INSERT INTO robosystems.graphs (graph_id, customer_id) SELECT 'g' || n, 'c' || n / 10 FROM generate_series(1, %(n)s) AS n;
INSERT INTO robosystems.subscriptions (subscription_id, customer_id, graph_id, plan, plan_at, state, state_at, activated_at)
SELECT 's' || n, 'c' || n / 10, 'g' || n, 'standard', %(at)s, 'active', %(at)s, %(at)s FROM generate_series(1, %(n)s) AS n;
INSERT INTO robosystems.accounts (name, graph_id, opened_at, opened_by)
SELECT 'graph:g' || n, 'g' || n, %(at)s, 'bench' FROM generate_series(1, %(n)s) AS n;
INSERT INTO robosystems.usage_snapshots (hour, account_id, files_bytes, tables_bytes, graph_bytes, subgraphs_bytes, plan,
                                         included_gb, measured_at)
SELECT h, a.id, 0, 0, 11000000000 + a.id * 1000, 0, 'standard', 10, h
FROM generate_series(%(at)s::timestamptz, %(at)s::timestamptz + interval '23 hours', '1 hour') AS h, robosystems.accounts AS a
WHERE a.graph_id IS NOT NULL;
"""
#: Every tenth changes to a larger plan on the 16th; all are invoiced.
CHANGES = """
INSERT INTO robosystems.plan_changes (subscription_id, effective_at, from_plan, plan, actor)
SELECT subscription_id, %(at)s::timestamptz + interval '15 days', plan, 'large', 'bench' FROM robosystems.subscriptions
WHERE substr(graph_id, 2)::int %% 10 = 0;
UPDATE robosystems.subscriptions SET fees_from = (%(at)s::timestamptz AT TIME ZONE 'UTC')::date
"""
#: Events: every tenth is appended twice, every twentieth occurred a month before.
EVENTS = """
INSERT INTO usage.events (event_id, source, kind, quantity, subject, occurred_at)
SELECT 'event:' || %(run)s || ':' || n - CASE WHEN n %% 10 = 0 THEN 1 ELSE 0 END, 'bench', 'kycc.party_scored', n %% 7 + 1,
       'g' || n %% %(n)s + 1, %(at)s::timestamptz - CASE WHEN n %% 20 = 7 THEN interval '31 days' ELSE interval '0' END
FROM generate_series(1, %(events)s) AS n
ON CONFLICT (event_id) DO NOTHING
"""
PEER = """
CREATE SCHEMA peer;
CREATE TABLE peer.accounts (id bigint PRIMARY KEY, balance numeric NOT NULL DEFAULT 0, version bigint NOT NULL DEFAULT 0,
                            allow_negative boolean NOT NULL DEFAULT true, updated_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE peer.transfers (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, from_account bigint NOT NULL REFERENCES peer.accounts,
                             to_account bigint NOT NULL REFERENCES peer.accounts, amount numeric NOT NULL CHECK (amount > 0),
                             created_at timestamptz NOT NULL DEFAULT now(), metadata jsonb);
CREATE TABLE peer.entries (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account_id bigint NOT NULL REFERENCES peer.accounts,
                           transfer_id bigint NOT NULL REFERENCES peer.transfers, amount numeric NOT NULL,
                           previous_balance numeric NOT NULL, current_balance numeric NOT NULL, version bigint NOT NULL);
CREATE INDEX ON peer.entries (account_id); CREATE INDEX ON peer.entries (transfer_id);
CREATE FUNCTION peer.move(source bigint, target bigint, value numeric) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE transfer bigint; held peer.accounts;
BEGIN
    PERFORM FROM peer.accounts WHERE id IN (source, target) ORDER BY id FOR UPDATE;
    INSERT INTO peer.transfers (from_account, to_account, amount) VALUES (source, target, value) RETURNING id INTO transfer;
    UPDATE peer.accounts SET balance = balance - value, version = version + 1, updated_at = now() WHERE id = source RETURNING * INTO held;
    IF NOT held.allow_negative AND held.balance < 0 THEN RAISE EXCEPTION 'short'; END IF;
    INSERT INTO peer.entries (account_id, transfer_id, amount, previous_balance, current_balance, version)
    VALUES (source, transfer, -value, held.balance + value, held.balance, held.version);
    UPDATE peer.accounts SET balance = balance + value, version = version + 1, updated_at = now() WHERE id = target RETURNING * INTO held;
    INSERT INTO peer.entries (account_id, transfer_id, amount, previous_balance, current_balance, version)
    VALUES (target, transfer, value, held.balance - value, held.balance, held.version);
    RETURN transfer;
END $$;
"""


def settings_of(home: Path) -> Any:
    from quayside.foundation.settings import Settings

    return Settings(_env_file=None, QUAYSIDE_HOME=str(home))  # pyright: ignore[reportCallIssue]


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def server_seconds(con: Any) -> float:
    """Processor seconds that this connection's server process has used: what a busy machine does not distort much."""
    fields = Path(f"/proc/{con.info.backend_pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measured(con: Any, found: dict[str, Any], name: str, work: Callable[[], Any]) -> Any:
    """Run something; its seconds, and those of the server, go into `found`."""
    before = server_seconds(con)
    found[f"{name}_seconds"], result = timed(work)
    found[f"{name}_server_seconds"] = round(server_seconds(con) - before, 3)
    return result


def fresh(home: Path) -> None:
    """The schema anew, with nothing in it."""
    from quayside.cli.db import registered_schemas
    from quayside.foundation.postgres import connect, dispose_engines, migrate

    settings = settings_of(home)
    with connect(settings, autocommit=True) as con:
        con.execute("DROP SCHEMA IF EXISTS robosystems CASCADE")
        con.execute("DROP SCHEMA IF EXISTS peer CASCADE")
    for spec in registered_schemas():
        if spec.name in ("ops", "robosystems"):
            migrate(settings, spec)
    dispose_engines()
    with connect(settings, autocommit=True) as con:
        con.execute("TRUNCATE usage.events")


def batch(home: Path, graphs: int, days: int = 1) -> dict[str, Any]:
    """Allowances, storage bills and events of so many graphs."""
    from quayside.foundation.postgres import connect
    from quayside.robosystems.billing import allocate, bill_storage
    from quayside.robosystems.usage import meter

    fresh(home)
    found: dict[str, Any] = {"graphs": graphs}
    with connect(settings_of(home), autocommit=True) as con:
        for statement in SEED.split(";\n"):
            if statement.strip():
                con.execute(statement.encode(), {"n": graphs, "at": START})
        con.execute("VACUUM ANALYZE")
        con.execute("CHECKPOINT")
        done = measured(
            con, found, "allowance", lambda: allocate(con, START.date(), at=START + timedelta(hours=1))
        )
        assert done.graphs == graphs
        con.execute("CHECKPOINT")
        at = START + timedelta(days=2)
        done = measured(con, found, "storage", lambda: bill_storage(con, START.date(), at=at))
        assert done.graph_days_written == graphs
        done = measured(con, found, "storage_again", lambda: bill_storage(con, START.date(), at=at))
        assert done.graph_days_written == 0
        events = min(500_000, graphs * 5)
        found["events"] = events
        for run in range(2):
            name = "events" if run == 0 else "events_second_batch"
            appended = {"run": run, "n": graphs, "events": events, "at": at}
            measured(con, found, f"{name}_appended", lambda to=appended: con.execute(EVENTS.encode(), to))
            con.execute("ANALYZE usage.events")
            con.execute("CHECKPOINT")
            metered = measured(con, found, name, lambda: meter(con, at=at))
            assert metered.events == events - events // 10
        found["meter_nothing_seconds"], _ = timed(lambda: meter(con, at=at))
        monthly(con, found, graphs)
        # The simplest thing: a transfer per graph by the peer's function, in one statement.
        con.execute(PEER.encode())
        con.execute(
            b"INSERT INTO peer.accounts (id) SELECT id FROM robosystems.accounts WHERE graph_id IS NOT NULL OR id = 2"
        )
        con.execute("CHECKPOINT")
        some = min(graphs, 10_000)
        found["peer_graphs"] = some
        found["peer_seconds"], _ = timed(
            lambda: con.execute(
                f"SELECT count(peer.move(id, 100 + (id * 7 + 1) % {graphs}, 5)) FROM (SELECT id FROM peer.accounts WHERE id > 99 ORDER BY id LIMIT {some}) AS a".encode()
            )
        )
    return found


def monthly(con: Any, found: dict[str, Any], graphs: int) -> None:
    """What the end of a month costs: larger plans, invoices, the report."""
    from quayside.robosystems.billing import apply_upgrades, bill_month
    from quayside.robosystems.reports import usage_report

    for statement in CHANGES.split(";\n"):
        con.execute(statement.encode(), {"at": START})
    con.execute("VACUUM ANALYZE")
    con.execute("CHECKPOINT")
    done = measured(con, found, "larger", lambda: apply_upgrades(con, at=START + timedelta(days=15)))
    assert done.graphs == graphs // 10
    found["larger_nothing_seconds"], _ = timed(lambda: apply_upgrades(con, at=START + timedelta(days=15)))
    january, over = START.date(), START + timedelta(days=31)
    done = measured(con, found, "invoices", lambda: bill_month(con, january, at=over))
    assert done.fees == graphs + graphs // 10
    found["invoices"], found["debts"] = done.invoices, done.graphs
    done = measured(con, found, "invoices_again", lambda: bill_month(con, january, at=over))
    assert done.invoices == 0
    done = measured(con, found, "report", lambda: usage_report(con, january, now=over))
    assert len(done.rows) == graphs


def consumer(home: str, number: int, seconds: float, graphs: int, peer: bool, start: Any, done: Any) -> None:
    """A client: consumes from one graph after the other until its time is over; tells how often, and its and its server's
    processor seconds."""
    from quayside.foundation.postgres import connect
    from quayside.robosystems.ledger import Ledger

    with connect(settings_of(Path(home)), autocommit=True) as con:
        ledger, count = Ledger(con), 0
        con.execute("SELECT count(*) FROM robosystems.accounts")
        start.wait()
        processor, server = time.process_time(), server_seconds(con)
        stop = time.perf_counter() + seconds
        while time.perf_counter() < stop:
            graph = (number * 7919 + count * 31) % graphs + 1
            if peer:
                con.execute("SELECT peer.move(%s, 2, 1)", [99 + graph])
            else:
                ledger.consume(
                    f"g{graph}", 1, key=f"bench:{seconds}:{graphs}:{number}:{count}", operation="query"
                )
            count += 1
        done.put((count, time.process_time() - processor, server_seconds(con) - server))


def consume(home: Path, graphs: int, seconds: float, peer: bool) -> dict[str, Any]:
    """Single consumes a second by all clients, and whether the books hold exactly as many."""
    from quayside.foundation.postgres import connect

    context = multiprocessing.get_context("fork")
    start, done = context.Barrier(CLIENTS), context.Queue()
    clients = [
        context.Process(target=consumer, args=(str(home), n, seconds, graphs, peer, start, done))
        for n in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    counts, processor, server = (sum(each) for each in zip(*(done.get() for _ in clients), strict=True))
    for client in clients:
        client.join()
    with connect(settings_of(home), autocommit=True) as con:
        if peer:
            row = con.execute("SELECT balance FROM peer.accounts WHERE id = 2").fetchone()
        else:
            row = con.execute(
                "SELECT count(*) FROM robosystems.transfers WHERE key LIKE %s",
                [f"bench:{seconds}:{graphs}:%"],
            ).fetchone()
        wrong = con.execute(
            "SELECT count(*) FROM robosystems.accounts AS a LEFT JOIN (SELECT account_id, sum(amount) AS total"
            " FROM robosystems.entries GROUP BY 1) AS e ON e.account_id = a.id WHERE a.id > 99 AND a.balance <> coalesce(e.total, 0)"
        ).fetchone()
    assert row is not None
    assert wrong == (0,)
    return {
        "clients": CLIENTS,
        "graphs": graphs,
        "per_second": counts / seconds,
        "client_microseconds": processor / counts * 1e6,
        "server_microseconds": server / counts * 1e6,
        "lost": counts - int(row[0]),
    }


def single(home: Path, seconds: float) -> dict[str, Any]:
    from quayside.foundation.postgres import connect
    from quayside.robosystems.billing import allocate, expire_credits

    fresh(home)
    with connect(settings_of(home), autocommit=True) as con:
        for statement in SEED.split("INSERT INTO robosystems.usage_snapshots")[0].split(";\n"):
            if statement.strip():
                con.execute(statement.encode(), {"n": 1000, "at": START})
        allocate(con, START.date(), at=START + timedelta(hours=1))
        expire_credits(con)  # as the monthly job does; else the first consumption of each account would
        con.execute("UPDATE robosystems.accounts SET may_overdraw = true WHERE id > 99")
        con.execute(PEER.encode())
        con.execute(
            b"INSERT INTO peer.accounts (id) SELECT id FROM robosystems.accounts WHERE graph_id IS NOT NULL OR id = 2"
        )
        con.execute("VACUUM ANALYZE")
    from quayside.foundation.postgres import dispose_engines

    dispose_engines()
    return {
        "many accounts": consume(home, 1000, seconds, False),
        "one account": consume(home, 1, seconds, False),
        "pgledger style, one system account": consume(home, 1000, seconds, True),
    }


def tick(home: Path) -> dict[str, float]:
    """A sensor's look for work beside little and much history."""
    from quayside.foundation.postgres import connect
    from quayside.robosystems.provisioning.claims import claim

    fresh(home)
    found = {}
    with connect(settings_of(home), autocommit=True) as con:
        con.execute("INSERT INTO robosystems.customers (customer_id, name) VALUES ('c', 'c')")
        before = 0
        for history in (1_000, 100_000):
            con.execute(
                "INSERT INTO robosystems.subscriptions (subscription_id, customer_id, graph_id, plan, state, activated_at)"
                " SELECT 's' || n, 'c', 'g' || n, 'standard', CASE WHEN n %% 2 = 0 THEN 'active' ELSE 'ended' END, now()"
                " FROM generate_series(%s::int, %s::int) AS n",
                [before + 1, history],
            )
            before = history
            con.execute("VACUUM ANALYZE robosystems.subscriptions")
            runs = sorted(timed(lambda: claim(con, "provisioning", limit=50))[0] for _ in range(30))
            found[f"{history} subscriptions, milliseconds"] = runs[len(runs) // 2] * 1000
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--skip", nargs="*", default=[], choices=["batch", "single", "tick"])
    chosen = parser.parse_args()
    from quayside.foundation.postgres import EmbeddedPostgres

    folder = Path(tempfile.mkdtemp(prefix="quayside-bench-"))
    folder.chmod(0o711)
    home = folder / "home"
    results: dict[str, Any] = {"load_before": os.getloadavg()[0]}
    try:
        if "batch" not in chosen.skip:
            results["batch"] = {size: batch(home, SIZES[size]) for size in chosen.sizes}
        if "single" not in chosen.skip:
            results["single"] = single(home, chosen.seconds)
        if "tick" not in chosen.skip:
            results["tick"] = tick(home)
    finally:
        EmbeddedPostgres(home).stop()
        shutil.rmtree(folder)
    results["load_after"] = os.getloadavg()[0]
    about = f"{report.machine()}. {report.versions('quayside', 'psycopg')}."
    lines = "\n".join(f"- {line}" for line in told(results))
    print(lines)
    print(json.dumps(results, indent=2))
    if not chosen.skip and set(chosen.sizes) == set(SIZES):
        report.write_section("billing", "make bench-billing", about, f"{__doc__}\n\n{lines}")


def told(results: dict[str, Any]) -> Iterator[str]:
    """The figures as lines for a person."""
    for size, row in results.get("batch", {}).items():
        n, events = row["graphs"], row["events"]
        yield (
            f"{size} graphs: allowance {n / row['allowance_seconds']:,.0f} graphs/s, storage {n / row['storage_seconds']:,.0f} graphs/s, "
            f"storage again {row['storage_again_seconds']:.2f} s; processor seconds of the server: allowance "
            f"{row['allowance_server_seconds']:.2f}, storage {row['storage_server_seconds']:.2f}; "
            f"pgledger style {row['peer_graphs'] / row['peer_seconds']:,.0f} transfers/s in one statement"
        )
        yield (
            f"{size} graphs, {events:,} events: appended {events / row['events_appended_seconds']:,.0f}/s, metered "
            f"{events / row['events_seconds']:,.0f}/s and as many again {events / row['events_second_batch_seconds']:,.0f}/s, "
            f"nothing new {row['meter_nothing_seconds'] * 1000:.0f} ms; processor seconds of the server: appended "
            f"{row['events_appended_server_seconds']:.2f}, metered {row['events_server_seconds']:.2f}, then "
            f"{row['events_second_batch_server_seconds']:.2f}"
        )
        yield (
            f"{size} graphs: larger plans {n / 10 / row['larger_seconds']:,.0f}/s, nothing new {row['larger_nothing_seconds'] * 1000:.0f} ms; "
            f"invoices of {n * 1.1:,.0f} fees {n / row['invoices_seconds']:,.0f} graphs/s ({row['invoices']:,} invoices), again "
            f"{row['invoices_again_seconds']:.2f} s; report {n / row['report_seconds']:,.0f} graphs/s; processor seconds of the "
            f"server: larger plans {row['larger_server_seconds']:.2f}, invoices {row['invoices_server_seconds']:.2f}, again "
            f"{row['invoices_again_server_seconds']:.2f}, report {row['report_server_seconds']:.2f}"
        )
    for name, row in results.get("single", {}).items():
        yield (
            f"single consumes, {name}: {row['per_second']:,.0f}/s by {row['clients']} clients, {row['lost']} lost; processor "
            f"microseconds of each: client {row['client_microseconds']:.0f}, server {row['server_microseconds']:.0f}"
        )
    for name, value in results.get("tick", {}).items():
        yield f"sensor tick with {name}: {value:.2f}"
    yield f"load average {results['load_before']:.1f} before, {results['load_after']:.1f} after"


if __name__ == "__main__":
    main()
