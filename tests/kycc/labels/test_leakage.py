"""Nothing from after the moment reaches a feature, nothing from outside the window reaches a label: random worlds whose
times lie on and around every edge, against a plain reading of the definition."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kycc.labels.conftest import DAY, MOMENT, PARTIES, World

from quayside.kycc.labels import labelled

pytestmark = pytest.mark.unit

WINDOW = 100
END = MOMENT + WINDOW * DAY
LATER = MOMENT + 150 * DAY
MICROSECOND = timedelta(microseconds=1)

times = st.sampled_from(
    [edge + n * MICROSECOND for edge in (MOMENT - 90 * DAY, MOMENT, END - 90 * DAY, END) for n in (-1, 0, 1)]
) | st.integers(-250 * 86_400, 200 * 86_400).map(lambda seconds: MOMENT + timedelta(seconds=seconds))
after = times.filter(lambda t: t > MOMENT)
party = st.sampled_from(PARTIES)


@dataclass(frozen=True)
class Drawn:
    """Rows of a random world, each with the time that decides who may see it."""

    transactions: list[tuple[str, str, datetime]]  # party, type, ts
    edges: list[tuple[str, str, datetime]]
    events: list[tuple[str, datetime]]
    files: list[datetime]
    verdicts: list[tuple[str, int, datetime]]
    invoices: list[tuple[str, datetime, datetime | None]]  # party, due, settled; of the later batch


worlds = st.builds(
    Drawn,
    st.lists(st.tuples(party, st.sampled_from(("invoice", "payment", "credit_note")), times), max_size=12),
    st.lists(st.tuples(party, party, times), max_size=6),
    st.lists(st.tuples(party, times), max_size=5),
    st.lists(after, max_size=2),
    st.lists(st.tuples(party, st.integers(0, 1), after), max_size=3, unique_by=lambda v: v[0]),
    st.lists(st.tuples(party, times, st.none() | times), max_size=3),
)


def fill(world: World, drawn: Drawn, *, future: bool = True) -> None:
    """Load a world; without `future` nothing of the batch is later than the moment."""
    world.clear()
    world.batch()
    for n, (who, kind, ts) in enumerate(drawn.transactions):
        if future or ts <= MOMENT:
            world.transaction(
                "B", who, kind, ts, txn_id=f"T{n}", counterparty_id="P1", amount_base=Decimal(n + 1)
            )
    for n, (source, target, since) in enumerate(drawn.edges):
        if future or since <= MOMENT:
            world.con.execute(
                "INSERT INTO kycc.relationships (batch_id, relationship_id, from_party_id, to_party_id, established_date) "
                "VALUES ('B', ?, ?, ?, ?)",
                [str(n), source, target, since],
            )
    for who, at in drawn.events:
        world.event(who, at)
    for through in dict.fromkeys(drawn.files):
        world.file(through)
    for who, will_default, through in drawn.verdicts:
        world.verdict(who, will_default, through)
    world.file(LATER, covers="listed")  # so that nothing is simulated
    if drawn.invoices:
        world.batch("LATER", LATER)
    for n, (who, due, settled) in enumerate(drawn.invoices):
        world.transaction("LATER", who, "invoice", due - 30 * DAY, txn_id=f"I{n}", due_date=due)
        if settled is not None:
            world.transaction("LATER", who, "payment", settled, txn_id=f"S{n}", settles_txn_id=f"I{n}")


def expected(drawn: Drawn) -> dict[str, int]:
    """The labels by the definition, party by party."""
    found = {}
    for who in PARTIES:
        bad = any(p == who and MOMENT < at <= END for p, at in drawn.events)
        bad |= any(p == who and verdict for p, verdict, _ in drawn.verdicts)
        for p, due, settled in drawn.invoices:
            overdue = due + 90 * DAY
            unpaid = settled is None or settled > overdue
            bad |= (
                p == who
                and unpaid
                and MOMENT < overdue <= END
                and overdue < LATER
                and due - 30 * DAY <= LATER
            )
        through = [*drawn.files, *(t for p, _, t in drawn.verdicts if p == who)]
        if bad or (through and max(through) >= END):
            found[who] = int(bad)
    return found


def features_of(world: World) -> list[tuple[Any, ...]]:
    world.extract()
    return world.con.execute("FROM kycc.features WHERE batch_id = 'B' ORDER BY party_id").fetchall()


@pytest.mark.slow
@settings(max_examples=25)
@given(drawn=worlds)
def test_labels_are_those_of_the_definition(database: World, drawn: Drawn) -> None:
    fill(database, drawn)
    database.make(WINDOW)
    labels = database.labels(days=WINDOW)
    assert {who: label for who, (label, *_) in labels.items()} == expected(drawn)
    for who, at in drawn.events:
        if not MOMENT < at <= END:
            database.con.execute("DELETE FROM kycc.outcomes WHERE party_id = ? AND event_date = ?", [who, at])
    database.make(WINDOW)
    assert database.labels(days=WINDOW) == labels, "an event outside the window reached a label"


@pytest.mark.slow
@settings(max_examples=15)
@given(drawn=worlds)
def test_no_feature_of_a_labelled_party_knows_its_future(database: World, drawn: Drawn) -> None:
    fill(database, drawn)
    database.file(END)
    everything = features_of(database)
    database.make(WINDOW)
    table = labelled(database.con, database.card, observation_window_days=WINDOW)
    assert table.num_rows == len(PARTIES)
    fill(database, Drawn(drawn.transactions, drawn.edges, [], [], [], []), future=False)
    past = features_of(database)
    assert past == everything, "an outcome, or a row after the moment, reached a feature"
    names = [column[0] for column in database.con.execute("FROM kycc.features LIMIT 0").description]
    for trained, row in zip(table.to_pylist(), past, strict=True):
        known = dict(zip(names, row, strict=True))
        assert {name: value for name, value in trained.items() if name in known} == {
            name: known[name] for name in trained if name in known
        }
