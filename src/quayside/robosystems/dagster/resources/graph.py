"""``GraphResource``: the folder of graph databases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from quayside.foundation.settings import load_settings

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from quayside.robosystems.graphs import GraphStore


class GraphResource(dg.ConfigurableResource):
    """LadybugDB databases by graph id: many readers, one writer per database at a time."""

    folder: str = Field(default="", description="Left out, QUAYSIDE_GRAPHS_FOLDER decides.")

    def store(self) -> GraphStore:
        """The plain store, for domain code."""
        from quayside.robosystems.graphs import GraphStore

        return GraphStore(self.folder or load_settings().graphs_path)

    def query(self, graph_id: str, query: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
        """The rows of a Cypher query that writes nothing; see `GraphStore.query`."""
        return self.store().query(graph_id, query, parameters)

    def write(self, graph_id: str, query: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
        """Run one Cypher statement that writes; see `GraphStore.write`."""
        return self.store().write(graph_id, query, parameters)

    def size_bytes(self, graph_id: str) -> int:
        """Size of one database on disk."""
        return self.store().size_bytes(graph_id)

    def copy_from_parquet(self, graph_id: str, table: str, path: Path) -> int:
        """Append the rows of a Parquet file to a node or relationship table; how many."""
        with self.store().session(graph_id) as session:
            return session.copy_from_parquet(table, path)
