"""How much each graph stores: its database, its subgraphs' databases, its files and its staged tables.

Implements the port `quayside.robosystems.usage.sizes.SizeReader`. What does not answer is a problem in one sentence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from quayside.foundation.errors import QuaysideError, sentence
from quayside.foundation.secrets import redact
from quayside.robosystems.storage import FILES_PREFIX, TABLES_PREFIX
from quayside.robosystems.usage.sizes import Sizes

if TYPE_CHECKING:
    import psycopg

    from quayside.foundation.objects import ObjectStore
    from quayside.robosystems.graphs.store import GraphStore


class StoredSizes:
    """Sizes as they are now, in a graph store and an object store; subgraphs by the table of graphs."""

    def __init__(self, con: psycopg.Connection[Any], graphs: GraphStore, objects: ObjectStore) -> None:
        self._connection, self._graphs, self._objects = con, graphs, objects

    def read(self, graph_ids: Sequence[str]) -> Iterator[Sizes]:
        """Sizes of these graphs, one by one."""
        children = dict(
            self._connection.execute(
                "SELECT parent_graph_id, array_agg(graph_id) FROM robosystems.graphs"
                " WHERE parent_graph_id = ANY(%s) AND deleted_at IS NULL GROUP BY 1",
                [list(graph_ids)],
            ).fetchall()
        )
        try:
            files, tables = (self._stored(prefix, graph_ids) for prefix in (FILES_PREFIX, TABLES_PREFIX))
        except QuaysideError as error:
            problem = redact(sentence(error))
            yield from (Sizes(graph_id, problem=problem) for graph_id in graph_ids)
            return
        for graph_id in graph_ids:
            try:
                yield Sizes(
                    graph_id,
                    files_bytes=files[graph_id],
                    tables_bytes=tables[graph_id],
                    graph_bytes=self._graphs.size_bytes(graph_id),
                    subgraphs_bytes=sum(map(self._graphs.size_bytes, children.get(graph_id, []))),
                )
            except QuaysideError as error:
                yield Sizes(graph_id, problem=redact(sentence(error)))

    def _stored(self, prefix: str, graph_ids: Sequence[str]) -> Counter[str]:
        """Bytes below ``<prefix>/<graph_id>/``: one listing of all, unless only a few are asked for."""
        places = [f"{prefix}/{graph_id}" for graph_id in graph_ids] if len(graph_ids) <= 20 else [prefix]
        found: Counter[str] = Counter()
        for place in places:
            for stored in self._objects.list(place):
                parts = stored.key.split("/")
                if len(parts) > 2:
                    found[parts[1]] += stored.size
        return found
