"""Feature columns of callers → what the engine computes with.

A column is a NumPy array, an Arrow array or chunked array, a polars or pandas series, or a plain sequence. Missing is
null, None, NaN or masked. Arrow is imported only when a column needs it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from quayside.foundation.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

    from quayside.kycc.scorecard.card import Characteristic

Columns = Mapping[str, Any]


def row_count(columns: Columns, features: Sequence[str]) -> int:
    """Common length of the columns of `features`.

    Raises:
        InputError: a feature has no column, or lengths differ.
    """
    absent = [name for name in features if name not in columns]
    if absent:
        raise InputError(f"The scorecard reads {', '.join(map(repr, absent))}, but there is no such column.")
    lengths = {name: len(columns[name]) for name in features}
    if len(set(lengths.values())) > 1:
        short, long = min(lengths, key=lengths.__getitem__), max(lengths, key=lengths.__getitem__)
        raise InputError(
            f"Feature columns differ in length: {short!r} has {lengths[short]} rows, {long!r} has {lengths[long]}."
        )
    return next(iter(lengths.values()))


def numeric_column(name: str, column: Any) -> npt.NDArray[Any]:
    """The column as a one-dimensional NumPy array of a boolean, integer or float type, NaN where missing.

    Plain numeric arrays pass through uncopied; the engine widens them piece by piece.
    """
    if isinstance(column, np.ma.MaskedArray):
        column = np.ma.filled(column.astype(np.float64), np.nan)
    if isinstance(column, np.ndarray) and column.dtype.kind in "biuf" and column.ndim == 1:
        return column
    import pyarrow as pa
    import pyarrow.compute as pc

    array = _arrow(name, column)
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    kind = array.type
    if not (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_null(kind)
    ):
        raise InputError(f"Feature {name!r} must be numeric, but its column holds {kind}.")
    return pc.cast(array, pa.float64(), safe=False).to_numpy(zero_copy_only=False)


def category_codes(characteristic: Characteristic, column: Any) -> npt.NDArray[np.uint8]:
    """Bin codes of a text column: 0 missing, 1 … k the bins, k + 1 a category no bin names."""
    import pyarrow as pa

    name = characteristic.feature
    array = _arrow(name, column)
    if pa.types.is_null(array.type):
        return np.zeros(len(array), np.uint8)
    if not pa.types.is_dictionary(array.type):
        array = array.dictionary_encode()
    held = array.type.value_type
    if not (pa.types.is_string(held) or pa.types.is_large_string(held) or pa.types.is_string_view(held)):
        raise InputError(f"Feature {name!r} is categorical, but its column holds {held}.")
    code_of = {
        value: code for code, values in enumerate(characteristic.categories, start=1) for value in values
    }
    other = len(characteristic.points) + 1
    # a dictionary may hold a null itself; the last slot serves rows whose index is null
    codes = [0 if value is None else code_of.get(value, other) for value in array.dictionary.to_pylist()]
    table = np.array([*codes, 0], np.uint8)
    return table[array.indices.fill_null(len(codes)).to_numpy(zero_copy_only=False)]


def _arrow(name: str, column: Any) -> pa.Array:
    import pyarrow as pa

    if getattr(column, "ndim", 1) != 1:
        raise InputError(f"Feature {name!r} must be one column, but it has shape {column.shape}.")
    if not isinstance(column, pa.Array | pa.ChunkedArray) and hasattr(column, "to_arrow"):
        column = column.to_arrow()  # polars
    if isinstance(column, pa.ChunkedArray):
        if pa.types.is_dictionary(column.type):
            column = column.unify_dictionaries()
        return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if isinstance(column, pa.Array):
        return column
    try:
        return pa.array(column, from_pandas=True)
    except (pa.ArrowException, OverflowError) as error:
        raise InputError(f"Feature {name!r} holds values of mixed or unknown types.") from error
