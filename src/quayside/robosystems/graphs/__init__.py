"""Graph databases (LadybugDB) in a folder: made, read, written, measured, backed up. Knows no customer and no billing."""

from quayside.robosystems.graphs.errors import GraphBusyError, GraphCorruptError, GraphQueryError
from quayside.robosystems.graphs.schema import SCHEMAS, GraphSchema, NodeTable, RelTable
from quayside.robosystems.graphs.session import GraphSession
from quayside.robosystems.graphs.store import GraphStore

__all__ = [
    "SCHEMAS",
    "GraphBusyError",
    "GraphCorruptError",
    "GraphQueryError",
    "GraphSchema",
    "GraphSession",
    "GraphStore",
    "NodeTable",
    "RelTable",
]
