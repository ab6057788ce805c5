"""The registry is consistent, and what is generated from it is current."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest
from tests.kycc.features.batches import create

from quayside.kycc import features
from quayside.kycc.features import document, kyc, network, registry, transactions
from quayside.kycc.features.moment import PARAMETERS, Moment

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[3]
RENEW = "run `python -m quayside.kycc.features.document`"

#: What other parts and other systems call by name.
SPECIFIED = {
    "kyc": "kyc_verified has_tax_id company_age_years party_type_score contact_completeness",
    "transaction": "transaction_count_6m avg_transaction_amount total_transaction_volume_6m transaction_regularity_score "
    "payment_type_diversity recent_activity_flag",
    "network": "direct_counterparty_count network_depth_downstream network_size supplier_count customer_count "
    "network_balance_ratio",
}


@pytest.mark.parametrize("source", SPECIFIED)
def test_every_specified_feature_is_there(source: str) -> None:
    names = [feature.name for feature in features.FEATURES if feature.source == source]
    assert set(SPECIFIED[source].split()) <= set(names)
    columns = list(features.SOURCE_TABLES[source].columns)
    assert columns[: 3 + len(names)] == ["batch_id", "as_of", "party_id", *names]


def test_names_are_unique_and_the_wide_table_has_them_all() -> None:
    assert len(features.BY_NAME) == len(features.FEATURES)
    assert list(features.FEATURES_WIDE.columns) == [
        "batch_id",
        "as_of",
        "party_id",
        *features.BY_NAME,
        "network_is_estimate",
        "network_size_error",
    ]


@pytest.mark.parametrize("feature", features.FEATURES, ids=lambda f: f.name)
def test_what_is_stored_without_data_is_in_range(feature: features.Feature) -> None:
    assert feature.description.endswith(".")
    if feature.no_data is not None:
        assert feature.low is None or feature.no_data >= feature.low
        assert feature.high is None or feature.no_data <= feature.high
    if feature.kind == "flag":
        assert (feature.low, feature.high) == (0, 1)


@pytest.mark.parametrize("query", [kyc.query(), transactions.query(), network.NODES, network.EDGES])
def test_every_name_in_a_query_is_explained_and_has_a_value(query: str) -> None:
    used = set(re.findall(r"\$(\w+)", query))
    assert used
    assert used <= PARAMETERS.keys()
    assert Moment("B", datetime(2026, 1, 1, tzinfo=UTC)).parameters(query).keys() == used


def test_the_json_file_is_current() -> None:
    assert document.JSON_FILE.read_text(encoding="utf-8") == document.as_json(), RENEW
    assert [row["name"] for row in json.loads(document.as_json())["features"]] == list(features.BY_NAME)


def test_the_documentation_is_current() -> None:
    assert (ROOT / document.PAGE).read_text(encoding="utf-8") == document.as_markdown(), RENEW


def test_definitions_are_published_once() -> None:
    with duckdb.connect() as con:
        create(con, features.TABLES)
        assert features.publish_definitions(con)
        assert not features.publish_definitions(con)
        rows = con.execute(
            "SELECT name, low, no_data FROM kycc.feature_definitions WHERE source = 'network'"
        ).fetchall()
        assert ("network_balance_ratio", 0, 0.5) in rows
        con.execute("UPDATE kycc.feature_definitions SET no_data = 7 WHERE name = 'company_age_years'")
        assert features.publish_definitions(con)
        assert con.execute("SELECT count(*) FROM kycc.feature_definitions").fetchone() == (
            len(registry.FEATURES),
        )
