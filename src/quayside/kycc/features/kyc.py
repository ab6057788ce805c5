"""Features of the party itself: what is known about it, each from its own row of `kycc.parties`."""
# ruff: noqa: S608 - statements are made of constants of this package; values are bound

from __future__ import annotations

from typing import Final

from quayside.kycc.features.feature import Feature, filled
from quayside.kycc.tables import PARTIES

_AS_OF = "as of"


FEATURES: Final = (
    Feature(
        "kyc_verified", "kyc", "flag", "0/1", 0, 1, _AS_OF, 0,
        "Whether the party's identity was verified.",
        "p.kyc_verified",
    ),
    Feature(
        "has_tax_id", "kyc", "flag", "0/1", 0, 1, _AS_OF, 0,
        "Whether a tax number is on file; blank counts as missing.",
        filled("p.tax_id"),
    ),
    Feature(
        "company_age_years", "kyc", "number", "years of 365.25 d", 0, 500, _AS_OF, None,
        "(as_of - created_at) / 365.25 d; 0 when created after as_of, NULL when created_at is unknown.",
        # greatest() passes over NULL
        "CASE WHEN p.created_at IS NOT NULL THEN "
        "greatest(epoch_us($as_of) - epoch_us(p.created_at), 0) / (365.25 * 86400e6) END",
    ),
    Feature(
        "party_type_score", "kyc", "number", "points", 5, 10, _AS_OF, 5,
        "manufacturer 10, distributor 8, supplier 7, retailer 6, customer 5.",
        "CASE p.party_type WHEN 'manufacturer' THEN 10 WHEN 'distributor' THEN 8 WHEN 'supplier' THEN 7"
        " WHEN 'retailer' THEN 6 WHEN 'customer' THEN 5 END",
    ),
    Feature(
        "contact_completeness", "kyc", "number", "%", 0, 100, _AS_OF, 0,
        "Share of contact_person, email, phone and address that is filled, times 100; blank counts as missing.",
        "25 * (" + " + ".join(filled(f"p.{c}") for c in ("contact_person", "email", "phone", "address")) + ")",
    ),
)  # fmt: skip


def query() -> str:
    """SELECT of party_id and every KYC feature, one row per party of `$batch_id`."""
    columns = ", ".join(feature.select for feature in FEATURES)
    return f"SELECT p.party_id, {columns} FROM {PARTIES.qualified} AS p WHERE p.batch_id = $batch_id"
