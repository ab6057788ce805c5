"""A source of a load whose every moment a test decides: a table in the memory of the lake's own connection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import duckdb

from quayside.dataloader.destinations.destination import Destination, Fence
from quayside.dataloader.load import load_table
from quayside.dataloader.request import LoadRequest
from quayside.dataloader.result import LoadResult
from quayside.dataloader.sources.source import Column, Predicate
from quayside.foundation.errors import QuaysideError
from quayside.foundation.lake.sql import identifier
from quayside.foundation.settings import Settings

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


@dataclass
class MemoryTable:
    """`quayside.dataloader.sources.source.SourceTable` over a relation of DuckDB."""

    con: duckdb.DuckDBPyConnection
    of: str
    key: Sequence[str] = ("id",)
    one_stream: bool = False
    now: datetime = NOW
    local_now: datetime | None = None
    snapshot: bool = True
    estimated: int | None = None
    #: Every predicate it was read with.
    reads: list[tuple[Predicate, Sequence[str] | None]] = field(default_factory=list)

    @property
    def columns(self) -> list[Column]:
        described = self.con.execute(f"DESCRIBE SELECT * FROM {self.of}").fetchall()
        return [Column(row[0], row[1], row[1]) for row in described]

    @property
    def primary_key(self) -> Sequence[str]:
        return self.key

    def clock(self) -> datetime:
        return self.now

    def local_clock(self) -> datetime:
        return self.local_now or self.now.replace(tzinfo=None)

    def estimate(self) -> int | None:
        return self.estimated

    def count(self, where: Predicate = ()) -> int:
        return self._one(f"SELECT count(*) FROM {self.of}{self._where(where)}")[0]

    def bounds(self, column: str, where: Predicate = ()) -> tuple[Any, Any]:
        name = identifier(column)
        return self._one(f"SELECT min({name}), max({name}) FROM {self.of}{self._where(where)}")

    def relation(self, where: Predicate = (), columns: Sequence[str] | None = None) -> str:
        self.reads.append((where, columns))
        chosen = "*" if columns is None else ", ".join(map(identifier, columns))
        return f"(SELECT {chosen} FROM {self.of}{self._where(where)})"

    def explain(self, error: Exception) -> QuaysideError | None:
        return None

    def _one(self, sql: str) -> Any:
        return self.con.execute(sql).fetchone()

    def _where(self, where: Predicate) -> str:
        if not where:
            return ""
        parts = []
        for c in where:
            if c.operator in ("is null", "is not null"):
                parts.append(f"{identifier(c.column)} {c.operator}")
            else:
                value = f"'{c.value}'::TIMESTAMPTZ" if getattr(c.value, "tzinfo", None) else f"'{c.value}'"
                parts.append(f"{identifier(c.column)} {c.operator} {value}")
        return " WHERE " + " AND ".join(parts)


@dataclass
class Table:
    """A source table and the request that loads it. Every test has one of its own name."""

    settings: Settings
    con: duckdb.DuckDBPyConnection
    name: str
    request: LoadRequest
    source: MemoryTable

    @classmethod
    def new(
        cls, settings: Settings, con: duckdb.DuckDBPyConnection, name: str, ddl: str, **request: Any
    ) -> Table:
        """`ddl`: columns of the source table, or the SELECT that fills it."""
        made = f"AS {ddl}" if ddl.upper().startswith(("SELECT", "FROM", "VALUES")) else f"({ddl})"
        of = f"memory.main.{identifier('source_' + name)}"
        con.execute(f"CREATE TABLE {of} {made}")
        fields: dict[str, Any] = {
            "config_id": abs(hash(name)) % 2**31,
            "control_key": "00" * 32,
            "metadata_id": 1,
            "attempt": 1,
            "db_config_key": "memory",
            "db_type": "duckdb",
            "db_config_value": {},
            "db_kv_scope": "env",
            "source_catalog": None,
            "source_schema_name": None,
            "source_table_name": name,
            "query": None,
            "destination_catalog": "bronze",
            "destination_schema_name": "trade",
            "destination_table_name": name,
            "load_strategy": "full",
            **request,
        }
        return cls(settings, con, name, LoadRequest(**fields), MemoryTable(con, of))

    def load(
        self, destination: Destination | None = None, fence: Fence | None = None, **changes: Any
    ) -> LoadResult:
        """The next attempt; `changes` stay."""
        self.request = replace(self.request, attempt=self.request.attempt + 1, **changes)
        return load_table(
            self.settings,
            self.request,
            con=self.con,
            source=self.source,
            destination=destination,
            fence=fence,
        )

    def execute(self, sql: str, *values: Any) -> None:
        """Run SQL at the source, which it calls ``src``."""
        self.con.execute(sql.replace("src", self.source.of), list(values))

    @property
    def stored(self) -> str:
        return f'lake."bronze.trade".{identifier(self.request.destination_table_name)}'

    def rows(self, columns: str = "*", where: str = "true") -> list[tuple[Any, ...]]:
        """Rows at the destination, in order."""
        return self.con.execute(f"SELECT {columns} FROM {self.stored} WHERE {where} ORDER BY ALL").fetchall()

    def at_source(self, columns: str = "*") -> list[tuple[Any, ...]]:
        return self.con.execute(f"SELECT {columns} FROM {self.source.of} ORDER BY ALL").fetchall()
