"""A ledger as a graph: (Entry)-[HAS_LINE]->(Line)-[ON_ACCOUNT]->(Account). Amounts are whole cents."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from quayside.robosystems.adapters.protocol import AdapterError, Batch, GraphRows
from quayside.robosystems.graphs import GraphSchema, NodeTable, RelTable

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA: Final = GraphSchema(
    "quickbooks",
    (
        NodeTable(
            "Account",
            {
                "id": "STRING",
                "name": "STRING",
                "kind": "STRING",
                "classification": "STRING",
                "currency": "STRING",
            },
            "id",
        ),
        NodeTable("Entry", {"id": "STRING", "posted_on": "DATE", "number": "STRING", "memo": "STRING"}, "id"),
        NodeTable(
            "Line", {"id": "STRING", "description": "STRING", "side": "STRING", "amount_cents": "INT64"}, "id"
        ),
    ),
    (RelTable("HAS_LINE", "Entry", "Line"), RelTable("ON_ACCOUNT", "Line", "Account")),
)


class QuickBooksProcessor:
    """Accounts as they are; entries only when their debits equal their credits."""

    schema = SCHEMA

    def process(self, batch: Batch) -> GraphRows:
        """Nodes and relationships of accounts, or of the lines of entries."""
        return GraphRows(nodes={"Account": batch.rows}) if batch.kind == "Account" else _entries(batch.rows)


def _entries(rows: pa.Table) -> GraphRows:
    import pyarrow as pa
    import pyarrow.compute as pc

    balances: dict[str, int] = defaultdict(int)
    signs = {"Debit": 1, "Credit": -1}
    for entry, side, amount in zip(
        *(rows[name].to_pylist() for name in ("entry_id", "side", "amount_cents")), strict=True
    ):
        if side not in signs:
            raise AdapterError(
                f"Journal entry {entry} has a line that is {side!r}, neither Debit nor Credit."
            )
        balances[entry] += signs[side] * amount
    if unbalanced := [entry for entry, balance in balances.items() if balance]:
        raise AdapterError(
            f"Journal entry {unbalanced[0]} is out of balance by {balances[unbalanced[0]]} cents: correct it in the source."
        )
    try:
        posted_on = pc.cast(rows["posted_on"], pa.date32())
    except pa.ArrowInvalid as error:
        raise AdapterError(f"A journal entry has a date that is none: {error}") from None
    parts = (rows["entry_id"].to_pylist(), rows["line_id"].to_pylist())
    line_ids = pa.array([f"{entry}:{line}" for entry, line in zip(*parts, strict=True)], pa.string())
    return GraphRows(
        nodes={
            "Entry": pa.table(
                {
                    "id": rows["entry_id"],
                    "posted_on": posted_on,
                    "number": rows["number"],
                    "memo": rows["memo"],
                }
            ),
            "Line": pa.table(
                {
                    "id": line_ids,
                    "description": rows["description"],
                    "side": rows["side"],
                    "amount_cents": rows["amount_cents"],
                }
            ),
        },
        relationships={
            "HAS_LINE": pa.table({"from": rows["entry_id"], "to": line_ids}),
            "ON_ACCOUNT": pa.table({"from": line_ids, "to": rows["account_id"]}),
        },
        replaced={"HAS_LINE": sorted(balances)},  # an entry that was changed may have lost a line
    )
