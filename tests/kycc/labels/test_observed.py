"""Which facts make a party good, bad or unlabelled."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.kycc.labels.conftest import DAY, MOMENT, World

from quayside.foundation.errors import NotFoundError, UsageError

pytestmark = pytest.mark.unit

MICROSECOND = timedelta(microseconds=1)
END = MOMENT + 180 * DAY


@pytest.mark.parametrize(
    ("at", "label"),
    [
        (MOMENT - DAY, 0),
        (MOMENT, 0),  # an event at the moment was known at the moment
        (MOMENT + MICROSECOND, 1),
        (END, 1),
        (END + MICROSECOND, 0),
    ],
)
def test_an_event_counts_after_the_moment_up_to_the_end_of_the_window(world: World, at, label: int) -> None:
    world.file(END + 30 * DAY)
    world.event("P1", at)
    world.make()
    assert world.labels()["P1"] == (label, "write_off" if label else "none", True)


@pytest.mark.parametrize(("through", "over"), [(END, True), (END - MICROSECOND, False)])
def test_a_window_that_is_not_over_makes_nobody_good(world: World, through, over: bool) -> None:
    world.file(through)
    world.event("P1", MOMENT + DAY, "overdue_90")
    result = world.make()
    assert world.labels()["P1"] == (1, "overdue_90", over), "an event seen early is an event"
    assert set(world.labels()) == ({"P1", "P2", "P3"} if over else {"P1"})
    counts = result.counts["observed"]
    assert (counts.good, counts.bad, counts.unlabelled) == ((2, 1, 0) if over else (0, 1, 2))
    assert (result.source, result.circular, result.observed_through) == ("observed", False, through)


def test_the_first_event_is_the_reason(world: World) -> None:
    world.file(END)
    world.event("P1", MOMENT + 9 * DAY, "collection")
    world.event("P1", MOMENT + 7 * DAY, "overdue_90")
    world.verdict("P1", 1, END)
    world.make()
    assert world.labels()["P1"] == (1, "overdue_90", True)


def test_verdicts_speak_of_their_party_alone(world: World) -> None:
    world.file(END, covers="listed")
    world.verdict("P1", 1, MOMENT + DAY)
    world.verdict("P2", 0, END)
    world.make()
    assert world.labels() == {"P1": (1, "verdict", False), "P2": (0, "none", True)}


def test_a_verdict_of_good_waits_for_its_window(world: World) -> None:
    world.file(END, covers="listed")
    world.verdict("P1", 0, END - DAY)
    world.make()
    assert world.labels() == {}
    world.make(days=179)
    assert world.labels(days=179) == {"P1": (0, "none", True)}


def test_of_two_verdicts_the_one_that_looked_longer_counts(world: World) -> None:
    world.file(END, covers="listed")
    for party, first, second in (("P1", 1, 0), ("P2", 0, 1), ("P3", 0, 0)):
        world.verdict(party, first, END)
        world.verdict(party, second, END + DAY)
    world.make()
    assert {party: label for party, (label, *_) in world.labels().items()} == {"P1": 0, "P2": 1, "P3": 0}


def test_an_event_outweighs_a_verdict_of_good(world: World) -> None:
    world.file(END)
    world.verdict("P1", 0, END)
    world.event("P1", MOMENT + DAY)
    world.make()
    assert world.labels()["P1"] == (1, "write_off", True)


def test_a_later_moment_of_the_batch_sees_only_what_came_after_it(world: World) -> None:
    later = MOMENT + 30 * DAY
    world.file(END + 60 * DAY)
    world.event("P1", MOMENT + 10 * DAY)
    world.event("P2", later + 10 * DAY)
    world.verdict("P3", 1, END + 60 * DAY)
    world.make(as_of=later)
    assert world.labels(as_of=later) == {"P1": (0, "none", True), "P2": (1, "write_off", True)}


def test_an_earlier_moment_was_not_observed_from_its_start(world: World) -> None:
    earlier = MOMENT - 30 * DAY
    world.file(END)
    world.event("P1", MOMENT + DAY)
    world.make(as_of=earlier)
    assert world.labels(as_of=earlier) == {"P1": (1, "write_off", False)}


def test_outcomes_of_another_batch_say_nothing(world: World) -> None:
    world.batch("C", MOMENT)
    world.file(END, batch_id="C")
    world.event("P1", MOMENT + DAY, batch_id="C")
    world.file(END, covers="listed")
    world.make()
    assert world.labels() == {}


DUE = MOMENT - 60 * DAY


@pytest.mark.parametrize(
    ("due", "settled", "seen", "bad"),
    [
        (DUE, None, 200, True),
        (DUE, 90 * DAY + MICROSECOND, 200, True),  # paid, but after it was 90 days past due
        (DUE, 90 * DAY, 200, False),
        (DUE, None, 30, False),  # 90 days past due exactly when the later batch was taken, not more
        (DUE, None, 30.001, True),
        (MOMENT - 90 * DAY, None, 200, False),  # known at the moment
        (MOMENT - 90 * DAY + MICROSECOND, None, 200, True),
        (END - 90 * DAY, None, 200, True),
        (END - 90 * DAY + MICROSECOND, None, 200, False),
    ],
)
def test_an_invoice_more_than_90_days_past_due_in_a_later_batch(
    world: World, due, settled, seen: float, bad: bool
) -> None:
    world.batch("LATER", MOMENT + seen * DAY, parties=("P1",))
    world.file(MOMENT + DAY)
    invoice = {"txn_id": "I1", "due_date": due}
    world.transaction("LATER", "P1", "invoice", due - 30 * DAY, **invoice)
    if settled is not None:
        world.transaction("LATER", "P2", "payment", due + settled, txn_id="S", settles_txn_id="I1")
    world.make()
    assert world.labels() == ({"P1": (1, "invoice_overdue_90", False)} if bad else {})


@pytest.mark.parametrize(
    ("batch_id", "txn_type", "settles", "bad"),
    [
        ("B", "payment", "I1", False),  # the batch itself knew it was paid
        ("B", "credit_note", "I1", False),
        ("LATER", "credit_note", "I1", False),
        ("B", "invoice", "I1", True),  # an invoice settles nothing
        ("B", "payment", "I2", True),
        ("OTHER", "payment", "I1", True),  # ids are told apart by batch
    ],
)
def test_what_settles_an_invoice(world: World, batch_id: str, txn_type: str, settles: str, bad: bool) -> None:
    world.batch("LATER", MOMENT + 200 * DAY, parties=("P1",))
    world.batch("OTHER", MOMENT + 200 * DAY, parties=("P9",))
    world.transaction("LATER", "P1", "invoice", DUE - 30 * DAY, txn_id="I1", due_date=DUE)
    world.transaction(batch_id, "P1", txn_type, DUE + DAY, txn_id="S", settles_txn_id=settles)
    world.file(MOMENT + DAY)
    world.make()
    assert bool(world.labels()) == bad


def test_transactions_of_earlier_batches_and_other_parties_are_not_read(world: World) -> None:
    world.file(MOMENT + DAY)
    world.batch("SAME", MOMENT, parties=("P1",))
    world.batch("LATER", MOMENT + 200 * DAY, parties=("P9",))
    world.transaction("SAME", "P1", "invoice", DUE - 30 * DAY, txn_id="I1", due_date=DUE)
    world.transaction("LATER", "P9", "invoice", DUE - 30 * DAY, txn_id="I2", due_date=DUE)
    world.transaction("LATER", "P1", "payment", DUE - 30 * DAY, txn_id="I3", due_date=DUE)
    world.make()
    assert world.labels() == {}


@pytest.mark.parametrize("days", [0, -1, 100_000])
def test_a_window_that_makes_no_sense_is_refused(world: World, days: int) -> None:
    with pytest.raises(UsageError, match="observation_window_days"):
        world.make(days=days)


def test_a_batch_that_is_not_there_is_named(world: World) -> None:
    with pytest.raises(NotFoundError, match="NONE"):
        world.make(batch_id="NONE")
