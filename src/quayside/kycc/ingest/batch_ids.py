"""Which batch a source is of: what it says, what was asked for, and whether that can be a batch's name."""

# ruff: noqa: S608 - table and column names are constants of the contract; values are bound or quoted by `literal`

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import duckdb

from quayside.foundation.errors import InputError
from quayside.kycc.ingest.contract import CONTRACT
from quayside.kycc.ingest.query import TableQuery
from quayside.kycc.ingest.source import RawTable, Source, shown

#: A batch id is also a folder name in the lake.
_BATCH_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def resolve(
    con: duckdb.DuckDBPyConnection, source: Source, raw: Mapping[str, RawTable], asked: str | None
) -> str:
    """The id the source gives in its header or its parties, else the one asked for.

    Raises:
        InputError: they contradict, there is none, or it cannot be a name.
    """
    given = source.header.get("batch_id")
    if given is not None and not isinstance(given, str):
        raise InputError(f"{source.label} has {shown(given)} as batch_id: it has to be text.")
    if given is None:
        query = TableQuery(CONTRACT["parties"], raw["parties"], f"parties of {source.label}", "")
        found = con.execute(
            f"SELECT DISTINCT text_batch_id FROM ({query.values()}) WHERE text_batch_id IS NOT NULL LIMIT 2"
        ).fetchall()
        given = found[0][0] if len(found) == 1 else None
    if given is None:
        if asked is None:
            raise InputError(f"{source.label} names no batch_id: say which batch it is (batch_id).")
        return asked
    check(given, f"The batch_id of {source.label}")
    must_agree(source.label, asked, given)
    return given


def must_agree(label: str, asked: str | None, given: str) -> None:
    """
    Raises:
        InputError: another batch was asked for than the source is.
    """
    if asked is not None and asked != given:
        raise InputError(
            f"{label} is batch {given}, not batch {asked} as asked for: give the file of that batch, or leave batch_id out."
        )


def check(batch_id: str, what: str) -> None:
    """
    Raises:
        InputError: it cannot be the name of a batch; `what` says whose it is.
    """
    if not _BATCH_ID.fullmatch(batch_id) or ".." in batch_id:
        raise InputError(
            f"{what} is {shown(batch_id)}: use at most 100 letters, digits, dots, hyphens and underscores, a letter or digit first."
        )
