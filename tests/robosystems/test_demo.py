"""The demonstration's books: the same however often it is run, and never those of a real customer."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tests.robosystems.books import problems

from quayside.foundation.postgres import connect
from quayside.foundation.settings import Settings
from quayside.foundation.usage import UsageEvent, append
from quayside.robosystems.demo import bill_demo

pytestmark = pytest.mark.integration


def test_run_twice_the_books_are_the_same_and_real_customers_are_left_alone(settings: Settings):
    with connect(settings, autocommit=True) as con:
        append(con, [UsageEvent("e", "kycc", "kycc.party_scored", 10_000, "kycc", datetime.now(UTC))])
        first = bill_demo(settings, con)
        assert first is not None
        assert sorted(first.storage.values()) == [0, 5]
        assert (first.parties, first.charged) == (10_000, 1000)
        assert first.statements[first.payer].totals()["consumption"] == -1000
        again = bill_demo(settings, con)
        assert again is not None
        assert [s.lines for s in again.statements.values()] == [s.lines for s in first.statements.values()]
        assert problems(con) == []
        con.execute("INSERT INTO robosystems.customers (customer_id, name) VALUES ('acme', 'Acme')")
        assert bill_demo(settings, con) is None
