"""Judging the rows of a batch: which are used, which go to quarantine and why, and what is worth a note.

Per table one pass counts what is wrong and, only when something is, a second one collects the rows. What is found
stays in temporary tables of the connection: ``bad_<table>`` (position, reason, detail; reason NULL for the further copies
of a row that stands in the file more than once) and ``ids_<table>`` (ids that references may point to).
"""

# ruff: noqa: S608 - table and column names are constants of the contract; values are bound or quoted by `literal`

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import duckdb
import numpy as np

from quayside.foundation.lake.sql import literal
from quayside.foundation.statements import one_row
from quayside.kycc.ingest.query import TableQuery
from quayside.kycc.tables import SCHEMA

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Tables whose rows others refer to.
REFERRED: Final = frozenset({"parties", "accounts"})


@dataclass
class Verdict:
    """What became of the rows of one table. ``read = kept + quarantined + folded``."""

    read: int
    quarantined: int
    folded: int
    reasons: dict[str, int]
    notes: list[str]

    @property
    def kept(self) -> int:
        return self.read - self.quarantined - self.folded

    @property
    def clean(self) -> bool:
        """Whether every row is used."""
        return self.read == self.kept


def validate(con: duckdb.DuckDBPyConnection, query: TableQuery, *, with_stored: bool) -> Verdict:
    """Judge one table; the tables it refers to have been judged before.

    Args:
        with_stored: let references also point to rows that the lake has of this batch.
    """
    table = query.contract.name
    con.execute(f"CREATE OR REPLACE TEMP TABLE bad_{table} (position BIGINT, reason VARCHAR, detail VARCHAR)")
    checks, notes = query.checks, query.notes
    wrong = " OR ".join(f"({check.when})" for check in checks)
    read, (bad, *noted), repeated = _survey(con, query, [wrong, *(note.when for note in notes)])
    if len(repeated):
        con.register("repeated_hashes", {"h": repeated})
        _judge_duplicates(con, query)
        con.unregister("repeated_hashes")
    if bad:
        # Further copies of a row are judged with the first one.
        reasons = ", ".join(
            f"CASE WHEN {c.when} THEN {{'reason': {literal(c.reason)}, 'detail': {c.detail}}} END"
            for c in checks
        )
        con.execute(f"""
            INSERT INTO bad_{table}
            SELECT position, problem.reason, problem.detail
            FROM (SELECT position, unnest(list_filter([{reasons}], lambda x: x IS NOT NULL)) AS problem
                  FROM ({query.judged()}) WHERE {wrong})
            WHERE position NOT IN (SELECT position FROM bad_{table} WHERE reason IS NULL)
        """)
    if table in REFERRED:
        _collect_ids(con, query, with_stored)
    sentences = [
        f"{table.capitalize()}: {note.what} ({rows(n)})." for note, n in zip(notes, noted, strict=True) if n
    ]
    folded, quarantined = one_row(
        con,
        f"SELECT count(*) FILTER (WHERE reason IS NULL), count(DISTINCT position) FILTER (WHERE reason IS NOT NULL) FROM bad_{table}",
    )
    if folded:
        sentences.append(f"{table.capitalize()}: exact copies of other rows, left out ({rows(folded)}).")
    found = con.execute(
        f"SELECT reason, count(DISTINCT position) AS n FROM bad_{table} WHERE reason IS NOT NULL GROUP BY ALL ORDER BY n DESC, reason"
    ).fetchall()
    return Verdict(read, quarantined, folded, dict(found), sentences)


def rows(n: int) -> str:
    """``1 row``, ``2 rows``."""
    return f"{n:,} row{'' if n == 1 else 's'}"


def used(query: TableQuery, sql: str) -> str:
    """The rows of `sql` (which has ``position``) that are neither quarantined nor copies."""
    return (
        f"SELECT * EXCLUDE (position) FROM ({sql}) r ANTI JOIN bad_{query.contract.name} b USING (position)"
    )


