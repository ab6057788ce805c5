"""Provisioning: killed after every step and run again there is one result; given up, nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from tests.robosystems.shared import module_settings  # noqa: F401  a fixture

from quayside.foundation.errors import ServiceUnavailableError
from quayside.foundation.postgres import connect
from quayside.foundation.settings import Settings
from quayside.robosystems.graphs import GraphStore
from quayside.robosystems.graphs.backup import backups
from quayside.robosystems.ledger import Ledger
from quayside.robosystems.periods import days_in, month_of, utc_now
from quayside.robosystems.provisioning import (
    MAX_ATTEMPTS,
    STEPS,
    AttemptOverError,
    GivenUpError,
    Provisioner,
    claim,
    end_subscription,
    provision,
)
from quayside.robosystems.provisioning.claims import pause_after
from quayside.robosystems.storage import object_store
from quayside.robosystems.subscriptions import Subscription, Subscriptions

pytestmark = pytest.mark.integration
LATER = timedelta(days=1)


@pytest.fixture
def settings(module_settings: Settings) -> Settings:  # noqa: F811  the fixture
    return module_settings


@pytest.fixture
def con(settings: Settings) -> Iterator[psycopg.Connection[Any]]:
    with connect(settings, autocommit=True) as connection:
        connection.execute("SET lock_timeout = '60s'")  # who waits for itself shall fail
        yield connection
        # No other test may find work here.
        connection.execute(
            "UPDATE robosystems.subscriptions SET next_attempt_at = 'infinity' WHERE state IN ('provisioning', 'canceled')"
        )


@pytest.fixture
def graphs(settings: Settings) -> GraphStore:
    return GraphStore(settings.graphs_path, buffer_pool_bytes=64 * 2**20)


@pytest.fixture
def provisioner(settings: Settings, con: psycopg.Connection[Any], graphs: GraphStore) -> Provisioner:
    return Provisioner(settings, con, graphs)


def order(con: psycopg.Connection[Any], **request: Any) -> str:
    """A subscription that was paid."""
    subscriptions = Subscriptions(con)
    made = subscriptions.create("c", "standard", request={"name": "books", "kind": "entity"} | request)
    subscriptions.paid(made.subscription_id)
    return made.subscription_id


def attempt(con: psycopg.Connection[Any], subscription_id: str, later: timedelta = timedelta()) -> int:
    """The attempt that the sensor hands out."""
    # The server keeps the locks of a killed client until it notices; the sensor's next tick finds the row then.
    for _ in range(2400):
        found = {c.subscription_id: c.attempt for c in claim(con, "provisioning", now=utc_now() + later)}
        if subscription_id in found:
            return found[subscription_id]
        time.sleep(0.05)
    raise AssertionError(f"{subscription_id} is not due")


def books(con: psycopg.Connection[Any], graph_id: str) -> list[tuple[Any, ...]]:
    return con.execute(
        "SELECT t.kind, CASE WHEN t.to_account = a.id THEN t.amount ELSE -t.amount END FROM robosystems.transfers AS t"
        " JOIN robosystems.accounts AS a ON a.id = t.account_id WHERE a.graph_id = %s ORDER BY t.seq",
        [graph_id],
    ).fetchall()


def assert_made(con: psycopg.Connection[Any], graphs: GraphStore, subscription_id: str) -> Subscription:
    """One graph, one account, one allowance, active since the graph was registered."""
    seen = Subscriptions(con).get(subscription_id)
    assert seen.state == "active"
    assert seen.graph_id is not None
    assert [s.to_state for s in Subscriptions(con).history(subscription_id)] == [
        "pending",
        "provisioning",
        "active",
    ]
    rows = con.execute(
        "SELECT created_at, name, kind, schema_name, deleted_at FROM robosystems.graphs WHERE graph_id = %s",
        [seen.graph_id],
    ).fetchall()
    assert [row[1:] for row in rows] == [("books", "entity", "entity", None)]
    assert seen.activated_at == rows[0][0]
    start = rows[0][0]
    days = days_in(month_of(start))
    ((kind, credits),) = books(con, seen.graph_id)
    assert kind == "allowance"
    assert abs(credits * days - 8000 * (days - start.day + 1)) < 1
    assert Ledger(con).balance(seen.graph_id).balance == credits
    with graphs.reader(seen.graph_id) as session:
        assert session.counts() == {"Entity": 0}
    return seen


def assert_nothing_left(
    con: psycopg.Connection[Any], graphs: GraphStore, subscription_id: str
) -> Subscription:
    seen = Subscriptions(con).get(subscription_id)
    assert seen.state == "failed"
    assert seen.graph_id is not None
    assert not (graphs.folder / seen.graph_id).exists()
    entries = books(con, seen.graph_id)
    assert sum(entry[1] for entry in entries) == 0
    assert [entry[0] for entry in entries] in ([], ["allowance", "void"])
    open_rows = con.execute(
        "SELECT FROM robosystems.graphs WHERE graph_id = %s AND deleted_at IS NULL", [seen.graph_id]
    ).fetchall()
    assert open_rows == []
    return seen


#: Forks a process per line of input. It runs an attempt and is gone, killed right after the step that is named, or inside
#: it, before its commit. Prints by which signal it ended.
MORTALS = """
import os, signal, sys
from quayside.foundation.postgres import connect
from quayside.foundation.settings import load_settings
from quayside.robosystems.graphs import GraphStore
from quayside.robosystems.provisioning import STEPS, Provisioner, provision

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def attempt(subscription, number, where, step):
    def mortal(name):
        method = getattr(Provisioner, name)
        def call(self, order):
            with self.connection.transaction():
                method(self, order)
                if name == step:
                    die()
        return call
    if where == "in":
        for name in STEPS:
            setattr(Provisioner, name, mortal(name))
    settings = load_settings()
    with connect(settings, autocommit=True) as con:
        worker = Provisioner(settings, con, GraphStore(settings.graphs_path, buffer_pool_bytes=2**26))
        order = worker.begin(subscription, int(number))
        if step == "begin":
            die()
        provision(worker, order, lambda name: die() if (where, name) == ("after", step) else None)

