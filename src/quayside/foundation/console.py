"""What every command that lists something prints: an aligned table for people, ``--json`` for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Final

import click

#: Control characters of stored names would otherwise drive the reader's terminal.
_CONTROL: Final = dict.fromkeys((*range(32), *range(127, 160)), "�")

Row = Mapping[str, object]


def show(rows: Sequence[Row], columns: Sequence[str] | None = None, as_json: bool = False) -> None:
    """Print rows to standard output.

    ``columns`` chooses and orders what the table shows (default: the keys of the first row); with ``as_json`` the rows
    are printed whole, as one JSON list. Numbers are aligned to the right, a missing value is empty.
    """
    if as_json:
        show_json(rows)
        return
    if not rows:
        click.echo("(none)")
        return
    from rich.cells import cell_len

    names = list(columns) if columns is not None else list(rows[0])
    cells = [[text(row.get(name)) for name in names] for row in rows]
    widths = [max(cell_len(line[i]) for line in [names, *cells]) for i in range(len(names))]
    numeric = [
        all(isinstance(row.get(name), int | float | Decimal | None) for row in rows)
        and any(row.get(name) is not None for row in rows)
        for name in names
    ]
    for line in [names, *cells]:
        padded = (
            " " * (width - cell_len(cell)) + cell if right else cell + " " * (width - cell_len(cell))
            for cell, width, right in zip(line, widths, numeric, strict=True)
        )
        click.echo("  ".join(padded).rstrip())


def show_json(value: object) -> None:
    """Print any result as indented JSON: decimals as text, times as ISO, NaN and infinities as null."""
    click.echo(json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False))


def text(value: object) -> str:
    """One cell: what `show` prints for a value."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}" if not value.is_integer() or abs(value) >= 1e15 else f"{value:.0f}"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    if isinstance(value, Mapping) or (isinstance(value, Sequence) and not isinstance(value, str | bytes)):
        value = json.dumps(_plain(value), ensure_ascii=False)
    return str(value).translate(_CONTROL)


def _plain(value: object) -> object:
    """The value in JSON's own types."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, bytes | bytearray):
        return [_plain(item) for item in value]
    return str(value)
