"""A loaded table against its source: by key and content, read with nothing of the product but its lake's address."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg

from quayside.foundation.lake import Lake
from quayside.foundation.settings import Settings
from tests.faults.dataloader.workload import COLUMNS, SCHEMA, Table

Row = tuple[Any, ...]
_SHOWN = 3


def differences(settings: Settings, source_url: str, tables: Sequence[Table]) -> list[str]:
    """What each table has that its source has not, has not, has otherwise, or has twice."""
    found: list[str] = []
    with psycopg.connect(source_url) as source, closing(Lake(settings).connect(read_only=True)) as lake:
        for table in tables:
            statement: Any = f"SELECT {', '.join(COLUMNS)} FROM {SCHEMA}.{table.name}"
            wanted = [_plain(row) for row in source.execute(statement).fetchall()]
            try:
                loaded = _delta_rows(settings, table) if table.catalog == "delta" else _lake_rows(lake, table)
            except Exception as error:  # noqa: BLE001 - a table that cannot be read is what we look for
                found.append(f"{table.name}: cannot be read: {error}")
                continue
            found += [f"{table.name} ({table.strategy}): {text}" for text in compare(wanted, loaded)]
            if table.strategy == "scd2":
                found += [f"{table.name} (scd2): {text}" for text in _history_problems(lake, table)]
    return found


def compare(wanted: Sequence[Row], loaded: Sequence[Row]) -> list[str]:
    """The first column is the key."""
    found = []
    if twice := [key for key, count in Counter(row[0] for row in loaded).items() if count > 1]:
        found.append(f"{len(twice)} keys are there twice, such as {twice[:_SHOWN]}")
    a, b = {row[0]: row for row in wanted}, {row[0]: row for row in loaded}
    if missing := sorted(a.keys() - b.keys()):
        found.append(
            f"{len(missing)} of {len(a)} rows are missing, such as {[a[k] for k in missing[:_SHOWN]]}"
        )
    if extra := sorted(b.keys() - a.keys()):
        found.append(f"{len(extra)} rows are not in the source, such as {[b[k] for k in extra[:_SHOWN]]}")
    if other := [key for key in a.keys() & b.keys() if a[key] != b[key]]:
        shown = [(b[k], "instead of", a[k]) for k in sorted(other)[:_SHOWN]]
        found.append(f"{len(other)} rows have other values, such as {shown}")
    return found


def _lake_rows(lake: Any, table: Table) -> list[Row]:
    where = {"scd2": "WHERE is_current"}.get(table.strategy, "")
    if table.options.get("delete_mode") == "soft":
        where = "WHERE NOT coalesce(is_delete, false)"
    rows = lake.execute(
        f'SELECT {", ".join(COLUMNS)} FROM "{table.catalog}.{SCHEMA}"."{table.name}" {where}'
    ).fetchall()
    return [_plain(row) for row in rows]


def _delta_rows(settings: Settings, table: Table) -> list[Row]:
    from deltalake import DeltaTable

    path = Path(settings.delta_data_path) / table.catalog / SCHEMA / table.name
    arrow = DeltaTable(str(path)).to_pyarrow_table(columns=list(COLUMNS))
    return [_plain(tuple(row.values())) for row in arrow.to_pylist()]


def _history_problems(lake: Any, table: Table) -> list[str]:
    """Versions of one key must follow one another, and each must differ from the one before it."""
    name = f'"{table.catalog}.{SCHEMA}"."{table.name}"'
    values = ", ".join(c for c in COLUMNS if c != "id")
    [(overlapping, same, open_but_old)] = lake.execute(
        f"""WITH v AS (
            SELECT *, row({values}) AS content, lag(row({values})) OVER w AS before, lag(valid_to) OVER w AS ended
            FROM {name} WINDOW w AS (PARTITION BY id ORDER BY valid_from, valid_to NULLS LAST))
        SELECT count(*) FILTER (WHERE ended > valid_from), count(*) FILTER (WHERE content = before AND ended = valid_from),
            count(*) FILTER (WHERE is_current <> (valid_to IS NULL)) FROM v"""
    ).fetchall()
    found = {
        "versions overlap": overlapping,
        "versions repeat the one before": same,
        "versions are open and not current, or the other way round": open_but_old,
    }
    return [f"{count} {what}" for what, count in found.items() if count]


def _plain(row: Row) -> Row:
    """Equal values equal: moments in one zone, numbers without a scale."""
    return tuple(
        value.astimezone(UTC)
        if isinstance(value, datetime)
        else value.normalize()
        if isinstance(value, Decimal)
        else value
        for value in row
    )
