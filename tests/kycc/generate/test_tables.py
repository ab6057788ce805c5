"""Keys, references and dates of the generated tables."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.kycc.generate.conftest import AT

from quayside.kycc.generate import Batch, Population, generate

pytestmark = pytest.mark.unit


def one(lake: Any, sql: str) -> Any:
    return lake.execute(sql).fetchone()[0]


@pytest.mark.parametrize(
    ("table", "key"), [("p", "party_id"), ("a", "account_id"), ("t", "txn_id"), ("r", "relationship_id")]
)
def test_keys_are_unique(lake: Any, table: str, key: str) -> None:
    assert one(lake, f"SELECT count(*) = count(DISTINCT {key}) AND count(*) > 0 FROM {table}")


@pytest.mark.parametrize(
    "reason",
    [
        "SELECT count(*) FROM t ANTI JOIN p USING (party_id)",
        "SELECT count(*) FROM t ANTI JOIN p ON t.counterparty_id = p.party_id",
        "SELECT count(*) FROM t ANTI JOIN a ON t.account_id = a.account_id AND t.party_id = a.party_id",
        "SELECT count(*) FROM t JOIN a USING (account_id) WHERE t.currency <> a.currency",
        "SELECT count(*) FROM a ANTI JOIN p USING (party_id)",
        "SELECT count(*) FROM p ANTI JOIN a USING (party_id)",
        "SELECT count(*) FROM r ANTI JOIN p ON r.from_party_id = p.party_id",
        "SELECT count(*) FROM r ANTI JOIN p ON r.to_party_id = p.party_id",
        "SELECT count(*) FROM o ANTI JOIN p USING (party_id)",
        "SELECT count(*) FROM p WHERE batch_id <> 'B-large' OR party_id IS NULL OR name IS NULL OR created_at IS NULL",
        "SELECT count(*) - count(DISTINCT tax_id) FROM p WHERE tax_id IS NOT NULL",
        "SELECT count(*) - count(DISTINCT party_id) FROM o",
    ],
)
def test_nothing_dangles(lake: Any, reason: str) -> None:
    assert one(lake, reason) == 0


@pytest.mark.parametrize(
    "reason",
    [
        "SELECT count(*) FROM t WHERE party_id = counterparty_id",
        "SELECT count(*) FROM r WHERE from_party_id = to_party_id",
        "SELECT count(*) - count(DISTINCT (from_party_id, to_party_id)) FROM r",
        "SELECT count(*) FROM t WHERE amount IS NULL OR amount = 0 OR (amount < 0) <> (txn_type = 'credit_note')",
        "SELECT count(*) FROM t WHERE (due_date IS NOT NULL) <> (txn_type = 'invoice')",
        "SELECT count(*) FROM t WHERE settles_txn_id IS NOT NULL AND txn_type <> 'payment'",
        # A payment settles one invoice of its own party, in full, after it came in, and quotes it.
        "SELECT count(*) - count(DISTINCT settles_txn_id) FROM t WHERE settles_txn_id IS NOT NULL",
        """SELECT count(*) FROM t AS y LEFT JOIN t AS i ON i.txn_id = y.settles_txn_id AND i.txn_type = 'invoice'
           AND i.party_id = y.party_id AND i.counterparty_id = y.counterparty_id AND i.amount = y.amount
           AND i.ts < y.ts AND i.reference = y.reference
           WHERE y.settles_txn_id IS NOT NULL AND i.txn_id IS NULL""",
    ],
)
def test_rows_make_sense(lake: Any, reason: str) -> None:
    assert one(lake, reason) == 0


@pytest.mark.parametrize(
    "reason",
    [
        "SELECT count(*) FROM t WHERE ts <= getvariable('as_of') - INTERVAL 180 DAY OR ts > getvariable('as_of')",
        "SELECT count(*) FROM p WHERE created_at > getvariable('as_of') - INTERVAL 109 DAY",
        "SELECT count(*) FROM r WHERE established_date > getvariable('as_of') "
        "OR established_date < getvariable('as_of') - INTERVAL 365 DAY",
        "SELECT count(*) FROM t JOIN p USING (party_id) WHERE ts < created_at",
        "SELECT count(*) FROM t JOIN p ON p.party_id = t.counterparty_id WHERE ts < created_at",
        "SELECT count(*) FROM r JOIN p ON p.party_id IN (from_party_id, to_party_id) WHERE established_date < created_at",
        "SELECT count(*) FROM t WHERE due_date < ts",
        "SELECT count(*) FROM o WHERE event_date <= getvariable('as_of') "
        "OR event_date > getvariable('as_of') + INTERVAL 180 DAY",
    ],
)
def test_dates_are_possible(lake: Any, reason: str) -> None:
    assert one(lake, reason) == 0


def test_outcomes_are_observed_to_the_end_of_their_window(large: Batch) -> None:
    assert large.observed_through >= AT + timedelta(days=180)


def test_counterparties_are_neighbours_where_there_are_any(lake: Any) -> None:
    strangers = one(
        lake,
        """WITH n AS (SELECT from_party_id AS a, to_party_id AS b FROM r UNION SELECT to_party_id, from_party_id FROM r)
           SELECT count(*) FROM t SEMI JOIN n ON n.a = t.party_id
           ANTI JOIN n ON n.a = t.party_id AND n.b = t.counterparty_id""",
    )
    assert strangers == 0
    side = one(
        lake,
        """SELECT avg((r.to_party_id IS NOT NULL)::INT) FROM t
           LEFT JOIN r ON from_party_id = counterparty_id AND to_party_id = t.party_id
           WHERE t.party_id IN (SELECT from_party_id FROM r) AND t.party_id IN (SELECT to_party_id FROM r)""",
    )
    assert side == pytest.approx(0.5, abs=0.02)  # who has both trades with suppliers and customers alike


def test_edges_join_the_types_they_are_made_for(lake: Any) -> None:
    kinds = lake.execute(
        """SELECT DISTINCT s.party_type, relationship_type, d.party_type FROM r
           JOIN p AS s ON s.party_id = from_party_id JOIN p AS d ON d.party_id = to_party_id"""
    ).fetchall()
    assert set(kinds) == {
        ("supplier", "supplies_to", "manufacturer"),
        ("supplier", "supplies_to", "distributor"),
        ("manufacturer", "manufactures_for", "distributor"),
        ("manufacturer", "manufactures_for", "retailer"),
        ("distributor", "distributes_for", "retailer"),
        ("retailer", "sells_to", "customer"),
    }


def test_balanced_file_of_100_has_the_usual_size(small: Batch) -> None:
    assert small.counts["transactions"] == pytest.approx(10_800, rel=0.08)
    assert small.counts["relationships"] == pytest.approx(670, rel=0.12)
    assert small.counts == {
        "parties": small.parties.num_rows,
        "accounts": small.accounts.num_rows,
        "transactions": small.transactions.num_rows,
        "relationships": small.relationships.num_rows,
    }


@pytest.mark.parametrize("parties", [1, 2, 3, 7])
def test_tiny_batches(parties: int) -> None:
    isolated = 0
    for seed in range(12):
        batch = generate("tiny", parties, generated_at=AT, seed=seed)
        assert batch.parties.num_rows == batch.accounts.num_rows == parties
        rows = batch.transactions.to_pylist()
        assert all(row["party_id"] != row["counterparty_id"] for row in rows)
        assert bool(rows) == (parties > 1)  # nobody trades with themselves
        isolated += not batch.relationships.num_rows
    assert isolated or parties > 2  # parties without neighbours trade with anybody, and have been seen here


def test_names_and_contacts(lake: Any) -> None:
    assert one(lake, "SELECT count(DISTINCT name) > 9000 FROM p")
    assert one(
        lake, r"SELECT count(*) BETWEEN 200 AND 3000 FROM p WHERE regexp_matches(name, '[^\x00-\x7F]')"
    )
    assert one(lake, r"SELECT bool_and(regexp_full_match(email, '[a-z]+\.[a-z]+@[a-z]+\.example')) FROM p")
    assert one(lake, r"SELECT bool_and(regexp_full_match(phone, '\+1-[0-9]{3}-555-01[0-9]{2}')) FROM p")


def test_two_batches_share_no_party() -> None:
    first = generate("B-1", 500, generated_at=AT)
    for other in (
        generate("B-2", 500, generated_at=AT),
        generate("B-1", 500, generated_at=AT, seed=7),
        generate("B-1", 501, generated_at=AT),
        generate("B-1", 500, generated_at=AT, population=Population("B-1", AT)),
    ):
        for table, key in (("parties", "party_id"), ("parties", "tax_id"), ("transactions", "txn_id")):
            ids, others = first.table(table)[key].to_pylist(), other.table(table)[key].to_pylist()
            assert not (set(ids) - {None}) & set(others)


def test_a_population_is_observed_twice() -> None:
    population = Population("traders", AT)
    first = generate("2026-03", 400, generated_at=AT, population=population)
    later = AT + timedelta(days=90)
    second = generate("2026-06", 400, generated_at=later, population=population)
    assert first.parties.drop_columns("batch_id") == second.parties.drop_columns("batch_id")
    assert first.relationships.drop_columns("batch_id") == second.relationships.drop_columns("batch_id")
    assert not set(first.transactions["txn_id"].to_pylist()) & set(second.transactions["txn_id"].to_pylist())
    times = second.transactions["ts"].to_pylist()
    assert later - timedelta(days=180) < min(times) < max(times) <= later
    assert min(second.outcomes["event_date"].to_pylist()) > later
    assert first.outcomes["party_id"].to_pylist() != second.outcomes["party_id"].to_pylist()


def test_several_currencies_convert_back(small: Batch) -> None:
    import duckdb

    batch = generate("fx", 800, generated_at=AT, currencies=("EUR", "USD", "INR"))
    t, fx = batch.transactions, batch.fx_rates
    assert small.fx_rates.num_rows == 0
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    con.register("t", t)
    con.register("a", batch.accounts)
    con.register("fx", fx)
    assert con.execute(
        "SELECT count(*) = count(DISTINCT (currency, base_currency, day)) FROM fx"
    ).fetchone() == (True,)
    rows = dict(
        con.execute(
            """SELECT currency, avg(abs(amount) * coalesce(rate, 1)) FROM t
               LEFT JOIN fx USING (currency) WHERE day IS NULL OR day = ts::DATE GROUP BY 1"""
        ).fetchall()
    )
    missing = con.execute(
        "SELECT count(*) FROM t ANTI JOIN fx ON fx.currency = t.currency AND day = ts::DATE WHERE t.currency <> 'EUR'"
    ).fetchone()
    assert missing == (0,)
    assert set(rows) == {"EUR", "USD", "INR"}
    balances = con.execute(
        "SELECT currency, avg(balance * coalesce(rate, 1)) FROM a LEFT JOIN fx USING (currency) "
        "WHERE day IS NULL OR day = DATE '2026-03-02' GROUP BY 1"
    ).fetchall()
    assert [value for _, value in balances] == pytest.approx([balances[0][1]] * 3, rel=0.3)
    # Rupee amounts are ninety times as large; in the base currency all three are of one size.
    assert rows["USD"] == pytest.approx(rows["EUR"], rel=0.15)
    assert rows["INR"] == pytest.approx(rows["EUR"], rel=0.15)


def test_batches_of_different_seed_agree_on_the_rates_of_a_day() -> None:
    first = generate("a", 2, generated_at=AT, currencies=("USD", "EUR")).fx_rates.to_pylist()
    other = generate("b", 2, generated_at=AT + timedelta(days=9), seed=1, currencies=("USD", "EUR")).fx_rates
    shared = {row["day"]: row["rate"] for row in first}
    assert (
        sum(shared.get(row["day"], row["rate"]) == row["rate"] for row in other.to_pylist()) == other.num_rows
    )
    assert len(set(shared.values())) > 150
