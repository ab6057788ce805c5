"""What ingest accepts, once more: slow, row by row, written from the rules and not from the queries."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

CODES = {
    "party_type": {"supplier", "manufacturer", "distributor", "retailer", "customer"},
    "account_type": {"checking", "savings"},
    "txn_type": {"invoice", "payment", "credit_note"},
    "relationship_type": {"supplies_to", "manufactures_for", "distributes_for", "sells_to"},
}
WORDS = {
    "vendor": "supplier",
    "individual": "customer",
    "wire": "payment",
    "purchase_order": "invoice",
    "refund": "credit_note",
    "purchases_from": "supplies_to",
}
FIELDS = {
    "parties": {
        "party_id": "id!",
        "name": "text!",
        "party_type": "code!",
        "kyc_verified": "flag!",
        "created_at": "time",
    },
    "accounts": {
        "account_id": "id!",
        "party_id": "parties!",
        "account_type": "code!",
        "currency": "currency!",
        "balance": "money",
    },
    "transactions": {
        "txn_id": "id!",
        "party_id": "parties!",
        "counterparty_id": "parties",
        "account_id": "accounts",
        "amount": "money!",
        "currency": "currency!",
        "txn_type": "code!",
        "ts": "time!",
        "reference": "text",
    },
    "relationships": {
        "relationship_id": "id!",
        "from_party_id": "parties!",
        "to_party_id": "parties!",
        "relationship_type": "code!",
        "established_date": "time!",
    },
}


class BadError(Exception):
    """A value that cannot be used; the text is the reason."""


def blank(value: Any) -> bool:
    return isinstance(value, str) and not value.strip(" ")


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise BadError("wrong_type")
    return value


def money(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadError("wrong_type")
    if isinstance(value, str) and not re.fullmatch(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?", value):
        raise BadError(
            "non_finite_amount" if re.fullmatch("(?i)[+-]?(nan|inf|infinity)", value) else "not_a_number"
        )
    if not math.isfinite(float(value)):
        raise BadError("non_finite_amount")
    if abs(float(value)) >= 1e12:
        raise BadError("absurd_amount")
    return Decimal(str(value)).quantize(Decimal("0.01"), ROUND_HALF_UP)


def time(value: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(text(value))
    except ValueError:
        raise BadError("impossible_date") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if not datetime(1800, 1, 1, tzinfo=UTC) <= moment < datetime(2100, 1, 1, tzinfo=UTC):
        raise BadError("impossible_date")
    return moment.astimezone(UTC)


def code(field: str, value: Any) -> str:
    word = re.sub(r"[\s_-]+", "_", text(value).strip(" ").lower())
    known = WORDS.get(word, word)
    if known not in CODES[field]:
        raise BadError("unknown_type")
    return known


def currency(value: Any) -> str:
    word = text(value).strip(" ").upper()
    if not re.fullmatch("[A-Z]{3}", word):
        raise BadError("unknown_currency")
    return word


def flag(value: Any) -> int:
    if value is True or value is False or (type(value) is int and value in (0, 1)):
        return int(value)
    raise BadError("not_zero_or_one")


def judge(batch: dict[str, Any]) -> tuple[dict[str, dict[str, dict[str, Any]]], set[tuple[str, int, str]]]:
    """Rows that are kept, by table and id, and (table, position, reason) of those that are not."""
    kept: dict[str, dict[str, dict[str, Any]]] = {}
    bad: set[tuple[str, int, str]] = set()
    for table, fields in FIELDS.items():
        good: dict[str, dict[str, Any]] = {}
        rows = batch[table]
        key = next(iter(fields))
        versions: dict[str, list[int]] = defaultdict(list)
        for n, row in enumerate(rows):
            if isinstance(row.get(key), str) and not blank(row[key]):
                versions[row[key]].append(n)
        for n, row in enumerate(rows):
            reasons = set()
            alike = versions.get(row[key], []) if isinstance(row.get(key), str) else []
            compared = [{f: rows[i].get(f) for f in fields} for i in alike]
            if any(other != compared[0] for other in compared):
                reasons.add("duplicate_id")
            elif alike and alike[0] != n:
                continue  # a copy
            values: dict[str, Any] = {}
            for field, rule in fields.items():
                kind, required = rule.rstrip("!"), rule.endswith("!")
                value = row.get(field)
                try:
                    if value is None or (kind != "flag" and blank(value)):
                        if required:
                            raise BadError("missing_value")
                        values[field] = value if kind in ("text", "parties", "accounts") else None
                        if kind in ("parties", "accounts") and value is not None:
                            raise BadError("dangling_reference")
                    elif kind in ("parties", "accounts"):
                        values[field] = text(value)
                        if value not in kept[kind]:
                            raise BadError("dangling_reference")
                    elif kind == "code":
                        values[field] = code(field, value)
                    else:
                        values[field] = {
                            "id": text,
                            "text": text,
                            "money": money,
                            "time": time,
                            "currency": currency,
                            "flag": flag,
                        }[kind](value)
                except BadError as problem:
                    reasons.add(str(problem))
            if row.get("batch_id") not in (None, batch["batch_id"]):
                reasons.add("other_batch")
            bad |= {(table, n, reason) for reason in reasons}
            if not reasons:
                if table == "relationships" and row["relationship_type"] == "purchases from":
                    values["from_party_id"], values["to_party_id"] = (
                        values["to_party_id"],
                        values["from_party_id"],
                    )
                good[values[key]] = values
        kept[table] = good
    return kept, bad