def shared_tax_ids(con: duckdb.DuckDBPyConnection, query: TableQuery) -> int:
    """Number of parties that have their tax id in common with another; they stay parties of their own."""
    (count,) = one_row(
        con,
        f"SELECT coalesce(sum(n), 0)::BIGINT FROM (SELECT count(*) AS n FROM ({used(query, query.values())}) "
        "WHERE trim(tax_id) <> '' GROUP BY trim(tax_id) HAVING n > 1)",
    )
    return count


def currencies(con: duckdb.DuckDBPyConnection, query: TableQuery) -> Counter[str]:
    """How many transactions are in each well-formed currency code, the most frequent first."""
    found = con.execute(
        f"SELECT currency, count(*) FROM ({query.values()}) WHERE currency IS NOT NULL GROUP BY ALL "
        "ORDER BY count(*) DESC, currency"
    )
    return Counter(dict(found.fetchall()))


def _collect_ids(con: duckdb.DuckDBPyConnection, query: TableQuery, with_stored: bool) -> None:
    table, key = query.contract.name, query.key
    stored = (
        f" UNION SELECT {key} FROM {SCHEMA}.{table} WHERE batch_id = {literal(query.batch_id)}"
        if with_stored
        else ""
    )
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE ids_{table} AS SELECT {key} AS id FROM ({used(query, query.values())}){stored}"
    )


def _survey(
    con: duckdb.DuckDBPyConnection, query: TableQuery, conditions: list[str]
) -> tuple[int, list[int], NDArray[np.uint64]]:
    """Number of rows, how many fulfil each condition, and the hashes that more than one row's id has.

    One pass. It brings back a 64-bit hash of the id and a bit per condition of every row, twelve bytes; sorting a
    hundred million hashes takes seconds, where grouping by id would take gigabytes. Only ids whose hashes meet are
    compared themselves.
    """
    bits = " + ".join(f"coalesce({c}, false)::UINTEGER * {1 << i}" for i, c in enumerate(conditions))
    found = con.execute(f"SELECT hash({query.key}) AS h, {bits} AS bits FROM ({query.judged()})").fetchnumpy()
    combinations = np.bincount(np.asarray(found.pop("bits")), minlength=1 << len(conditions))
    which = np.arange(len(combinations))
    fulfilled = [int(combinations[which & (1 << i) > 0].sum()) for i in range(len(conditions))]
    hashes: NDArray[np.uint64] = np.asarray(found.pop("h"))
    hashes.sort()
    return len(hashes), fulfilled, np.unique(hashes[1:][hashes[1:] == hashes[:-1]])


def _judge_duplicates(con: duckdb.DuckDBPyConnection, query: TableQuery) -> None:
    """Rows with one id: alike, all but the first are copies; not alike, nobody can tell which is right and none is used."""
    table = query.contract.name
    raw = ", ".join(f"raw_{d.field.name}" for d in query.fields)
    con.execute(f"""
        INSERT INTO bad_{table}
        WITH candidates AS (
            SELECT position, {query.key} AS key, md5(to_json(struct_pack({_packed(raw)}))::VARCHAR) AS content
            FROM ({query.values()}) SEMI JOIN repeated_hashes ON h = hash({query.key}) WHERE {query.key} IS NOT NULL
        ), groups AS (
            SELECT key, count(DISTINCT content) AS versions, min(position) AS first
            FROM candidates GROUP BY key HAVING count(*) > 1
        )
        SELECT position, CASE WHEN versions > 1 THEN 'duplicate_id' END,
               {literal(query.contract.key + " stands in rows that differ: ")} || left(key, 60)
        FROM candidates JOIN groups USING (key) WHERE versions > 1 OR position > first
    """)


def _packed(columns: str) -> str:
    return ", ".join(f"{name} := {name}" for name in columns.split(", "))
