"""Features of trade counterparties, all as of a stated moment.

`registry` defines each feature once; `extract` computes and stores them, `validation` checks their ranges, `document`
writes the registry out for readers (`docs/kycc/features.md`) and for other systems (`definitions.json`). Every extraction
is set-based: no loop over parties anywhere.
"""

from quayside.kycc.features.extract import (
    Extraction,
    extract_features,
    extract_kyc,
    extract_network,
    extract_transactions,
    publish_definitions,
)
from quayside.kycc.features.feature import Feature
from quayside.kycc.features.registry import (
    BY_NAME,
    FEATURE_DEFINITIONS,
    FEATURES,
    FEATURES_KYC,
    FEATURES_NETWORK,
    FEATURES_TRANSACTION,
    FEATURES_WIDE,
    SOURCE_TABLES,
    TABLES,
)
from quayside.kycc.features.validation import Violation, validate

__all__ = [
    "BY_NAME",
    "FEATURES",
    "FEATURES_KYC",
    "FEATURES_NETWORK",
    "FEATURES_TRANSACTION",
    "FEATURES_WIDE",
    "FEATURE_DEFINITIONS",
    "SOURCE_TABLES",
    "TABLES",
    "Extraction",
    "Feature",
    "Violation",
    "extract_features",
    "extract_kyc",
    "extract_network",
    "extract_transactions",
    "publish_definitions",
    "validate",
]
