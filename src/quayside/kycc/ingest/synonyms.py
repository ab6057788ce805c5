"""The closed sets of codes and the words that mean the same. Spelling aside: case, spaces and hyphens do not matter."""

from __future__ import annotations

from typing import Final

CODES: Final[dict[str, tuple[str, ...]]] = {
    "party_type": ("supplier", "manufacturer", "distributor", "retailer", "customer"),
    "account_type": ("checking", "savings"),
    "txn_type": ("invoice", "payment", "credit_note"),
    "relationship_type": ("supplies_to", "manufactures_for", "distributes_for", "sells_to"),
    "event": ("overdue_90", "write_off", "collection"),
}

SYNONYMS: Final[dict[str, dict[str, str]]] = {
    "party_type": {
        "vendor": "supplier",
        "wholesaler": "distributor",
        "merchant": "retailer",
        "individual": "customer",
    },
    "account_type": {},
    "txn_type": {
        "deposit": "payment",
        "withdrawal": "payment",
        "transfer": "payment",
        "wire": "payment",
        "ach": "payment",
        "check": "payment",
        "bill": "invoice",
        "purchase_order": "invoice",
        "sales_order": "invoice",
        "refund": "credit_note",
        "reversal": "credit_note",
        "chargeback": "credit_note",
        "adjustment": "credit_note",
    },
    "relationship_type": {
        "purchases_from": "supplies_to",
        "sources_from": "supplies_to",
        "procures_from": "supplies_to",
    },
    "event": {
        "90_days_past_due": "overdue_90",
        "90dpd": "overdue_90",
        "charge_off": "write_off",
        "writeoff": "write_off",
        "collections": "collection",
    },
}

#: Relationship words that look from the other end: "a purchases_from b" is "b supplies_to a".
TURNED: Final = frozenset({"purchases_from", "sources_from", "procures_from"})