for line in sys.stdin:
    child = os.fork()
    if not child:
        try:
            attempt(*line.split())
        finally:
            os._exit(1)
    print(os.WTERMSIG(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def killed(module_settings: Settings) -> Iterator[Callable[..., None]]:  # noqa: F811  the fixture
    """``killed(subscription, attempt, where, step)``"""
    assert module_settings.database_url is not None
    environment = os.environ | {
        "QUAYSIDE_HOME": str(module_settings.home),
        "QUAYSIDE_DATABASE_URL": module_settings.database_url.get_secret_value(),
    }
    with subprocess.Popen(
        [sys.executable, "-c", MORTALS],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as mortals:
        assert mortals.stdin is not None
        assert mortals.stdout is not None
        read, write = mortals.stdout, mortals.stdin

        def kill(*what: object) -> None:
            write.write(" ".join(map(str, what)) + "\n")
            write.flush()
            assert read.readline() == f"{int(signal.SIGKILL)}\n"

        yield kill
        write.close()


def test_one_attempt_makes_everything_once(
    con: psycopg.Connection[Any], graphs: GraphStore, provisioner: Provisioner
) -> None:
    """failures 1-5, 9, 30: what was ordered is what is made."""
    name = order(con)
    first = provisioner.begin(name, attempt(con, name))
    provision(provisioner, first)
    made = assert_made(con, graphs, name)
    provision(provisioner, provisioner.begin(name, first.attempt))  # run again after it was done
    assert assert_made(con, graphs, name) == made
    with pytest.raises(AttemptOverError, match="is active: only one that is provisioning"):
        provisioner.begin(name)


def test_each_step_twice_and_in_a_row_of_repeats(
    con: psycopg.Connection[Any], graphs: GraphStore, provisioner: Provisioner
) -> None:
    name = order(con)
    mine = provisioner.begin(name, attempt(con, name))
    for number in range(len(STEPS)):
        for step in STEPS[: number + 1]:
            getattr(provisioner, step)(mine)
    assert_made(con, graphs, name)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["after", "in"])
def test_killed_at_every_step_and_run_again(
    con: psycopg.Connection[Any],
    graphs: GraphStore,
    provisioner: Provisioner,
    killed: Callable[..., None],
    where: str,
) -> None:
    """Real processes, killed after (or inside) each step; the next attempt goes on. failures 5, 21"""
    made = set()
    for step in ("begin", *STEPS) if where == "after" else STEPS:
        name = order(con)
        killed(name, attempt(con, name), where, step)
        if (where, step) == ("after", "activate"):
            provision(provisioner, provisioner.begin(name, 1))  # it was done; the run is only started again
        else:
            assert claim(con, "provisioning") == []  # its lease runs
            provision(provisioner, provisioner.begin(name, attempt(con, name, LATER)))
        made.add(assert_made(con, graphs, name).graph_id)
    assert len(made) == len(STEPS) + (where == "after")


def test_failures_are_tried_again_with_growing_pauses_then_given_up(
    con: psycopg.Connection[Any],
    graphs: GraphStore,
    provisioner: Provisioner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The last step fails five times: then the account, its credits and the database are undone. failures 5, 41"""
    name = order(con)

    def away(self: Any, mine: Any) -> None:
        raise ServiceUnavailableError("the card processor is away, password=hunter2hunter2")

    monkeypatch.setattr(Provisioner, "activate", away)
    due = None
    for number in range(1, MAX_ATTEMPTS + 1):
        assert attempt(con, name, LATER * number) == number
        before = utc_now()
        with pytest.raises(ServiceUnavailableError):
            provision(provisioner, provisioner.begin(name, number))
        failed = provisioner.subscriptions.get(name)
        assert "the card processor is away" in (failed.last_error or "")
        assert "hunter2" not in (failed.last_error or "")
        due = failed.next_attempt_at
        assert number == MAX_ATTEMPTS or (due is not None and due >= before + pause_after(number))
    assert due is None
    assert [pause_after(number) for number in range(1, 5)] == [timedelta(minutes=m) for m in (1, 2, 4, 8)]
    seen = assert_nothing_left(con, graphs, name)
    assert [entry[0] for entry in books(con, seen.graph_id or "")] == ["allowance", "void"]
    alerts = con.execute(
        "SELECT severity, body FROM ops.alerts WHERE fingerprint LIKE %s", [f"provisioning:{name}:%"]
    ).fetchall()
    assert len(alerts) == 1
    assert alerts[0][0] == "critical"
    assert f"quayside credits provision retry {name}" in alerts[0][1]
    # Somebody mends it: a graph of its own, with its own credits.
    monkeypatch.undo()
    Subscriptions(con).retry(name)
    again = provisioner.begin(name, attempt(con, name))
    assert (again.attempt, again.graph_id != seen.graph_id) == (1, True)
    provision(provisioner, again)
    assert len(books(con, again.graph_id)) == 1


def test_attempts_that_were_only_lost_end_too(
    con: psycopg.Connection[Any], graphs: GraphStore, provisioner: Provisioner
) -> None:
    name = order(con)
    for number in range(1, MAX_ATTEMPTS + 1):
        mine = provisioner.begin(name, attempt(con, name, LATER * number))
    for step in STEPS[:-1]:
        getattr(provisioner, step)(mine)
    with pytest.raises(GivenUpError, match="5 attempts failed or were lost"):
        provisioner.begin(name, attempt(con, name, LATER * 9))
    assert_nothing_left(con, graphs, name)


def test_what_trying_again_cannot_mend_is_given_up_at_once(
    con: psycopg.Connection[Any], graphs: GraphStore, provisioner: Provisioner
) -> None:
    name = order(con, schema="no such schema")
    with pytest.raises(Exception, match="no graph schema 'no such schema': there are entity, generic"):
        provision(provisioner, provisioner.begin(name, attempt(con, name)))
    assert_nothing_left(con, graphs, name)


def test_an_attempt_that_was_overtaken_makes_nothing(
    con: psycopg.Connection[Any], graphs: GraphStore, provisioner: Provisioner
) -> None:
    name = order(con)
    old = provisioner.begin(name, attempt(con, name))
    new = provisioner.begin(name, attempt(con, name, LATER))
    for step in STEPS:
        with pytest.raises(AttemptOverError, match=r"Attempt 1 on subscription .* attempt 2 works on it"):
            getattr(provisioner, step)(old)
    provisioner.failed(old, ValueError("too late to say"))
    provision(provisioner, new)
    seen = assert_made(con, graphs, name)
    provisioner.give_up(new, "nothing is given up that is active")
    assert Subscriptions(con).get(name) == seen
    with pytest.raises(AttemptOverError):
        provisioner.begin(name, 7)


def test_claims_are_bounded_oldest_first_and_shared_out(
    settings: Settings, con: psycopg.Connection[Any]
) -> None:
    """failure 51"""
    names = [order(con) for _ in range(5)]
    with connect(settings) as other:
        first = claim(other, "provisioning", limit=2)
        rest = claim(con, "provisioning", limit=50)  # while the other has not committed
    assert [c.subscription_id for c in first] == names[:2]
    assert [c.subscription_id for c in rest] == names[2:]
    assert len({c.run_key for c in [*first, *rest]}) == 5
    assert claim(con, "provisioning") == []


def test_the_end_of_a_subscription(
    settings: Settings, con: psycopg.Connection[Any], graphs: GraphStore, provisioner: Provisioner
) -> None:
    name, objects, subscriptions = order(con), object_store(settings), Subscriptions(con)
    mine = provisioner.begin(name, attempt(con, name))
    provision(provisioner, mine)
    graphs.write(mine.graph_id, "CREATE (:Entity {identifier: 'kept'})")
    with pytest.raises(AttemptOverError, match="is active: its graph stays"):
        end_subscription(con, graphs, objects, name)
    subscriptions.cancel(name, ends_at=utc_now() + LATER)
    assert claim(con, "canceled") == []
    with pytest.raises(AttemptOverError, match="runs until"):
        end_subscription(con, graphs, objects, name)
    subscriptions.resume(name)
    subscriptions.cancel(name)
    assert [c.subscription_id for c in claim(con, "canceled")] == [name]
    graph_file = (graphs.folder / mine.graph_id / "current").resolve()
    content = graph_file.read_bytes()
    graph_file.write_bytes(b"damaged")
    with pytest.raises(Exception, match="not a usable database"):
        end_subscription(con, graphs, objects, name)
    assert graphs.exists(mine.graph_id)
    graph_file.write_bytes(content)

    graphs_that_die = _Dying(graphs.folder)
    with pytest.raises(KeyboardInterrupt):  # gone after the backup was made and the database removed
        end_subscription(con, graphs_that_die, objects, name)
    assert (subscriptions.get(name).state, graphs.exists(mine.graph_id)) == ("canceled", False)
    backup = end_subscription(con, graphs, objects, name)
    assert backup is not None
    assert backup.counts == {"Entity": 1}
    assert end_subscription(con, graphs, objects, name) is None
    assert subscriptions.get(name).state == "ended"
    assert [b.backup_id for b in backups(objects, mine.graph_id)] == [backup.backup_id]
    never = subscriptions.create("c", "standard").subscription_id
    subscriptions.cancel(never)
    assert end_subscription(con, graphs, objects, never) is None


class _Dying(GraphStore):
    def drop(self, graph_id: str, *, wait_seconds: float = 60) -> bool:
        super().drop(graph_id, wait_seconds=wait_seconds)
        raise KeyboardInterrupt
