"""The one list of features, and everything derived from it without touching data."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from quayside.kycc.features import kyc, network, transactions
from quayside.kycc.features.feature import Feature, Source
from quayside.kycc.features.moment import PARAMETERS
from quayside.kycc.tables import TIME, Table

FEATURES: Final[tuple[Feature, ...]] = (*kyc.FEATURES, *transactions.FEATURES, *network.FEATURES)
BY_NAME: Final[dict[str, Feature]] = {feature.name: feature for feature in FEATURES}

_KEY: Final = {"batch_id": "VARCHAR", "as_of": TIME, "party_id": "VARCHAR"}
_MARKERS: Final = {name: type_ for name, (type_, _) in network.MARKERS.items()}


def _table(name: str, features: tuple[Feature, ...], markers: dict[str, str]) -> Table:
    return Table(name, {**_KEY, **{f.name: f.sql_type for f in features}, **markers}, tuple(_KEY))


FEATURES_KYC: Final = _table("features_kyc", kyc.FEATURES, {})
FEATURES_TRANSACTION: Final = _table("features_transaction", transactions.FEATURES, {})
FEATURES_NETWORK: Final = _table("features_network", network.FEATURES, _MARKERS)
#: The wide table: one row per party, every feature, and whether its reach is an estimate.
FEATURES_WIDE: Final = _table("features", FEATURES, _MARKERS)
#: The registry as rows, for systems that read data and not code.
FEATURE_DEFINITIONS: Final = Table(
    "feature_definitions",
    {
        "name": "VARCHAR",
        "source": "VARCHAR",
        "kind": "VARCHAR",
        "sql_type": "VARCHAR",
        "unit": "VARCHAR",
        "low": "DOUBLE",
        "high": "DOUBLE",
        "window": "VARCHAR",
        "no_data": "DOUBLE",
        "description": "VARCHAR",
        "expression": "VARCHAR",
    },
    ("name",),
    partition_by=None,
)

#: Table of each source.
SOURCE_TABLES: Final[dict[Source, Table]] = {
    "kyc": FEATURES_KYC,
    "transaction": FEATURES_TRANSACTION,
    "network": FEATURES_NETWORK,
}
TABLES: Final[tuple[Table, ...]] = (*SOURCE_TABLES.values(), FEATURES_WIDE, FEATURE_DEFINITIONS)


def definitions() -> list[dict[str, Any]]:
    """The registry as plain data: one mapping per feature, with the columns of `FEATURE_DEFINITIONS`."""
    rows = [{**asdict(feature), "sql_type": feature.sql_type} for feature in FEATURES]
    return [{column: row[column] for column in FEATURE_DEFINITIONS.columns} for row in rows]


def as_data() -> dict[str, Any]:
    """What `definitions.json` holds: the features, where they are stored, and the queries their expressions stand in."""
    return {
        "table": FEATURES_WIDE.qualified,
        "key": list(FEATURES_WIDE.key),
        "entity": "party_id",
        "event_time": "as_of",
        "parameters": PARAMETERS,
        "queries": {"kyc": kyc.query(), "transaction": transactions.query()},
        "features": definitions(),
    }
