"""The source: a table for every strategy, and writers that change them all the time, each in its strategy's terms.

All tables have one shape. What a strategy cannot see by its definition does not happen to its table: an append-only one
gets rows in the order of their time (equal times included) from one writer, a rolling one changes inside its window.
Everything else gets inserts, updates, rows that are committed long after the time they carry, and transactions that stay
open over several loads; deletes where the row asks for their reconciliation or the strategy sees them anyway.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import psycopg
from psycopg import sql

SCHEMA: Final = "shop"
COLUMNS: Final = ("id", "updated_at", "amount", "note", "day")
_TABLE: Final = "(id bigint PRIMARY KEY, updated_at timestamptz NOT NULL, amount numeric(15,2), note text, day date NOT NULL)"
#: Rows older than this many days never change.
WINDOW_DAYS: Final = 7

Change = Literal["insert", "update", "delete", "late", "append", "recent"]
_ALL: Final[tuple[Change, ...]] = ("insert", "update", "late")
CURSOR: Final = {
    "incremental_column": "updated_at",
    "incremental_type": "timestamp",
    "primary_key_cols": "id",
}
_HARD: Final = {"is_delete": True, "delete_mode": "hard"}
_SOFT: Final = {"is_delete": True, "delete_mode": "soft"}


@dataclass(frozen=True)
class Table:
    """A table of the source and how it is loaded. `options` are columns of ``control.table_control``."""

    name: str
    strategy: str
    changes: tuple[Change, ...]
    options: dict[str, Any] = field(default_factory=dict)
    catalog: str = "bronze"
    rows: int = 200


TABLES: Final[tuple[Table, ...]] = (
    Table("rates", "full", (*_ALL, "delete")),
    Table("orders", "incremental", (*_ALL, "delete"), CURSOR | _HARD),
    Table("parties", "incremental", (*_ALL, "delete"), CURSOR | _SOFT),
    Table("payments", "incremental", _ALL, CURSOR),
    Table("events", "append_only", ("append",), CURSOR),
    Table("clicks", "append_only", ("append",), CURSOR),
    Table(
        "prices",
        "rolling",
        ("recent", "delete"),
        {"rolling_column": "day", "rolling_days": WINDOW_DAYS, "primary_key_cols": "id"},
    ),
    Table("countries", "check_and_load", ("insert", "update"), CURSOR),
    Table("ledger", "chunked_backfill", _ALL, CURSOR, rows=1200),
    Table("postings", "chunked_backfill", _ALL, CURSOR, rows=1200),
    Table("customers", "scd2", (*_ALL, "delete"), {"primary_key_cols": "id"}),
    Table("shipments", "incremental", (*_ALL, "delete"), CURSOR | _HARD, catalog="delta"),
    Table("alerts", "append_only", ("append",), CURSOR, catalog="delta"),
)


def create(url: str, tables: Sequence[Table] = TABLES) -> None:
    """Make the tables with their first rows, some of them months old."""
    with psycopg.connect(url) as con:
        con.execute(f"CREATE SCHEMA {SCHEMA}")
        for table in tables:
            con.execute(f"CREATE TABLE {SCHEMA}.{table.name} {_TABLE}")  # type: ignore[arg-type]
            con.execute(
                f"INSERT INTO {SCHEMA}.{table.name} SELECT i, now() - (%s - i) * interval '2 hours', i * 1.25, "  # type: ignore[arg-type]
                "'first ' || i, current_date - ((%s - i) / 10)::int FROM generate_series(1, %s) AS i",
                [table.rows, table.rows, table.rows],
            )


def configure(con: psycopg.Connection[Any], tables: Sequence[Table], source: str, due: bool = True) -> None:
    """Rows of ``control.table_control`` for the tables, active and due now."""
    for table in tables:
        values = {
            "is_active": True,
            "db_config_key": source,
            "source_schema_name": SCHEMA,
            "source_table_name": table.name,
            "destination_catalog": table.catalog,
            "destination_schema_name": SCHEMA,
            "destination_table_name": table.name,
            "load_strategy": table.strategy,
            **table.options,
        }
        con.execute(
            sql.SQL("INSERT INTO control.table_control ({}, next_load_date_time) VALUES ({}, {})").format(
                sql.SQL(", ").join(map(sql.Identifier, values)),
                sql.SQL(", ").join(sql.Placeholder() * len(values)),
                sql.SQL("clock_timestamp()" if due else "NULL"),
            ),
            list(values.values()),
        )


class Writers:
    """Two threads that change the source until they are told to stop: many short transactions, and a few long ones.

    A writer whose server is killed loses its transaction and goes on when the server is back.
    """

    def __init__(
        self, url: Callable[[], str], seed: int, tables: Sequence[Table] = TABLES, pause: float = 0.08
    ) -> None:
        self._url = url
        self._tables = tables
        self._pause = pause
        self._stop = threading.Event()
        self.changes = 0
        self.problems: list[str] = []
        self._threads = [
            threading.Thread(target=self._work, args=(random.Random(f"{seed} {name}"), one), name=name)
            for name, one in (("short", self._short), ("long", self._long))
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Commit what is open and end: from here on the source does not change."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _work(
        self, rng: random.Random, one: Callable[[psycopg.Connection[Any], random.Random], None]
    ) -> None:
        while not self._stop.is_set():
            try:
                with psycopg.connect(self._url(), autocommit=True) as con:
                    while not self._stop.wait(self._pause):
                        one(con, rng)
            except (psycopg.OperationalError, psycopg.InterfaceError):
                self._stop.wait(0.1)  # the server was killed; the transaction with it
            except Exception as error:  # noqa: BLE001 - a writer that dies silently would make a test of nothing
                self.problems.append(f"a writer of the source failed: {error!r}")
                return

    def _short(self, con: psycopg.Connection[Any], rng: random.Random) -> None:
        table = rng.choice(self._tables)
        with con.transaction():
            for _ in range(rng.randint(1, 4)):
                change(con, table, rng.choice(table.changes), rng)
                self.changes += 1

    def _long(self, con: psycopg.Connection[Any], rng: random.Random) -> None:
        """One transaction over several tables and loads: what it wrote first is seen long after its time."""
        tables = [t for t in self._tables if "late" in t.changes]
        with con.transaction():
            for table in rng.sample(tables, min(3, len(tables))):
                # New rows only: a row held locked this long would stop the other writer.
                change(con, table, "insert", rng)
                self.changes += 1
                self._stop.wait(rng.uniform(0.3, 1.2))


def change(con: psycopg.Connection[Any], table: Table, kind: Change, rng: random.Random) -> None:
    """One change of one table."""
    name = f"{SCHEMA}.{table.name}"
    pick = f"(SELECT id FROM {name} WHERE day > current_date - {WINDOW_DAYS - 2} ORDER BY hashint8(id + %(salt)s) LIMIT 1)"
    statement = {
        # Rows of two open transactions must not meet: a wide space of random keys.
        "insert": f"INSERT INTO {name} VALUES (%(id)s, clock_timestamp(), %(amount)s, %(note)s, current_date)",
        # Committed now with a time hours ago, as by a transaction that took that long.
        "late": f"INSERT INTO {name} VALUES (%(id)s, clock_timestamp() - %(ago)s * interval '1 minute', %(amount)s, "
        "%(note)s, current_date)",
        # Whole seconds, so that many rows, of several transactions, have the same time.
        "append": f"INSERT INTO {name} SELECT %(id)s, greatest(max(updated_at), date_trunc('second', clock_timestamp())), "
        f"%(amount)s, %(note)s, current_date FROM {name}",
        "recent": f"INSERT INTO {name} VALUES (%(id)s, clock_timestamp(), %(amount)s, %(note)s, "
        "current_date - %(days)s::int) ON CONFLICT (id) DO NOTHING",
        "update": f"UPDATE {name} SET updated_at = clock_timestamp(), amount = %(amount)s, note = %(note)s WHERE id = {pick}",
        "delete": f"DELETE FROM {name} WHERE id = {pick}",
    }[kind]
    if kind == "recent" and rng.random() < 0.5:
        statement = f"UPDATE {name} SET updated_at = clock_timestamp(), amount = %(amount)s WHERE id = {pick}"
    con.execute(
        statement,  # type: ignore[arg-type]
        {
            "id": rng.randint(1_000_000, 2**52),
            "amount": rng.randint(-(10**7), 10**7) / 100,
            "note": rng.choice(["", "ü 'quoted'", "a\tb", "x" * rng.randint(1, 200)]),
            "ago": rng.randint(1, 300),
            "days": rng.randint(0, WINDOW_DAYS - 3),
            "salt": rng.randint(0, 2**31),
        },
    )
