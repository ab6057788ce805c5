"""Rows of a table as JSON text, made column by column.

An Arrow string column keeps its characters in one buffer. Each row is joined into one string that ends with a comma,
so that this buffer already is the text of the file, with no work per row in Python.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Final

import pyarrow as pa

from quayside.kycc.generate.columns import TEXT, compute, joined
from quayside.kycc.generate.fx import DAY

#: Fields that are always there, as null when there is no value. Others are left out.
_ALWAYS: Final = frozenset({"tax_id"})
_END: Final = "},\n"


def json_rows(rows: pa.RecordBatch) -> memoryview:
    """The rows as JSON objects, one per line, separated by a comma: UTF-8 without a last separator."""
    if not rows.num_rows:
        return memoryview(b"")
    pieces = [_piece(name, column) for name, column in zip(rows.schema.names, rows.columns, strict=True)]
    first, rest = pieces[0], pieces[1:]
    # Every piece begins with a comma; the first one's is the row's opening brace.
    first = compute.replace_substring(first, ",", "{", max_replacements=1)
    lines = compute.binary_join_element_wise(
        first, *rest, _END, "", null_handling="replace", null_replacement=""
    )
    text = lines.buffers()[2]
    offsets = memoryview(lines.buffers()[1]).cast("i")
    return memoryview(text)[offsets[lines.offset] : offsets[lines.offset + len(lines)] - 2]


def _piece(name: str, column: pa.Array) -> pa.Array:
    """``,"name":value`` for each row; null where the field is left out."""
    key = f",{json.dumps(name)}:"
    if pa.types.is_dictionary(column.type):
        values = _piece(name, column.dictionary)
        return values.take(column.indices)
    if pa.types.is_timestamp(column.type):
        return joined(f'{key}"', *_iso_parts(column), '"')
    if pa.types.is_string(column.type):
        piece = joined(f'{key}"', _escaped(column), '"')
    else:
        piece = joined(key, column.cast(TEXT))
    return compute.fill_null(piece, f"{key}null") if name in _ALWAYS else piece


def _escaped(column: pa.Array) -> pa.Array:
    """Names and ids hold no control characters (a batch id is checked for them), so two characters remain."""
    for character in ("\\", '"'):
        if compute.any(compute.match_substring(column, character)).as_py():
            column = compute.replace_substring(column, character, "\\" + character)
    return column


@cache
def _clock() -> pa.Array:
    """Text of every second of a day."""
    return pa.array(
        [f"T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}Z" for second in range(DAY)], TEXT
    )


def _iso_parts(column: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Day and time of day, from tables: formatting each timestamp costs twenty times as much."""
    seconds = compute.divide(column.cast(pa.int64()), 1_000_000)
    days = compute.floor(compute.divide(seconds.cast(pa.float64()), float(DAY))).cast(pa.int64())
    first = compute.min(days).as_py() or 0
    last = compute.max(days).as_py() or 0
    calendar = pa.array(range(first, last + 1), pa.int32()).cast(pa.date32()).cast(TEXT)
    return (
        calendar.take(compute.subtract(days, first)),
        _clock().take(compute.subtract(seconds, compute.multiply(days, DAY))),
    )
