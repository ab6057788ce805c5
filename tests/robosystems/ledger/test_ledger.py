"""The ledger's verbs, and what the database refuses whoever asks."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

import psycopg
import pytest
from tests.robosystems.books import START, balances, problems, subscribe

from quayside.foundation.errors import UsageError
from quayside.foundation.postgres import connect
from quayside.foundation.settings import Settings
from quayside.robosystems.errors import (
    BooksError,
    InsufficientCreditsError,
    KeyReusedError,
    ReservationEndedError,
    UnknownAccountError,
)
from quayside.robosystems.ledger import Ledger

pytestmark = pytest.mark.integration


@pytest.fixture
def opened(ledger: Ledger) -> Ledger:
    subscribe(ledger.connection, "a")
    subscribe(ledger.connection, "b")
    return ledger


def day(number: int) -> datetime:
    return START + timedelta(days=number)


def left(ledger: Ledger, graph: str = "a") -> dict[int, Decimal]:
    return {grant.transfer_id: grant.left_over for grant in ledger.grants(graph)}


def test_grants_are_drawn_by_priority_then_expiry_then_age(opened: Ledger):
    never, late, soon, first = (
        opened.grant("a", 10, key=key, priority=priority, expires_at=expires, at=day(0)).transfer_id
        for key, priority, expires in (
            ("1", 50, None),
            ("2", 50, day(60)),
            ("3", 50, day(30)),
            ("4", 10, None),
        )
    )
    opened.consume("a", 25, key="use", at=day(1))
    assert left(opened) == {first: 0, soon: 0, late: 5, never: 10}


def test_what_was_drawn_stays_drawn_when_a_better_grant_comes(opened: Ledger):
    old = opened.grant("a", 10, key="1", at=day(0)).transfer_id
    opened.consume("a", 4, key="use", at=day(1))
    new = opened.grant("a", 10, key="2", priority=1, at=day(2)).transfer_id
    assert left(opened) == {old: 6, new: 10}
    opened.consume("a", 4, key="use again", at=day(3))
    assert left(opened) == {old: 6, new: 6}


def test_expired_credits_cannot_be_spent_however_late_the_job_is(opened: Ledger):
    opened.grant("a", 10, key="1", expires_at=day(5), rollover_credits=3, rollover_until=day(9), at=day(0))
    assert opened.balance("a", at=day(5)).available == 3
    with pytest.raises(InsufficientCreditsError, match="has 3 credits to spend"):
        opened.consume("a", 4, key="use", at=day(5))
    assert opened.consume("a", 2, key="use", at=day(5)).balance_after == 1
    assert balances(opened.connection)["expired"] == 7
    assert opened.balance("a", at=day(9)).available == 0


def test_the_same_key_takes_once_and_another_unit_of_work_is_refused(opened: Ledger):
    """Failure 20."""
    opened.grant("a", 100, key="g", at=day(0))
    first = opened.consume("a", 5, key="k", operation="query", at=day(0), metadata={"tokens": 12})
    again = opened.consume("a", 5, key="k", at=day(1))
    assert (again.transfer_id, again.balance_after, again.repeated) == (first.transfer_id, 95, True)
    assert opened.connection.execute(
        "SELECT metadata FROM robosystems.transfers WHERE key = 'k'"
    ).fetchone() == ({"tokens": 12},)
    for graph, amount in (("a", 6), ("b", 5)):
        with pytest.raises(KeyReusedError, match="stands for another"):
            opened.consume(graph, amount, key="k", at=day(1))
    with pytest.raises(KeyReusedError):
        opened.grant("a", 5, key="k", at=day(1))


def test_overdraft_is_allowed_by_graph(opened: Ledger):
    with pytest.raises(InsufficientCreditsError, match="grant or buy credits"):
        opened.consume("a", 1, key="k", at=day(0))
    opened.allow_overdraft("a")
    assert opened.consume("a", 1, key="k", at=day(0)).balance_after == -1


def test_the_balance_is_what_is_there_with_bonus_and_debt(opened: Ledger):
    """Failures 27 and 40: nothing is computed from an allowance, and what is reserved cannot be spent twice."""
    opened.grant("a", 13000, key="g", at=day(0))
    opened.reserve("a", 5000, key="r", at=day(0))
    found = opened.balance("a", at=day(0))
    assert (found.balance, found.held, found.available) == (13000, 5000, 8000)
    with pytest.raises(InsufficientCreditsError, match="5000 of them held"):
        opened.consume("a", 8001, key="k", at=day(0))
    opened.consume("a", 8000, key="k", at=day(0))


def test_a_reservation_is_captured_once_released_or_times_out(opened: Ledger):
    opened.grant("a", 100, key="g", at=day(0))
    opened.reserve("a", 60, key="r", at=day(0))
    assert opened.reserve("a", 60, key="r", at=day(0)).state == "held"
    with pytest.raises(UsageError, match="fewer than 61"):
        opened.capture("r", 61, at=day(0))
    taken = opened.capture("r", 20, at=day(0))
    assert opened.capture("r", at=day(1)).transfer_id == taken.transfer_id
    with pytest.raises(ReservationEndedError, match="was captured"):
        opened.release("r", at=day(1))
    opened.reserve("a", 80, key="s", at=day(1))
    opened.release("s", at=day(1))
    opened.release("s", at=day(1))
    with pytest.raises(ReservationEndedError, match="was released"):
        opened.capture("s", at=day(1))
    opened.reserve("a", 80, key="t", time_out=timedelta(minutes=5), at=day(1))
    assert opened.balance("a", at=day(1)).available == 0
    assert opened.balance("a", at=day(2)).available == 80
    opened.consume("a", 80, key="k", at=day(2))
    with pytest.raises(ReservationEndedError, match="timed out"):
        opened.capture("t", at=day(2))
    assert problems(opened.connection) == []


def test_a_refund_gives_back_no_more_than_was_taken(opened: Ledger):
    """Failure 39."""
    opened.grant("a", 100, key="g", at=day(0))
    used = opened.consume("a", 30, key="k", at=day(0)).transfer_id
    opened.refund(used, 10, key="r1", reason="slow", at=day(1))
    assert opened.refund(used, 10, key="r1", at=day(1)).repeated
    with pytest.raises(BooksError, match="20 are left"):
        opened.refund(used, 21, key="r2", at=day(1))
    assert opened.void(used, at=day(2)).balance_after == 100
    assert opened.void(used, at=day(2)).repeated
    with pytest.raises(BooksError, match="void itself"):
        opened.void(opened.void(used).transfer_id)
    assert balances(opened.connection)["consumption"] == 0


def test_a_voided_grant_takes_what_is_left_of_it_and_then_from_the_balance(opened: Ledger):
    wrong = opened.grant("a", 50, key="w", priority=10, at=day(0)).transfer_id
    good = opened.grant("a", 50, key="g", at=day(0)).transfer_id
    opened.consume("a", 20, key="k", at=day(0))
    opened.void(wrong, reason="typed wrong", at=day(1))
    assert left(opened) == {wrong: 0, good: 30}
    expired = opened.grant("a", 5, key="e", expires_at=day(3), at=day(1)).transfer_id
    opened.expire("a", at=day(3))
    with pytest.raises(BooksError, match="has expired"):
        opened.void(expired, at=day(4))
    assert problems(opened.connection) == []


def test_credits_move_between_graphs_and_corrections_go_both_ways(opened: Ledger):
    opened.grant("a", 10, key="g", at=day(0))
    opened.transfer("a", "b", 4, key="t", at=day(0))
    assert opened.transfer("a", "b", 4, key="t", at=day(0)).repeated
    with pytest.raises(InsufficientCreditsError):
        opened.transfer("a", "b", 7, key="u", at=day(0))
    opened.adjust("b", "-5.5", key="c", reason="counted twice", at=day(1))
    opened.adjust("b", 2, key="d", reason="sorry", at=day(1))
    found = balances(opened.connection)
    assert (found["graph:a"], found["graph:b"], found["adjustments"]) == (6, Decimal("0.5"), Decimal("-6.5"))


def test_a_subgraph_draws_on_its_parents_account(opened: Ledger):
    opened.connection.execute(
        "INSERT INTO robosystems.graphs (graph_id, customer_id, parent_graph_id) VALUES ('child', 'acme', 'a')"
    )
    opened.grant("a", 10, key="g", at=day(0))
    assert opened.consume("child", 4, key="k", at=day(0)).balance_after == 6
    assert opened.balance("child").graph_id == "a"


@pytest.mark.parametrize("amount", ["0", "-1", "NaN", "1e30", "0.0000001", "x"])
def test_amounts_that_are_none_are_refused(opened: Ledger, amount: str):
    with pytest.raises(UsageError):
        opened.consume("a", amount, key="k")


def test_a_graph_without_an_account_is_named(ledger: Ledger):
    """Failure 41: without an account nothing is free."""
    with pytest.raises(UnknownAccountError, match="Graph 'ghost' has no credit account"):
        ledger.consume("ghost", 1, key="k")


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE robosystems.transfers SET amount = 1", "append-only|permission denied"),
        ("DELETE FROM robosystems.transfers", "append-only|permission denied"),
        ("TRUNCATE robosystems.transfers", "append-only|permission denied"),
        ("DELETE FROM robosystems.accounts", "append-only"),
        ("UPDATE robosystems.accounts SET balance = 1000 WHERE graph_id = 'a'", "follows from its transfers"),
        ("UPDATE robosystems.accounts SET held = 1 WHERE graph_id = 'a'", "follows from its transfers"),
        ("INSERT INTO robosystems.accounts (name, graph_id, balance, opened_by) VALUES ('x', 'x', 5, 't')", "empty"),
        ("UPDATE robosystems.grants SET amount = 50", "only be drawn down"),
        ("UPDATE robosystems.storage_bills SET credits = 0", "append-only"),
        ("UPDATE robosystems.prices SET value = 0", "append-only"),
        ("INSERT INTO robosystems.invoices (customer_id, state, period, created_by) VALUES ('acme', 'open', '2026-01-01', 't')", "append-only|refused"),
    ],
)  # fmt: skip
def test_the_database_refuses_a_wrong_book(opened: Ledger, statement: str, said: str):
    """Failures 16, 17, 21 and 34."""
    opened.grant("a", 10, key="g", at=day(0))
    opened.consume("a", 4, key="k", at=day(0))
    with pytest.raises(psycopg.Error, match=said):
        opened.connection.execute(statement.encode())


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ("'x', 'grant', 5, {a}, 5, 3, 11", None),  # the one that continues the book
        ("'x', 'grant', 5, {a}, 5, 3, 12", "do not continue"),
        ("'x', 'grant', 5, {a}, 5, 4, 11", "do not continue"),
        ("'x', 'grant', 5, {a}, 5, 2, 11", "transfers_order"),
        ("'x', 'grant', 5, 999, 5, 1, 5", "do not continue"),
        ("'x', 'grant', {a}, 5, 5, 3, 1", "transfers_kind"),
        ("'x', 'grant', 5, 1, 5, 1, 5", "transfers_sides"),
        ("'x', 'adjustment', {b}, {a}, 5, 3, 11", "transfers_"),
        ("'x', 'gift', 5, {a}, 5, 3, 11", "transfers_kind"),
        ("'x', 'grant', 5, {a}, -5, 3, 1", "amount"),
        ("'g', 'grant', 5, {a}, 5, 3, 11", "key"),
    ],
)
def test_a_transfer_has_to_continue_the_book(opened: Ledger, values: str, said: str | None):
    opened.grant("a", 10, key="g", at=day(0))
    opened.consume("a", 4, key="k", at=day(0))
    ids = dict(opened.connection.execute("SELECT graph_id, id FROM robosystems.accounts").fetchall())
    statement = (
        "INSERT INTO robosystems.transfers (key, kind, from_account, to_account, amount, seq, balance_after, effective_at,"
        f" booked_at, period, actor) VALUES ({values.format(a=ids['a'], b=ids['b'])},"
        " now(), now(), '2026-01-01', 'test')"
    )
    if said is None:
        opened.connection.execute(statement.encode())
        return
    with pytest.raises(psycopg.errors.IntegrityError, match=said):
        opened.connection.execute(statement.encode())


def test_a_book_never_goes_back_in_time(opened: Ledger):
    account = opened.open_account("a")
    opened.grant("a", 10, key="g", at=day(2))
    with pytest.raises(psycopg.errors.IntegrityError, match="do not continue"):
        opened.connection.execute(
            "INSERT INTO robosystems.transfers (key, kind, from_account, to_account, amount, seq, balance_after,"
            " effective_at, booked_at, period, actor) VALUES ('x', 'grant', 5, %s, 5, 2, 15, %s, %s, '2026-01-01', 'test')",
            [account, day(1), day(1)],
        )


def test_a_batch_with_a_wrong_balance_in_its_middle_is_refused(opened: Ledger):
    account = opened.open_account("a")
    row = "({key}, 'grant', 5, {account}, 5, {seq}, {after}, now(), now(), '2026-01-01', 'test')"
    rows = ", ".join(
        row.format(key=f"'m{seq}'", account=account, seq=seq, after=after)
        for seq, after in ((1, 5), (2, 11), (3, 15))
    )
    with pytest.raises(psycopg.errors.IntegrityError, match="do not follow from one another"):
        opened.connection.execute(
            "INSERT INTO robosystems.transfers (key, kind, from_account, to_account, amount, seq, balance_after,"
            f" effective_at, booked_at, period, actor) VALUES {rows}".encode()
        )


def test_work_that_is_rolled_back_leaves_nothing(settings: Settings):
    """Failure 21: the ledger commits nothing by itself inside its caller's transaction."""
    with connect(settings) as con:
        subscribe(con, "a")
        con.commit()
        Ledger(con).grant("a", 10, key="g", at=day(0))
        Ledger(con).consume("a", 3, key="k", at=day(0))
        con.rollback()
        assert Ledger(con).balance("a").balance == 0


