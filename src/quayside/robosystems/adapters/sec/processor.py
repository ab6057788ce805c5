"""Company facts as a graph: (Company)-[FILED]->(Filing)-[REPORTS]->(Fact)-[OF_CONCEPT]->(Concept)."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

from quayside.robosystems.adapters.protocol import AdapterError, Batch, GraphRows
from quayside.robosystems.graphs import GraphSchema, NodeTable, RelTable

if TYPE_CHECKING:
    import pyarrow as pa

# Facts are DOUBLE: they are statistics, and LadybugDB adds up no DECIMAL.
SCHEMA: Final = GraphSchema(
    "sec",
    (
        NodeTable("Company", {"cik": "STRING", "name": "STRING"}, "cik"),
        NodeTable(
            "Filing",
            {
                "accession": "STRING",
                "form": "STRING",
                "filed": "DATE",
                "fiscal_year": "STRING",
                "fiscal_period": "STRING",
            },
            "accession",
        ),
        NodeTable(
            "Concept", {"id": "STRING", "taxonomy": "STRING", "name": "STRING", "label": "STRING"}, "id"
        ),
        NodeTable(
            "Fact",
            {
                "id": "STRING",
                "value": "DOUBLE",
                "unit": "STRING",
                "period_start": "DATE",
                "period_end": "DATE",
            },
            "id",
        ),
    ),
    (
        RelTable("FILED", "Company", "Filing"),
        RelTable("REPORTS", "Filing", "Fact"),
        RelTable("OF_CONCEPT", "Fact", "Concept"),
    ),
)


class SecProcessor:
    """Facts with the same company, concept, unit, period and filing are one fact."""

    schema = SCHEMA

    def process(self, batch: Batch) -> GraphRows:
        """Nodes and relationships of the facts of one company."""
        table = _table(batch.rows)

        def of(**columns: str) -> pa.Table:
            return table.select(list(columns.values())).rename_columns(list(columns))

        return GraphRows(
            nodes={
                "Company": of(cik="cik", name="company"),
                "Filing": of(
                    accession="accession",
                    form="form",
                    filed="filed",
                    fiscal_year="fiscal_year",
                    fiscal_period="fiscal_period",
                ),
                "Concept": of(id="concept_id", taxonomy="taxonomy", name="concept", label="label"),
                "Fact": of(
                    id="fact_id",
                    value="value",
                    unit="unit",
                    period_start="period_start",
                    period_end="period_end",
                ),
            },
            relationships={
                "FILED": of(**{"from": "cik", "to": "accession"}),
                "REPORTS": of(**{"from": "accession", "to": "fact_id"}),
                "OF_CONCEPT": of(**{"from": "fact_id", "to": "concept_id"}),
            },
        )


def _table(rows: pa.Table) -> pa.Table:
    """The facts with their own ids and their types. Raises: AdapterError: a date or number is none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    named = (rows["taxonomy"].to_pylist(), rows["concept"].to_pylist())
    concept_ids = [f"{taxonomy}:{concept}" for taxonomy, concept in zip(*named, strict=True)]
    try:
        return pa.table(
            {
                "cik": rows["cik"],
                "company": rows["company"],
                "accession": rows["accession"],
                "form": rows["form"],
                "filed": pc.cast(rows["filed"], pa.date32()),
                "fiscal_year": rows["fiscal_year"],
                "fiscal_period": rows["fiscal_period"],
                "taxonomy": rows["taxonomy"],
                "concept": rows["concept"],
                "label": rows["label"],
                "unit": rows["unit"],
                "period_start": pc.cast(rows["period_start"], pa.date32()),
                "period_end": pc.cast(rows["period_end"], pa.date32()),
                "value": pc.cast(rows["value"], pa.float64()),
                "concept_id": pa.array(concept_ids, pa.string()),
                "fact_id": pa.array([_fact_id(row) for row in rows.to_pylist()], pa.string()),
            }
        )
    except pa.ArrowInvalid as error:
        raise AdapterError(f"Facts of {rows['cik'][0]} hold a date or number that is none: {error}") from None


def _fact_id(row: dict[str, Any]) -> str:
    parts = (
        row[n] or ""
        for n in ("cik", "taxonomy", "concept", "unit", "period_start", "period_end", "accession")
    )
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
