"""Transactions as a graph: (Transaction)-[MOVED_ON]->(BankAccount), (Transaction)-[AT_MERCHANT]->(Merchant)."""

from __future__ import annotations

from typing import Final

from quayside.robosystems.adapters.protocol import AdapterError, Batch, GraphRows
from quayside.robosystems.graphs import GraphSchema, NodeTable, RelTable

SCHEMA: Final = GraphSchema(
    "plaid",
    (
        NodeTable(
            "BankAccount", {"id": "STRING", "name": "STRING", "kind": "STRING", "currency": "STRING"}, "id"
        ),
        NodeTable(
            "Transaction",
            {
                "id": "STRING",
                "happened_on": "DATE",
                "amount_cents": "INT64",  # positive: money leaves the account
                "currency": "STRING",
                "pending": "BOOL",
            },
            "id",
        ),
        NodeTable("Merchant", {"name": "STRING"}, "name"),
    ),
    (
        RelTable("MOVED_ON", "Transaction", "BankAccount"),
        RelTable("AT_MERCHANT", "Transaction", "Merchant"),
    ),
)


class PlaidProcessor:
    """Added and modified transactions are merged, removed ones are deleted."""

    schema = SCHEMA

    def process(self, batch: Batch) -> GraphRows:
        """Nodes and relationships of one batch."""
        import pyarrow as pa
        import pyarrow.compute as pc

        rows = batch.rows
        if batch.kind == "accounts":
            return GraphRows(nodes={"BankAccount": rows})
        if batch.kind == "removed":
            return GraphRows(removed={"Transaction": rows["id"].to_pylist()})
        try:
            happened_on = pc.cast(rows["happened_on"], pa.date32())
        except pa.ArrowInvalid as error:
            raise AdapterError(f"A transaction has a date that is none: {error}") from None
        named = rows.filter(pa.array([name is not None for name in rows["merchant"].to_pylist()], pa.bool_()))
        transactions = rows.select(["id", "amount_cents", "currency", "pending"])
        return GraphRows(
            # Made anew: a transaction that was modified may have another merchant.
            removed={"Transaction": rows["id"].to_pylist()},
            nodes={
                "Transaction": transactions.append_column("happened_on", happened_on),
                "Merchant": pa.table({"name": named["merchant"]}),
            },
            relationships={
                "MOVED_ON": pa.table({"from": rows["id"], "to": rows["account_id"]}),
                "AT_MERCHANT": pa.table({"from": named["id"], "to": named["merchant"]}),
            },
        )