def test_a_consumption_decides_only_for_itself_when_the_disk_has_it(settings: Settings):
    """One that is a transaction of its own answers once it is on disk; a caller's transaction and session keep what they set."""
    with connect(settings, autocommit=True) as con:
        subscribe(con, "a", may_overdraw=True)
        before = con.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
        Ledger(con).consume("a", 3, key="alone", at=day(0))
        assert con.execute("SELECT pg_current_wal_flush_lsn() > %s", before).fetchone() == (True,)
        assert con.execute("SHOW synchronous_commit").fetchone() == ("on",)
        with con.transaction():
            Ledger(con).consume("a", 3, key="with others", at=day(0))
            assert con.execute("SHOW synchronous_commit").fetchone() == ("on",)


def test_every_row_has_its_own_time_and_author(opened: Ledger):
    """Failure 26."""
    opened.grant("a", 10, key="g")
    opened.consume("a", 1, key="k1")
    opened.consume("a", 1, key="k2")
    found = opened.connection.execute(
        "SELECT count(DISTINCT booked_at), min(actor) FROM robosystems.transfers"
    ).fetchone()
    assert found is not None
    assert found[0] == 3
    assert found[1].startswith("user:")


def test_health_sees_books_that_were_tampered_with(opened: Ledger):
    opened.grant("a", 10, key="g", at=day(0))
    opened.consume("a", 4, key="k", at=day(0))
    assert problems(opened.connection) == []
    with opened.connection.transaction(force_rollback=True):
        opened.connection.execute("SET LOCAL session_replication_role = replica")  # triggers are off
        opened.connection.execute("UPDATE robosystems.accounts SET balance = 60 WHERE graph_id = 'a'")
        found = problems(opened.connection)
    assert [sentence.split(":")[0] for sentence in found] == [
        "ledger equals balances",
        "all accounts sum to zero",
        "grants cover balances",
    ]
