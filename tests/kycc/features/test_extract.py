"""Extraction as an act: what it stores, what it leaves alone, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import duckdb
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from tests.kycc.features.batches import MICROSECOND, Batch, batches, create, edge, load, party, transaction
from tests.kycc.features.conftest import extracted

from quayside.foundation.errors import CheckFailedError, InputError, NotFoundError
from quayside.kycc import features
from quayside.kycc.tables import PARTIES, RELATIONSHIPS, TRANSACTIONS

pytestmark = pytest.mark.unit

AS_OF = datetime(2026, 6, 1, tzinfo=UTC)
EXTRACTORS = (
    features.extract_kyc,
    features.extract_transactions,
    features.extract_network,
    features.extract_features,
)
SMALL = Batch(
    AS_OF,
    [party("a", kyc_verified=1, created_at=AS_OF - timedelta(days=1461)), party("b"), party("c")],
    [transaction("a", AS_OF, amount=5, counterparty_id="b"), transaction("b", AS_OF, amount=7)],
    [edge("a", "b", AS_OF)],
)


def contents(con: duckdb.DuckDBPyConnection, batch_id: str) -> list[Any]:
    tables = [*features.SOURCE_TABLES.values(), features.FEATURES_WIDE]
    query = "SELECT * REPLACE (epoch_us(as_of) AS as_of) FROM {} WHERE batch_id = ? ORDER BY as_of, party_id"
    return [con.execute(query.format(table.qualified), [batch_id]).fetchall() for table in tables]


def test_results_say_what_was_done(con: duckdb.DuckDBPyConnection) -> None:
    load(con, "said", SMALL)
    kyc, transactions, network, wide = (extract(con, "said", AS_OF) for extract in EXTRACTORS)
    assert [r.table for r in (kyc, transactions, network, wide)] == [
        "kycc.features_kyc",
        "kycc.features_transaction",
        "kycc.features_network",
        "kycc.features",
    ]
    assert all(r.rows == 3 and r.changed and r.seconds > 0 for r in (kyc, transactions, network, wide))
    assert list(wide.distributions) == list(features.BY_NAME)
    age = kyc.distributions["company_age_years"]
    assert (age.present, age.informative, age.minimum, age.mean, age.maximum) == (1 / 3, 1 / 3, 4, 4, 4)
    assert sum(age.counts) == 1
    assert len(age.edges) == len(age.counts) + 1
    count = transactions.distributions["transaction_count_6m"]
    assert (count.present, count.informative, count.mean) == (1, 2 / 3, 2 / 3)
    nothing = transactions.distributions["days_past_due_max_6m"]
    assert (nothing.present, nothing.informative, nothing.mean, nothing.counts) == (0, 0, None, [])


@pytest.mark.parametrize("cents", [0, 1])
def test_amounts_too_large_and_close_for_bars_between_them(
    con: duckdb.DuckDBPyConnection, cents: int
) -> None:
    amounts = [Decimal(9_999_999_999_999_999_00 + cents * n).scaleb(-2) for n in range(2)]
    rows = [transaction(id_, AS_OF, amount=amount) for id_, amount in zip("ab", amounts, strict=True)]
    load(con, "large", Batch(AS_OF, [party("a"), party("b")], rows))
    found = features.extract_transactions(con, "large", AS_OF).distributions["total_transaction_volume_6m"]
    assert (found.minimum, sum(found.counts)) == (9_999_999_999_999_999.0, 2)
    assert sorted(set(found.edges)) == found.edges


def test_the_same_again_changes_nothing_and_other_rows_replace_it(con: duckdb.DuckDBPyConnection) -> None:
    load(con, "again", SMALL)
    extracted(con, "again", SMALL)
    before = contents(con, "again")
    assert [extract(con, "again", AS_OF).changed for extract in EXTRACTORS] == [False] * 4
    assert contents(con, "again") == before

    load(con, "again", SMALL.with_more([transaction("c", AS_OF)]))
    assert [extract(con, "again", AS_OF).changed for extract in EXTRACTORS] == [False, True, False, True]
    kyc, _, network, wide = contents(con, "again")
    assert (kyc, network) == (before[0], before[2])
    assert len(wide) == 3
    assert wide[:2] == before[3][:2]
    assert wide[2] != before[3][2]


def test_moments_and_batches_stand_side_by_side(con: duckdb.DuckDBPyConnection) -> None:
    earlier = AS_OF - MICROSECOND
    load(con, "aside", SMALL)
    extracted(con, "aside", SMALL)
    first = contents(con, "aside")
    load(con, "beside", SMALL)
    extracted(con, "beside", SMALL)
    found = extracted(con, "aside", replace(SMALL, as_of=earlier))
    assert found["a"]["transaction_count_6m"] == found["a"]["customer_count"] == 0
    for old, new in zip(first, contents(con, "aside"), strict=True):
        assert len(new) == 2 * len(old)
        assert new[len(old) :] == old


def test_party_gone_from_the_batch_is_gone_from_its_features(con: duckdb.DuckDBPyConnection) -> None:
    load(con, "fewer", SMALL)
    extracted(con, "fewer", SMALL)
    load(con, "fewer", Batch(AS_OF, SMALL.parties[:1]))
    assert list(extracted(con, "fewer", SMALL)) == ["a"]


def test_a_roll_back_leaves_nothing(con: duckdb.DuckDBPyConnection) -> None:
    load(con, "undone", SMALL)
    con.begin()
    extracted(con, "undone", SMALL)
    con.rollback()
    assert contents(con, "undone") == [[], [], [], []]


def test_temporary_tables_do_not_stay(con: duckdb.DuckDBPyConnection) -> None:
    load(con, "tidy", SMALL)
    extracted(con, "tidy", SMALL)
    left = con.execute("SELECT table_name FROM duckdb_tables() WHERE temporary").fetchall()
    assert left == []


def test_a_batch_that_is_not_there_is_refused(con: duckdb.DuckDBPyConnection) -> None:
    for extract in EXTRACTORS:
        with pytest.raises(NotFoundError, match="'nowhere' has no parties in the lake: ingest it first"):
            extract(con, "nowhere", AS_OF)


def test_the_join_refuses_what_is_missing_or_old(con: duckdb.DuckDBPyConnection) -> None:
    load(con, "part", SMALL)
    features.extract_kyc(con, "part", AS_OF)
    features.extract_network(con, "part", AS_OF)
    with pytest.raises(
        CheckFailedError, match=r"3 parties but 0 rows of transaction features .*extract the transaction"
    ):
        features.extract_features(con, "part", AS_OF)
    features.extract_transactions(con, "part", AS_OF)
    load(con, "part", replace(SMALL, parties=[*SMALL.parties, party("d")]))
    with pytest.raises(CheckFailedError, match="4 parties but 3 rows of kyc features"):
        features.extract_features(con, "part", AS_OF)


@pytest.mark.parametrize(
    "moment, sentence",
    [(datetime(2026, 6, 1), "has no zone"), (datetime(1900, 12, 31, tzinfo=UTC), "is before 1901")],
)
def test_a_moment_that_is_none_is_refused(
    con: duckdb.DuckDBPyConnection, moment: datetime, sentence: str
) -> None:
    for extract in EXTRACTORS:
        with pytest.raises(InputError, match=sentence):
            extract(con, "B", moment)


def test_ids_are_values_and_never_code(con: duckdb.DuckDBPyConnection) -> None:
    name = "x'; DROP TABLE kycc.parties; -- $as_of"
    load(con, name, SMALL)
    assert extracted(con, name, SMALL)["a"]["total_transaction_volume_6m"] == 5
    assert [extract(con, name, AS_OF).changed for extract in EXTRACTORS] == [False] * 4


@pytest.mark.slow
def test_nothing_after_as_of_is_read(con: duckdb.DuckDBPyConnection) -> None:
    """Whatever is added after the moment, features as of it stay the same to the last bit."""

    @seed(11)
    @settings(max_examples=25)
    @given(batch=batches(), data=st.data())
    def same(batch: Batch, data: st.DataObject) -> None:
        load(con, "B", batch)
        before = extracted(con, "B", batch)
        ids = st.sampled_from([p["party_id"] for p in batch.parties])
        later = st.integers(1, 10**13).map(lambda us: batch.as_of.astimezone(UTC) + us * MICROSECOND)
        more = data.draw(
            st.lists(
                st.builds(
                    transaction,
                    ids,
                    later,
                    st.sampled_from(("invoice", "payment", "credit_note")),
                    st.integers(-1000, 1000),
                    txn_id=st.uuids().map(str),
                    counterparty_id=ids,
                    due_date=st.none() | st.just(batch.as_of - timedelta(days=1)),
                    settles_txn_id=st.none() | st.sampled_from([f"T{i}" for i in range(14)]),
                ),
                min_size=1,
                max_size=6,
            )
        )
        edges = data.draw(st.lists(st.builds(edge, ids, ids, later), min_size=1, max_size=6))
        load(con, "B", batch.with_more(more, edges))
        assert extracted(con, "B", batch) == before
        newcomer = {**batch.parties[0], "party_id": "newcomer", "created_at": data.draw(later)}
        load(con, "B", replace(batch.with_more(more, edges), parties=[*batch.parties, newcomer]))
        assert {p: v for p, v in extracted(con, "B", batch).items() if p != "newcomer"} == before

    same()


@pytest.fixture(scope="module")
def shuffled() -> Callable[[int, str], list[Any]]:
    """``shuffled(threads, order)``: all features of one larger batch whose rows are stored in that order."""

    def compute(threads: int, order: str) -> list[Any]:
        with duckdb.connect(config={"threads": threads}) as con:
            create(con, (PARTIES, TRANSACTIONS, RELATIONSHIPS, *features.TABLES))
            con.execute(
                f"""
                INSERT INTO kycc.parties (batch_id, party_id, party_type, kyc_verified, created_at)
                SELECT 'B', 'P-' || i, 'supplier', i % 3 = 0, $as_of - to_days((i % 999)::INT) FROM range(400) t(i) ORDER BY {order};
            """,
                {"as_of": AS_OF},
            )
            con.execute(
                f"""
                INSERT INTO kycc.transactions
                    (batch_id, txn_id, party_id, counterparty_id, amount_base, txn_type, ts, due_date, settles_txn_id)
                SELECT 'B', 'T-' || i, 'P-' || hash(i) % 400, 'P-' || hash(i, 1) % 40, (hash(i, 2) % 10000000)::DECIMAL(18, 2) / 100,
                    ['invoice', 'payment', 'credit_note'][1 + (hash(i, 3) % 3)::INT], $as_of - to_seconds((hash(i, 4) % 20000000)::INT),
                    $as_of - to_seconds((hash(i, 5) % 20000000)::INT), 'T-' || hash(i, 6) % 300000
                FROM range(300000) t(i) ORDER BY {order}
            """,
                {"as_of": AS_OF},
            )
            con.execute(
                f"""
                INSERT INTO kycc.relationships (batch_id, from_party_id, to_party_id, established_date)
                SELECT 'B', 'P-' || hash(i) % 400, 'P-' || hash(i, 1) % 400, $as_of FROM range(700) t(i) ORDER BY {order}
            """,
                {"as_of": AS_OF},
            )
            for extract in EXTRACTORS:
                extract(con, "B", AS_OF)
            return contents(con, "B")

    return compute


def test_order_of_rows_and_threads_do_not_move_a_bit(shuffled: Callable[[int, str], list[Any]]) -> None:
    one = shuffled(1, "i")
    assert len(one[3]) == 400
    assert shuffled(4, "hash(i, 99)") == one
