"""Features of the trading network: `kycc.relationships` alone, downstream = from → to.

An edge counts when it was established at or before as_of and joins two different parties of the batch; repeated edges
count once. The expressions speak of the columns that `measures.measure` computes.
"""
# ruff: noqa: S608 - statements are made of constants of this package; values are bound

from __future__ import annotations

from typing import Final

from quayside.kycc.features.feature import Feature, filled
from quayside.kycc.tables import PARTIES, RELATIONSHIPS

HOPS: Final = 5
DAMPING: Final = 0.85

_WINDOW = "edges established up to as_of"

FEATURES: Final = (
    Feature(
        "direct_counterparty_count", "network", "count", "parties", 0, None, _WINDOW, 0,
        "Distinct neighbours, upstream or downstream.",
        "neighbours",
    ),
    Feature(
        "network_depth_downstream", "network", "count", "hops", 0, HOPS, _WINDOW, 0,
        f"Longest of the shortest paths downstream to the parties reached within {HOPS} hops. Where network_is_estimate, a "
        "lower bound.",
        "reach_depth",
    ),
    Feature(
        "network_size", "network", "count", "parties", 0, None, _WINDOW, 0,
        f"Distinct parties reached downstream within {HOPS} hops, the party itself not counted. Where network_is_estimate, an "
        "estimate with relative standard error network_size_error.",
        "reach_size",
    ),
    Feature(
        "supplier_count", "network", "count", "parties", 0, None, _WINDOW, 0,
        "Distinct parties with an edge to this one.",
        "suppliers",
    ),
    Feature(
        "customer_count", "network", "count", "parties", 0, None, _WINDOW, 0,
        "Distinct parties this one has an edge to.",
        "customers",
    ),
    Feature(
        "network_balance_ratio", "network", "number", "ratio", 0, 1, _WINDOW, 0.5,
        "min / max of supplier_count and customer_count.",
        "CAST(least(suppliers, customers) AS DOUBLE) / nullif(greatest(suppliers, customers), 0)",
    ),
    Feature(
        "weak_exposure_1hop", "network", "number", "share", 0, 1, _WINDOW, 0,
        "Share of weak parties among the distinct neighbours, upstream or downstream. Weak: kyc_verified 0 and has_tax_id 0.",
        "CAST(weak_neighbours AS DOUBLE) / nullif(neighbours, 0)",
    ),
    Feature(
        "weak_exposure_2hop", "network", "number", "share", 0, 1, _WINDOW, 0,
        "Mean, over the distinct neighbours that have other neighbours than this party, of the share of weak parties among "
        "those others: how weak the next party is on a walk of two steps that does not turn back.",
        "weak_share_beyond",
    ),
    Feature(
        "pagerank", "network", "number", "1 = average", 0, None, _WINDOW, 0,
        f"PageRank with damping {DAMPING} of the parties that have any edge, rank flowing downstream and evenly to all from "
        "those without customers, times the number of those parties. No data: no edge.",
        "pagerank",
    ),
    Feature(
        "in_cycle", "network", "flag", "0/1", 0, 1, _WINDOW, 0,
        "Whether the party lies on a directed cycle (its strongly connected component has more than one party).",
        "component_size > 1",
    ),
)  # fmt: skip

#: Columns beside the features that say whether the two reach features are exact: name → (DuckDB type, expression).
MARKERS: Final[dict[str, tuple[str, str]]] = {
    "network_is_estimate": ("BOOLEAN", "estimated"),
    "network_size_error": ("DOUBLE", "size_error"),
}

NODES: Final = f"""
SELECT party_id, CAST(row_number() OVER (ORDER BY party_id) - 1 AS INTEGER) AS node,
  coalesce(kyc_verified, 0) = 0 AND {filled("tax_id")} = 0 AS weak
FROM {PARTIES.qualified} WHERE batch_id = $batch_id
"""
EDGES: Final = f"""
SELECT source.node AS source, target.node AS target FROM {RELATIONSHIPS.qualified} AS r
JOIN temp.feature_nodes AS source ON source.party_id = r.from_party_id
JOIN temp.feature_nodes AS target ON target.party_id = r.to_party_id
WHERE r.batch_id = $batch_id AND r.established_date <= $as_of
"""
KEYS: Final = "SELECT md5_number_lower(party_id) AS key FROM temp.feature_nodes ORDER BY node"


def query() -> str:
    """SELECT of party_id and every network feature from `feature_nodes` and the measured table `feature_measures`."""
    columns = [feature.select for feature in FEATURES]
    columns += [f"{expression} AS {name}" for name, (_, expression) in MARKERS.items()]
    return f"SELECT party_id, {', '.join(columns)} FROM temp.feature_nodes JOIN feature_measures USING (node)"
