"""Arrow columns made straight from numpy buffers: numbered ids, money, moments. No Python object per row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

TEXT: Final = pa.string()
CODE: Final = pa.dictionary(pa.int32(), pa.string())
MONEY: Final = pa.decimal128(18, 2)
TIME: Final = pa.timestamp("us", tz="UTC")

#: Arrow's functions. They are made when the module is imported, so that a type checker sees none of them.
compute: Final[Any] = pyarrow.compute

_FOUR_DIGITS: Final = np.array([b"%04d" % number for number in range(10_000)], dtype="S4")


def digits(numbers: NDArray[np.integer], width: int) -> NDArray[np.bytes_]:
    """Zero-padded decimal digits of `numbers` (shape n, below 10**width) as fixed-width bytes."""
    groups = -(-width // 4)
    out = np.empty((len(numbers), groups), dtype="S4")
    rest = np.asarray(numbers, dtype=np.int64)
    for group in range(groups - 1, -1, -1):
        higher = rest // 10_000
        out[:, group] = _FOUR_DIGITS[rest - higher * 10_000]
        rest = higher
    flat = out.view(np.uint8).reshape(len(numbers), groups * 4)[:, groups * 4 - width :]
    return np.ascontiguousarray(flat).view(f"S{width}").ravel()


def fixed_text(
    *parts: bytes | NDArray[np.bytes_], rows: int, valid: NDArray[np.bool_] | None = None
) -> pa.Array:
    """String column whose rows all have one length: constants and fixed-width columns side by side.

    `parts` that are arrays hold one value per row, or per row that is `valid`; other rows become null.
    """
    widths = [len(part) if isinstance(part, bytes) else part.dtype.itemsize for part in parts]
    filled = rows if valid is None else int(np.count_nonzero(valid))
    layout = np.dtype([(f"f{i}", f"S{width}") for i, width in enumerate(widths)])
    values = np.empty(filled, dtype=layout)
    for name, part in zip(layout.names or (), parts, strict=True):
        values[name] = part
    offsets = np.zeros(rows + 1, dtype=np.int32)
    if valid is None:
        offsets[:] = np.arange(rows + 1, dtype=np.int32) * layout.itemsize
        validity = None
    else:
        np.cumsum(valid, out=offsets[1:])
        offsets *= layout.itemsize
        validity = pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(TEXT, rows, [validity, pa.py_buffer(offsets), pa.py_buffer(values)])


def joined(*parts: pa.Array | str) -> pa.Array:
    """Strings side by side, row by row; null where any part is."""
    return compute.binary_join_element_wise(*parts, "")


def coded(codes: NDArray[np.integer], values: Sequence[str] | pa.Array) -> pa.DictionaryArray:
    """Column of repeated strings: `codes` (shape n) index into `values`."""
    dictionary = values if isinstance(values, pa.Array) else pa.array(values, TEXT)
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), dictionary)


def constant(value: str, rows: int) -> pa.DictionaryArray:
    """Column of one string."""
    return coded(np.zeros(rows, dtype=np.int32), [value])


def money(cents: NDArray[np.int64]) -> pa.Array:
    """``DECIMAL(18,2)`` from whole cents (shape n)."""
    words = np.empty((len(cents), 2), dtype=np.int64)
    words[:, 0] = cents
    words[:, 1] = cents >> 63
    return pa.Array.from_buffers(MONEY, len(cents), [None, pa.py_buffer(words)])


def moments(seconds: NDArray[np.int64], valid: NDArray[np.bool_] | None = None) -> pa.Array:
    """UTC timestamps from seconds since 1970 (shape n)."""
    return pa.array(seconds * 1_000_000, TIME, mask=None if valid is None else ~valid)
