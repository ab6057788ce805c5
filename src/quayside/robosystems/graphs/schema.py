"""What tables a graph has, as data, and how they are installed.

Installing is idempotent: what is there stays, missing tables and columns are added, and a table or column that is there
with another meaning is refused. Belongs here: no rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from quayside.foundation.errors import NotFoundError, SchemaError, UsageError
from quayside.robosystems.graphs.names import quoted

if TYPE_CHECKING:
    from quayside.robosystems.graphs.session import GraphSession

#: Where a graph keeps how far each adapter came; part of every schema.
CURSORS: Final = "QuaysideCursor"


@dataclass(frozen=True)
class NodeTable:
    """Nodes of one label. `columns`: name → LadybugDB type ("STRING", "INT64", "DATE", "DECIMAL(18, 2)" …); `key` is one."""

    name: str
    columns: Mapping[str, str]
    key: str

    def __post_init__(self) -> None:
        if self.key not in self.columns:
            raise UsageError(f"Node table {self.name}: its key {self.key!r} is not among its columns.")

    def ddl(self) -> str:
        """The statement that makes it."""
        columns = ", ".join(f"{quoted(name)} {kind}" for name, kind in self.columns.items())
        return (
            f"CREATE NODE TABLE IF NOT EXISTS {quoted(self.name)}({columns}, PRIMARY KEY({quoted(self.key)}))"
        )


@dataclass(frozen=True)
class RelTable:
    """Relationships of one kind between two node tables, at most one between the same two nodes."""

    name: str
    source: str
    target: str
    columns: Mapping[str, str] = field(default_factory=dict[str, str])

    def ddl(self) -> str:
        """The statement that makes it."""
        columns = "".join(f", {quoted(name)} {kind}" for name, kind in self.columns.items())
        ends = f"FROM {quoted(self.source)} TO {quoted(self.target)}"
        return f"CREATE REL TABLE IF NOT EXISTS {quoted(self.name)}({ends}{columns})"


@dataclass(frozen=True)
class GraphSchema:
    """All tables of a kind of graph."""

    name: str
    nodes: tuple[NodeTable, ...] = ()
    relationships: tuple[RelTable, ...] = ()

    def __post_init__(self) -> None:
        names = [table.name for table in (*self.nodes, *self.relationships)]
        if len(set(names)) < len(names):
            raise UsageError(f"Graph schema {self.name} names a table twice.")
        known = {node.name for node in self.nodes}
        for rel in self.relationships:
            if missing := {rel.source, rel.target} - known:
                raise UsageError(
                    f"Graph schema {self.name}: {rel.name} joins {missing.pop()}, which it has not."
                )

    def node(self, name: str) -> NodeTable:
        """A node table by name; raises: NotFoundError."""
        return _by_name(self.nodes, name, self.name)

    def relationship(self, name: str) -> RelTable:
        """A relationship table by name; raises: NotFoundError."""
        return _by_name(self.relationships, name, self.name)


def _by_name(tables: tuple, name: str, schema: str):
    for table in tables:
        if table.name == name:
            return table
    raise NotFoundError(
        f"Graph schema {schema} has no table {name!r}: it has {', '.join(t.name for t in tables)}."
    )


_CURSOR_TABLE: Final = NodeTable(
    CURSORS, {"name": "STRING", "value": "STRING", "changed_at": "TIMESTAMP"}, "name"
)

#: The schemas that a subscription can ask for. Adapters add their own tables when they first load.
SCHEMAS: Final[Mapping[str, GraphSchema]] = {
    "generic": GraphSchema("generic"),
    "entity": GraphSchema(
        "entity",
        (
            NodeTable(
                "Entity",
                {"identifier": "STRING", "identifier_type": "STRING", "name": "STRING"},
                key="identifier",
            ),
        ),
    ),
}


def install(session: GraphSession, schema: GraphSchema) -> list[str]:
    """Bring a graph's tables to a schema; names of the tables it made or added columns to.

    Raises:
        SchemaError: a table or column exists with another key, type, or ends.
    """
    changed: list[str] = []
    existing = {
        row["name"]: row["type"] for row in session.query("CALL show_tables() RETURN name, type").to_pylist()
    }
    for table in (_CURSOR_TABLE, *schema.nodes, *schema.relationships):
        kind = "NODE" if isinstance(table, NodeTable) else "REL"
        if table.name not in existing:
            session.write(table.ddl())
            changed.append(table.name)
            continue
        if existing[table.name] != kind:
            raise SchemaError(
                f"Graph table {table.name} is a {existing[table.name].lower()} table: give it another name."
            )
        if _extend(session, table):
            changed.append(table.name)
    return changed


def _extend(session: GraphSession, table: NodeTable | RelTable) -> bool:
    """Hold an existing table to what is wanted, and add the columns it lacks."""
    found = {r["name"]: r for r in session.query(f"CALL table_info({text(table.name)}) RETURN *").to_pylist()}
    if isinstance(table, NodeTable):
        keys = [name for name, row in found.items() if row["primary key"]]
        if keys != [table.key]:
            raise SchemaError(f"Graph table {table.name} has the key {', '.join(keys)}, not {table.key}.")
    else:
        rows = session.query(f"CALL show_connection({text(table.name)}) RETURN *").to_pylist()
        ends = [(r["source table name"], r["destination table name"]) for r in rows]
        if ends != [(table.source, table.target)]:
            raise SchemaError(f"Graph table {table.name} joins {ends}, not {table.source} to {table.target}.")
    added = False
    for name, kind in table.columns.items():
        if name not in found:
            session.write(f"ALTER TABLE {quoted(table.name)} ADD {quoted(name)} {kind}")
            added = True
        elif _plain(found[name]["type"]) != _plain(kind):
            raise SchemaError(
                f"Graph column {table.name}.{name} is {found[name]['type']}, not {kind}: give it another name."
            )
    return added


def _plain(kind: str) -> str:
    return kind.upper().replace(" ", "")


def text(name: str) -> str:
    """A string literal for a Cypher statement that takes no parameters."""
    return "'" + name.replace("\\", "\\\\").replace("'", "\\'") + "'"
