"""Load a source into a graph: extract, process, merge. Rows and cursor are published together, so a load that was killed goes
on where the graph says, and loses or repeats nothing."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

from quayside.foundation.errors import ConflictError
from quayside.robosystems.adapters.protocol import Batch, Client, Processor

if TYPE_CHECKING:
    from quayside.robosystems.graphs import GraphStore

_log = logging.getLogger(__name__)

#: Batches that are held in memory and published at once. The graph is copied once for each such group.
GROUP: Final = 50


@dataclass(frozen=True)
class Loaded:
    """What a load did: rows as they came from the source, nodes and relationships written, by table."""

    source: str
    rows: int
    nodes: dict[str, int]
    relationships: dict[str, int]
    cursor: str | None


def load(
    graphs: GraphStore, graph_id: str, client: Client, processor: Processor, *, group: int = GROUP
) -> Loaded:
    """Bring a graph up to date with a source. Another process may read the graph meanwhile; nobody waits for the source.

    Raises:
        NotFoundError: there is no such graph.
        ConflictError: another process loaded from the same source into this graph at the same time.
        AdapterError: the source sent something that cannot be used; what was published before stays.
    """
    with graphs.reader(graph_id) as session:
        cursor = session.cursor(client.name) or None
    client.connect()
    rows, nodes, relationships = 0, Counter[str](), Counter[str]()
    for batches in _groups(client.extract(cursor), group):
        made = [(batch, processor.process(batch)) for batch in batches]
        with graphs.session(graph_id) as session:
            if (session.cursor(client.name) or None) != cursor:
                raise ConflictError(
                    f"Another process loaded {client.name} into graph {graph_id} at the same time: run it again."
                )
            session.install(processor.schema)
            for batch, each in made:
                for table, keys in each.removed.items():
                    session.delete_nodes(processor.schema.node(table), keys)
                for table, keys in each.replaced.items():
                    session.delete_targets(processor.schema.relationship(table), processor.schema, keys)
                for table, found in each.nodes.items():
                    nodes[table] += session.merge_nodes(processor.schema.node(table), found)
                for table, found in each.relationships.items():
                    rel = processor.schema.relationship(table)
                    relationships[table] += session.merge_relationships(rel, processor.schema, found)
                rows += batch.rows.num_rows
            cursor = batches[-1].cursor or None
            session.set_cursor(client.name, cursor or "")
        _log.info("%s: %d rows are in graph %s.", client.name, rows, graph_id)
    return Loaded(client.name, rows, dict(nodes), dict(relationships), cursor)


def _groups(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    source = iter(batches)
    while part := list(islice(source, size)):
        yield part
