"""The definitions' corners, each worked out by hand: what the random batches check, here for a reader to see."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from tests.kycc.features.batches import MICROSECOND, Batch, edge, party, transaction

from quayside.kycc import features

pytestmark = pytest.mark.unit

Compute = Callable[[Batch], dict[str, dict[str, Any]]]

AS_OF = datetime(2026, 6, 15, 12, tzinfo=UTC)
DAY = timedelta(days=1)
START = AS_OF - 180 * DAY


def at(month: int, day: int = 2) -> datetime:
    return datetime(2026, month, day, tzinfo=UTC)


def of_transactions(computed: Compute, *rows: dict[str, Any]) -> dict[str, Any]:
    return computed(Batch(AS_OF, [party("P-1"), party("P-2")], rows))["P-1"]


def test_a_party_of_which_nothing_is_known_gets_what_the_registry_says(computed: Compute) -> None:
    found = computed(Batch(AS_OF, [party("P-1")]))["P-1"]
    assert {name: found[name] for name in features.BY_NAME} == {
        f.name: 7 if f.name == "party_type_score" else f.no_data for f in features.FEATURES
    }
    assert (found["network_is_estimate"], found["network_size_error"]) == (False, 0)


@pytest.mark.parametrize(
    "text, filled",
    [
        (None, 0),
        ("", 0),
        (" ", 0),
        ("\t\r\n", 0),
        ("\u00a0\u2003\u3000\u2028", 0),
        ("x", 1),
        (" x ", 1),
        ("\u2003-", 1),
        ("0", 1),
    ],
)
def test_blank_is_missing(computed: Compute, text: str | None, filled: int) -> None:
    found = computed(Batch(AS_OF, [party("P-1", tax_id=text, email=text, phone="1")]))["P-1"]
    assert found["has_tax_id"] == filled
    assert found["contact_completeness"] == 25 + 25 * filled


@pytest.mark.parametrize(
    "created, years",
    [
        (None, None),
        (AS_OF, 0),
        (AS_OF + DAY, 0),
        (AS_OF - MICROSECOND, 1 / (365.25 * 86_400e6)),
        (AS_OF - 1461 * DAY, 4),
    ],
)
def test_company_age(computed: Compute, created: datetime | None, years: float | None) -> None:
    assert computed(Batch(AS_OF, [party("P-1", created_at=created)]))["P-1"]["company_age_years"] == years


@pytest.mark.parametrize(
    "ts, counted, recent",
    [
        (START, 0, 0),
        (START + MICROSECOND, 1, 0),
        (AS_OF - 30 * DAY, 1, 0),
        (AS_OF - 30 * DAY + MICROSECOND, 1, 1),
        (AS_OF, 1, 1),
        (AS_OF + MICROSECOND, 0, 0),
    ],
)
def test_windows_are_open_at_the_start_and_closed_at_the_end(
    computed: Compute, ts: datetime, counted: int, recent: int
) -> None:
    found = of_transactions(computed, transaction("P-1", ts, amount=10))
    assert found["transaction_count_6m"] == counted
    assert found["total_transaction_volume_6m"] == 10 * counted
    assert found["recent_activity_flag"] == recent


def test_a_day_has_24_hours_whatever_the_clocks_do(computed: Compute) -> None:
    as_of = datetime(
        2026, 6, 15, 12, tzinfo=ZoneInfo("America/Los_Angeles")
    )  # the clock went forward since December
    start = as_of.astimezone(UTC) - 180 * DAY
    rows = [transaction("P-1", start), transaction("P-1", start + MICROSECOND)]
    assert computed(Batch(as_of, [party("P-1")], rows))["P-1"]["transaction_count_6m"] == 1


def test_the_latest_transaction_decides_on_recent_activity(computed: Compute) -> None:
    found = of_transactions(computed, transaction("P-1", AS_OF - DAY), transaction("P-1", START + DAY))
    assert found["recent_activity_flag"] == 1


def test_all_types_are_counted_but_credit_notes_have_no_amount(computed: Compute) -> None:
    found = of_transactions(
        computed,
        transaction("P-1", at(5), "invoice", 100),
        transaction("P-1", at(5), "payment", -50),
        transaction("P-1", at(4), "credit_note", 9000),
        transaction("P-2", at(5), "invoice", 7, counterparty_id="P-1"),
    )
    assert found["transaction_count_6m"] == 3
    assert found["payment_type_diversity"] == 3
    assert found["total_transaction_volume_6m"] == 150
    assert found["avg_transaction_amount"] == 75
    assert found["transaction_regularity_score"] == 50  # April has nothing but the credit note
    assert found["credit_note_ratio_6m"] == 1 / 3


@pytest.mark.parametrize(
    "rows, score",
    [
        ([], 0),
        ([(5, "credit_note", 10), (4, "credit_note", 10)], 0),
        ([(5, "invoice", 10)], 50),
        ([(5, "invoice", 0)], 50),
        ([(5, "invoice", 0), (4, "payment", 0)], 0),
        ([(5, "invoice", 10), (4, "payment", -10)], 100),
        ([(5, "invoice", 30), (4, "invoice", 10)], 50),  # mean 20, deviation 10
        ([(5, "invoice", 10), (4, "invoice", 0)], 0),  # mean 5, deviation 5
        ([(5, "invoice", 1000), (4, "invoice", 0), (3, "invoice", 0)], 0),  # cv above 1
        ([(5, "invoice", 5), (5, "invoice", -5), (4, "invoice", 10)], 100),
    ],
)
def test_regularity(computed: Compute, rows: list[tuple[int, str, int]], score: float) -> None:
    found = of_transactions(computed, *(transaction("P-1", at(m), kind, amount) for m, kind, amount in rows))
    assert found["transaction_regularity_score"] == pytest.approx(score, rel=1e-12)


def test_regularity_goes_by_months_in_utc(computed: Compute) -> None:
    late_in_april = datetime.fromisoformat("2026-04-30T23:30:00-02:00")  # May in UTC
    found = of_transactions(computed, transaction("P-1", late_in_april), transaction("P-1", at(5)))
    assert found["transaction_regularity_score"] == 50


def test_seven_months_can_have_amounts(computed: Compute) -> None:
    rows = [transaction("P-1", START + MICROSECOND)] + [transaction("P-1", at(m)) for m in range(1, 7)]
    assert of_transactions(computed, *rows)["transaction_regularity_score"] == 100
    found = of_transactions(computed, *rows, transaction("P-1", at(6)))  # six months with 1 and June with 2
    assert found["transaction_regularity_score"] == pytest.approx(100 * (1 - 6**0.5 / 8))


def test_steady_large_sums_keep_their_digits(computed: Compute) -> None:
    rows = [transaction("P-1", at(m), amount=f"{9_000_000_000_000_000 + m}.01") for m in (3, 4, 5)]
    found = of_transactions(computed, *rows)["transaction_regularity_score"]
    assert 100 - 1e-12 < found <= 100


def test_volume_trend(computed: Compute) -> None:
    half = AS_OF - 90 * DAY
    old, new = transaction("P-1", half, amount=10), transaction("P-1", half + MICROSECOND, amount=30)
    note = transaction("P-1", AS_OF, "credit_note", 5000)
    assert of_transactions(computed, old, new, note)["volume_trend_6m"] == 0.5
    assert of_transactions(computed, old)["volume_trend_6m"] == -1
    assert of_transactions(computed, new)["volume_trend_6m"] == 1
    assert of_transactions(computed, note)["volume_trend_6m"] is None


def test_concentration(computed: Compute) -> None:
    found = of_transactions(
        computed,
        transaction("P-1", at(5), "invoice", 10, counterparty_id="P-1"),
        transaction("P-1", at(4), "invoice", -10, counterparty_id="P-1"),
        transaction("P-1", at(5), "invoice", 60, counterparty_id="P-2"),
        transaction("P-1", at(5), "credit_note", 5, counterparty_id="P-2"),
        transaction("P-1", at(5), "payment", 5, counterparty_id="P-2"),
    )
    assert found["customer_concentration_6m"] == pytest.approx((20 / 80) ** 2 + (60 / 80) ** 2)
    assert found["supplier_concentration_6m"] == 1


def due(days_ago: float, txn_id: str = "I", **columns: Any) -> dict[str, Any]:
    moment = AS_OF - days_ago * DAY
    return transaction("P-1", moment - 30 * DAY, "invoice", txn_id=txn_id, due_date=moment, **columns)


def settlement(
    days_ago: float, of: str = "I", party_id: str = "P-2", txn_type: str = "payment"
) -> dict[str, Any]:
    return transaction(party_id, AS_OF - days_ago * DAY, txn_type, settles_txn_id=of)


@pytest.mark.parametrize(
    "rows, mean, longest, late",
    [
        ([], None, None, None),
        ([due(10)], 10, 10, 1),
        ([due(0)], 0, 0, 0),
        ([due(-1)], None, None, None),
        ([due(180)], None, None, None),
        ([due(179.5)], 179.5, 179.5, 1),
        ([due(10), settlement(12)], 0, 0, 0),
        ([due(10), settlement(10)], 0, 0, 0),
        ([due(10), settlement(7)], 3, 3, 1),
        ([due(10), settlement(7, party_id="P-1", txn_type="credit_note")], 3, 3, 1),
        ([due(10), settlement(7), settlement(9)], 1, 1, 1),  # the earliest counts
        ([due(10), settlement(7, txn_type="invoice")], 10, 10, 1),
        ([due(10), settlement(-1)], 10, 10, 1),  # not known yet
        ([due(10), due(40, "J"), settlement(36, "J"), due(50, "K"), settlement(60, "K")], 14 / 3, 10, 2 / 3),
    ],
)
def test_days_past_due(
    computed: Compute,
    rows: list[dict[str, Any]],
    mean: float | None,
    longest: float | None,
    late: float | None,
) -> None:
    found = of_transactions(computed, *rows)
    assert found["days_past_due_mean_6m"] == (mean if mean is None else pytest.approx(mean))
    assert found["days_past_due_max_6m"] == longest
    assert found["late_payment_ratio_6m"] == late


def of_edges(computed: Compute, *edges: str, weak: str = "") -> dict[str, dict[str, Any]]:
    """Edges like "ab" between one-letter parties a … h."""
    parties = [party(p, kyc_verified=int(p not in weak)) for p in "abcdefgh"]
    return computed(Batch(AS_OF, parties, [], [edge(e[0], e[1], AS_OF) for e in edges]))


def test_network_counts_distinct_parties(computed: Compute) -> None:
    found = of_edges(computed, "ab", "ab", "ba", "ac", "da", "aa")["a"]
    assert found["direct_counterparty_count"] == 3
    assert found["customer_count"] == 2
    assert found["supplier_count"] == 2
    assert found["network_balance_ratio"] == 1
    assert found["network_size"] == 2
    assert found["network_depth_downstream"] == 1


def test_edges_after_as_of_and_self_loops_do_not_count(computed: Compute) -> None:
    parties = [party(p) for p in "ab"]
    later = AS_OF + MICROSECOND
    found = computed(
        Batch(AS_OF, parties, [], [edge("a", "b", later), edge("b", "a", later), edge("a", "a", AS_OF)])
    )
    assert found["a"] == found["b"]
    assert found["a"]["network_balance_ratio"] == 0.5
    assert found["a"]["direct_counterparty_count"] == found["a"]["in_cycle"] == found["a"]["pagerank"] == 0


def test_reach_ends_after_five_hops(computed: Compute) -> None:
    chain = of_edges(computed, "ab", "bc", "cd", "de", "ef", "fg", "gh")
    assert [(chain[p]["network_size"], chain[p]["network_depth_downstream"]) for p in "abcgh"] == [
        (5, 5),
        (5, 5),
        (5, 5),
        (1, 1),
        (0, 0),
    ]
    short_cut = of_edges(computed, "ab", "bc", "cd", "de", "ef", "fg", "gh", "af")["a"]
    assert (short_cut["network_size"], short_cut["network_depth_downstream"]) == (
        7,
        4,
    )  # e is 4 away, f 1, h 3


def test_a_party_is_not_counted_in_its_own_reach(computed: Compute) -> None:
    ring = of_edges(computed, "ab", "bc", "ca", "cd")
    assert (ring["a"]["network_size"], ring["a"]["network_depth_downstream"]) == (3, 3)
    assert {p: ring[p]["in_cycle"] for p in "abcde"} == {"a": 1, "b": 1, "c": 1, "d": 0, "e": 0}


def test_exposure_to_weak_neighbours(computed: Compute) -> None:
    found = of_edges(computed, "ab", "ca", "bd", "eb", "cf", weak="bdf")
    assert found["a"]["weak_exposure_1hop"] == 0.5  # b of b and c
    assert found["a"]["weak_exposure_2hop"] == pytest.approx((1 / 2 + 1) / 2)  # d of d and e; f of f
    assert found["d"]["weak_exposure_1hop"] == 1
    assert found["f"]["weak_exposure_2hop"] == 0  # c's other neighbour is a
    assert found["g"]["weak_exposure_1hop"] == 0


def test_pagerank_is_one_on_average_over_those_with_edges(computed: Compute) -> None:
    found = of_edges(computed, "ac", "bc", "cd")
    ranks = {p: found[p]["pagerank"] for p in "abcde"}
    assert ranks["e"] == 0
    assert sum(ranks.values()) == pytest.approx(4)
    weight = {"a": 1, "b": 1, "c": 1 + 0.85 * 2, "d": 1 + 0.85 * 2.7}
    assert ranks["d"] == pytest.approx(4 * weight["d"] / sum(weight.values()))
