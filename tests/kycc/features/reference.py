"""The features once more: slow, obvious, and written from the definitions alone, to hold the real ones against.

Nothing of the package is used here. Rows are mappings with the columns of the lake tables; times are aware datetimes and
amounts Decimals. One loop per party, one breadth-first search per party: fit for a few dozen of them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from math import sqrt
from typing import Any

Row = Mapping[str, Any]

DAY = timedelta(days=1)
TYPE_SCORES = {"manufacturer": 10, "distributor": 8, "supplier": 7, "retailer": 6, "customer": 5}


def reference_features(
    parties: Sequence[Row], transactions: Sequence[Row], relationships: Sequence[Row], as_of: datetime
) -> dict[str, dict[str, Any]]:
    """party_id → feature → value."""
    # Python takes the difference of two times of one zone by the clock on the wall, so instants must be in UTC first.
    as_of = as_of.astimezone(UTC)
    parties, transactions, relationships = in_utc(parties), in_utc(transactions), in_utc(relationships)
    # What happened after as_of is unknown, whatever it is.
    transactions = [t for t in transactions if t["ts"] <= as_of]
    network = Network(parties, [r for r in relationships if r["established_date"] <= as_of])
    return {
        p["party_id"]: {
            **party_features(p, as_of),
            **transaction_features(p["party_id"], transactions, as_of),
            **network.features(p["party_id"]),
        }
        for p in parties
    }


def in_utc(rows: Sequence[Row]) -> list[Row]:
    return [{k: v.astimezone(UTC) if isinstance(v, datetime) else v for k, v in row.items()} for row in rows]


def is_filled(text: str | None) -> bool:
    return text is not None and text.strip() != ""


def party_features(party: Row, as_of: datetime) -> dict[str, Any]:
    age = None
    if party["created_at"] is not None:
        age = max(as_of - party["created_at"], timedelta(0)) / DAY / 365.25
    contacts = [is_filled(party[field]) for field in ("contact_person", "email", "phone", "address")]
    return {
        "kyc_verified": party["kyc_verified"] or 0,
        "has_tax_id": int(is_filled(party["tax_id"])),
        "company_age_years": age,
        "party_type_score": TYPE_SCORES.get(party["party_type"], 5),
        "contact_completeness": 100 * sum(contacts) / 4,
    }


def transaction_features(party_id: str, transactions: Sequence[Row], as_of: datetime) -> dict[str, Any]:
    own = [t for t in transactions if t["party_id"] == party_id]
    window = [t for t in own if as_of - 180 * DAY < t["ts"] <= as_of]
    counted = [t for t in window if t["txn_type"] != "credit_note"]
    volume = sum((abs(Fraction(t["amount_base"])) for t in counted), Fraction(0))
    new = sum((abs(Fraction(t["amount_base"])) for t in counted if t["ts"] > as_of - 90 * DAY), Fraction(0))
    old = volume - new
    notes = [t for t in window if t["txn_type"] == "credit_note"]
    late = [days_past_due(i, transactions, as_of) for i in own if falls_due(i, as_of)]
    return {
        "transaction_count_6m": len(window),
        "avg_transaction_amount": float(volume / len(counted)) if counted else 0,
        "total_transaction_volume_6m": float(volume),
        "transaction_regularity_score": regularity(counted),
        "payment_type_diversity": len({t["txn_type"] for t in window}),
        "recent_activity_flag": int(any(t["ts"] > as_of - 30 * DAY for t in window)),
        "credit_note_ratio_6m": len(notes) / len(window) if window else None,
        "volume_trend_6m": float((new - old) / volume) if volume else None,
        "customer_concentration_6m": concentration([t for t in counted if t["txn_type"] == "invoice"]),
        "supplier_concentration_6m": concentration([t for t in counted if t["txn_type"] == "payment"]),
        "days_past_due_mean_6m": sum(late) / len(late) if late else None,
        "days_past_due_max_6m": max(late) if late else None,
        "late_payment_ratio_6m": sum(days > 0 for days in late) / len(late) if late else None,
    }


def regularity(counted: Sequence[Row]) -> float:
    months: dict[tuple[int, int], Fraction] = defaultdict(Fraction)
    for t in counted:
        months[t["ts"].year, t["ts"].month] += abs(Fraction(t["amount_base"]))
    if not months:
        return 0
    if len(months) == 1:
        return 50
    sums = list(months.values())
    if not any(sums):
        return 0
    mean = sum(sums) / len(sums)
    variance = sum(((s / mean - 1) ** 2 for s in sums), Fraction(0)) / len(sums)
    return 100 * (1 - min(sqrt(variance), 1))


def concentration(counted: Sequence[Row]) -> float | None:
    by_counterparty: dict[str, Fraction] = defaultdict(Fraction)
    for t in counted:
        by_counterparty[t["counterparty_id"]] += abs(Fraction(t["amount_base"]))
    total = sum(by_counterparty.values())
    return float(sum((v / total) ** 2 for v in by_counterparty.values())) if total else None


def falls_due(transaction: Row, as_of: datetime) -> bool:
    due = transaction["due_date"]
    return transaction["txn_type"] == "invoice" and due is not None and as_of - 180 * DAY < due <= as_of


def days_past_due(invoice: Row, transactions: Sequence[Row], as_of: datetime) -> float:
    settled = [
        t["ts"]
        for t in transactions
        if t["settles_txn_id"] == invoice["txn_id"] and t["txn_type"] in ("payment", "credit_note")
    ]
    return max((min(settled) if settled else as_of) - invoice["due_date"], timedelta(0)) / DAY


class Network:
    """The edges that count, as sets of neighbours."""

    def __init__(self, parties: Sequence[Row], relationships: Sequence[Row]) -> None:
        ids = {p["party_id"] for p in parties}
        edges = {(r["from_party_id"], r["to_party_id"]) for r in relationships}
        edges = {(a, b) for a, b in edges if a != b and a in ids and b in ids}
        self.customers = {p: {b for a, b in edges if a == p} for p in ids}
        self.suppliers = {p: {a for a, b in edges if b == p} for p in ids}
        self.neighbours = {p: self.customers[p] | self.suppliers[p] for p in ids}
        self.weak = {p["party_id"] for p in parties if not p["kyc_verified"] and not is_filled(p["tax_id"])}
        self.rank = self.pagerank()

    def features(self, party: str) -> dict[str, Any]:
        distances = self.distances(party, limit=5)
        suppliers, customers = len(self.suppliers[party]), len(self.customers[party])
        neighbours = self.neighbours[party]
        beyond = [self.neighbours[n] - {party} for n in neighbours]
        shares = [len(others & self.weak) / len(others) for others in beyond if others]
        everywhere = self.distances(party, limit=len(self.neighbours))
        return {
            "direct_counterparty_count": len(neighbours),
            "network_depth_downstream": max(distances.values(), default=0),
            "network_size": len(distances),
            "supplier_count": suppliers,
            "customer_count": customers,
            "network_balance_ratio": min(suppliers, customers) / max(suppliers, customers)
            if neighbours
            else 0.5,
            "weak_exposure_1hop": len(neighbours & self.weak) / len(neighbours) if neighbours else 0,
            "weak_exposure_2hop": sum(shares) / len(shares) if shares else 0,
            "pagerank": self.rank.get(party, 0),
            "in_cycle": int(any(party in self.customers[other] for other in everywhere)),
            "network_is_estimate": False,
            "network_size_error": 0,
        }

    def distances(self, start: str, limit: int) -> dict[str, int]:
        """Every other party downstream within `limit` hops → hops."""
        found = {start: 0}
        frontier = [start]
        for hop in range(1, limit + 1):
            frontier = [b for a in frontier for b in self.customers[a] if b not in found]
            found |= dict.fromkeys(frontier, hop)
        del found[start]
        return found

    def pagerank(self) -> dict[str, float]:
        """By the book: teleport .15, follow a random customer .85, from a party without customers to anywhere."""
        nodes = [p for p, neighbours in self.neighbours.items() if neighbours]
        rank = dict.fromkeys(nodes, 1.0)
        for _ in range(300):
            loose = sum(rank[p] for p in nodes if not self.customers[p]) / max(len(nodes), 1)
            following: Counter[str] = Counter()
            for p in nodes:
                for customer in self.customers[p]:
                    following[customer] += rank[p] / len(self.customers[p])
            rank = {p: 0.15 + 0.85 * (following[p] + loose) for p in nodes}
        return rank
