"""One open graph database: statements, and rows in bulk.

A session that writes works on a private copy of the database (see `store`), so it needs no transaction: it is published
as a whole or not at all. After the first statement that fails nothing more is taken: LadybugDB keeps a damaged index in
memory when a COPY fails half way, so the copy is good for nothing but the bin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quayside.foundation.errors import InputError, NotFoundError, QuaysideError, sentence
from quayside.robosystems.graphs import schema as schemas
from quayside.robosystems.graphs.errors import GraphQueryError
from quayside.robosystems.graphs.names import quoted

if TYPE_CHECKING:
    import ladybug
    import pyarrow as pa


class GraphSession:
    """Statements on one database. Made by `GraphStore.session` and `GraphStore.reader`."""

    def __init__(self, graph_id: str, connection: ladybug.Connection) -> None:
        self.graph_id = graph_id
        self._connection = connection
        self._failed = False

    def query(
        self, query: str, parameters: Mapping[str, Any] | None = None, *, timeout_seconds: float | None = None
    ) -> pa.Table:
        """Run one Cypher statement with ``$name`` parameters; its rows.

        Raises:
            GraphQueryError: the database refused it, or it took longer than `timeout_seconds`.
        """
        return self._run(query, parameters, timeout_seconds)

    def write(self, query: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
        """As `query`, said of a statement that changes something."""
        return self._run(query, parameters, None)

    def install(self, schema: schemas.GraphSchema) -> list[str]:
        """Bring the tables to a schema; see `quayside.robosystems.graphs.schema.install`."""
        try:
            return schemas.install(self, schema)
        except QuaysideError:
            self._failed = True
            raise

    def copy_from_parquet(self, table: str, path: Path) -> int:
        """Append the rows of a Parquet file to a table; how many.

        Columns go by name. A relationship table takes ``from`` and ``to`` (keys of its ends) and its own columns.

        Raises:
            InputError: there is no such file, or it is no Parquet.
            GraphQueryError: a column is unknown, a key is there already, an end of a relationship is not.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            file = pq.ParquetFile(path)
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{path} cannot be read as Parquet: {sentence(error)}") from None
        with file:
            # Through Arrow: LadybugDB's own reader knows no decimals.
            return sum(
                self.copy(table, pa.Table.from_batches([batch])) for batch in file.iter_batches(1_000_000)
            )

    def copy(self, table: str, rows: pa.Table) -> int:
        """Append rows to a table, as `copy_from_parquet` does; how many."""
        if not rows.num_rows:
            return 0
        columns = self._columns(table)
        ends = ["from", "to"] if self._is_relationship(table) else []
        if missing := [name for name in ends if name not in rows.column_names]:
            raise self._refused(f"rows for {table} have no column {missing[0]!r}.")
        own = [name for name in rows.column_names if name not in ends]
        if unknown := [name for name in own if name not in columns]:
            raise self._refused(f"{table} has no column {unknown[0]!r}: it has {', '.join(columns)}.")
        target = f"{quoted(table)}({', '.join(map(quoted, own))})" if own else quoted(table)
        wanted = ", ".join(map(quoted, [*ends, *own]))
        self._run(
            f"COPY {target} FROM (LOAD FROM $rows RETURN {wanted})",
            {"rows": rows.select([*ends, *own])},
            None,
        )
        return rows.num_rows

    def merge_nodes(self, table: schemas.NodeTable, rows: pa.Table) -> int:
        """Insert nodes, or change those whose key is there; how many rows. Of several with one key the last counts."""
        if not rows.num_rows:
            return 0
        rows = _last_of_each(rows, [table.key])
        others = [name for name in rows.column_names if name != table.key]
        bound = ", ".join(f"{quoted(name)} AS c{i}" for i, name in enumerate([table.key, *others]))
        change = ", ".join(f"n.{quoted(name)} = c{i}" for i, name in enumerate(others, 1))
        self._run(
            f"LOAD FROM $rows WITH {bound} MERGE (n:{quoted(table.name)} {{{quoted(table.key)}: c0}})"
            + (f" SET {change}" if change else ""),
            {"rows": rows},
            None,
        )
        return rows.num_rows

    def merge_relationships(
        self, table: schemas.RelTable, schema: schemas.GraphSchema, rows: pa.Table
    ) -> int:
        """Insert relationships, or change those between the same two nodes; how many rows.

        `rows` have ``from`` and ``to``, the keys of two nodes that are there, and columns of the table.

        Raises:
            GraphQueryError: a node is not there.
        """
        import pyarrow as pa

        if not rows.num_rows:
            return 0
        rows = _last_of_each(rows, ["from", "to"])
        own = [name for name in rows.column_names if name not in ("from", "to")]
        keys = [quoted(schema.node(end).key) for end in (table.source, table.target)]
        bound = ", ".join(f"{quoted(name)} AS c{i}" for i, name in enumerate(["from", "to", *own]))
        change = ", ".join(f"r.{quoted(name)} = c{i}" for i, name in enumerate(own, 2))
        # MERGE on two matched ends joins every node with every other in LadybugDB 0.22. Hence in two steps.
        known = self._run(
            f"LOAD FROM $rows WITH {bound} "
            f"MATCH (a:{quoted(table.source)})-[r:{quoted(table.name)}]->(b:{quoted(table.target)}) "
            f"WHERE a.{keys[0]} = c0 AND b.{keys[1]} = c1 {'SET ' + change if change else ''} RETURN c0, c1",
            {"rows": rows},
            None,
        )
        pairs = set(zip(known.column(0).to_pylist(), known.column(1).to_pylist(), strict=True))
        ends = zip(rows.column("from").to_pylist(), rows.column("to").to_pylist(), strict=True)
        new = rows.filter(pa.array([pair not in pairs for pair in ends], pa.bool_()))
        self.copy(table.name, new)
        return rows.num_rows

    def delete_nodes(self, table: schemas.NodeTable, keys: Sequence[Any]) -> None:
        """Delete nodes by their keys, with their relationships. Keys that are not there are no error."""
        if keys:
            self._run(
                f"UNWIND $keys AS k MATCH (n:{quoted(table.name)} {{{quoted(table.key)}: k}}) DETACH DELETE n",
                {"keys": list(keys)},
                None,
            )

    def delete_targets(
        self, table: schemas.RelTable, schema: schemas.GraphSchema, keys: Sequence[Any]
    ) -> None:
        """Delete the nodes that relationships of a table lead to from nodes with these keys."""
        if keys:
            source = f"a:{quoted(table.source)} {{{quoted(schema.node(table.source).key)}: k}}"
            self._run(
                f"UNWIND $keys AS k MATCH ({source})-[:{quoted(table.name)}]->(b:{quoted(table.target)}) DETACH DELETE b",
                {"keys": list(keys)},
                None,
            )

    def cursor(self, name: str) -> str | None:
        """How far something came that loads this graph; None before the first time."""
        found = self.query("CALL show_tables() RETURN name")
        if schemas.CURSORS not in found.column("name").to_pylist():
            return None
        rows = self.query(
            f"MATCH (c:{schemas.CURSORS} {{name: $name}}) RETURN c.value AS value", {"name": name}
        )
        return rows.column("value")[0].as_py() if rows.num_rows else None

    def set_cursor(self, name: str, value: str) -> None:
        """Keep how far it came: published with the rows of this session, or not at all."""
        self.write(
            f"MERGE (c:{schemas.CURSORS} {{name: $name}}) SET c.value = $value, c.changed_at = $now",
            {"name": name, "value": value, "now": datetime.now(UTC).replace(tzinfo=None)},
        )

    def counts(self) -> dict[str, int]:
        """Rows of every table but the one of cursors."""
        tables = self.query("CALL show_tables() RETURN name, type").to_pylist()
        return {
            t["name"]: self.query(f"MATCH {_pattern(t)} RETURN count(*) AS rows").column("rows")[0].as_py()
            for t in sorted(tables, key=lambda t: t["name"])
            if t["name"] != schemas.CURSORS
        }

    def _run(
        self, query: str, parameters: Mapping[str, Any] | None, timeout_seconds: float | None
    ) -> pa.Table:
        import pyarrow as pa

        if self._failed:
            raise GraphQueryError(
                f"Graph {self.graph_id}: a statement of this session failed before; open a new session."
            )
        self._connection.set_query_timeout(
            0 if timeout_seconds is None else max(1, round(timeout_seconds * 1000))
        )
        try:
            result = self._connection.execute(query, dict(parameters or {}))
            # Of several statements in one text the last one's rows are given.
            last = result[-1] if isinstance(result, list) else result
            return last.get_as_arrow(0) if last.get_num_tuples() else _empty(last)
        except (RuntimeError, TypeError, ValueError, pa.ArrowException) as error:
            raise self._refused(sentence(error)) from None

    def _refused(self, why: str) -> GraphQueryError:
        self._failed = True
        return GraphQueryError(f"Graph {self.graph_id} refused a statement: {why}")

    def _columns(self, table: str) -> list[str]:
        if table not in self._tables():
            self._failed = True
            raise NotFoundError(f"Graph {self.graph_id} has no table {table!r}: install its schema first.")
        return self.query(f"CALL table_info({schemas.text(table)}) RETURN name").column("name").to_pylist()

    def _is_relationship(self, table: str) -> bool:
        return self._tables()[table] == "REL"

    def _tables(self) -> dict[str, str]:
        return {r["name"]: r["type"] for r in self.query("CALL show_tables() RETURN name, type").to_pylist()}


def _empty(result: Any) -> pa.Table:
    import pyarrow as pa

    return pa.table({name: pa.nulls(0) for name in result.get_column_names()})


def _pattern(table: Mapping[str, Any]) -> str:
    name = quoted(table["name"])
    return f"(n:{name})" if table["type"] == "NODE" else f"()-[r:{name}]->()"


def _last_of_each(rows: pa.Table, keys: list[str]) -> pa.Table:
    """Rows without those whose key comes again later; raises: InputError: a key is missing or null."""
    import pyarrow as pa

    if missing := [key for key in keys if key not in rows.column_names]:
        raise InputError(
            f"Rows for a graph have no column {missing[0]!r}: they have {', '.join(rows.column_names)}."
        )
    if nulls := [key for key in keys if rows.column(key).null_count]:
        raise InputError(f"Rows for a graph have no value in {nulls[0]!r}, which says what they are about.")
    values = list(zip(*(rows.column(key).to_pylist() for key in keys), strict=True))
    last = {value: index for index, value in enumerate(values)}
    if len(last) == len(values):
        return rows
    return rows.take(pa.array(sorted(last.values())))
