"""Parts of a labelled table: what a model learns from and what it never sees."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import numpy.typing as npt

from quayside.foundation.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

    from quayside.kycc.training.config import TrainingConfig

Method = Literal["time", "stratified"]
Index = npt.NDArray[np.intp]

#: Columns of a labelled table that are no features.
KEYS: Final = ("batch_id", "party_id", "as_of", "label", "label_source")


@dataclass(frozen=True, eq=False)
class Parts:
    """A labelled table in two: no row in both, no row without a label.

    Attributes:
        method: ``time`` where the holdout is the latest dates, ``stratified`` where it is a draw of parties.
        fingerprint: SHA-256 of keys, labels and features of both parts; equal data, and only that, has an equal one.
    """

    train: pa.Table
    holdout: pa.Table
    method: Method
    fingerprint: str


def split(table: pa.Table, config: TrainingConfig) -> Parts:
    """Hold out part of a labelled table.

    With several ``as_of`` dates the latest ones are held out, as many as come nearest to ``test_size`` (at most half of the
    rows): a model is judged on what came after it. Otherwise parties are drawn, as many of the bad as of the good ones
    in proportion; all rows of a party fall on one side.

    Args:
        table: columns `KEYS` and features, as `quayside.kycc.labels` gives them; rows whose label is null are left out.

    Raises:
        InputError: a column is absent, or a label is neither 0 nor 1.
    """
    import pyarrow as pa

    if absent := [name for name in KEYS if name not in table.column_names]:
        raise InputError(
            f"A labelled table has the columns {', '.join(KEYS)}; {', '.join(absent)} is missing."
        )
    table = table.filter(table["label"].is_valid())
    label = labels_of(table)
    if not np.isin(label, (0, 1)).all():
        raise InputError("Labels are 0 (good) or 1 (bad); the table holds others.")
    held = _latest(table, config.test_size)
    method: Method = "stratified" if held is None else "time"
    if held is None:
        held = fold_numbers(table, label, round(1 / config.test_size), config.seed) == 0
    return Parts(table.filter(pa.array(~held)), table.filter(pa.array(held)), method, fingerprint(table))


def labels_of(table: pa.Table) -> npt.NDArray[np.int8]:
    """The labels, shape (rows,)."""
    return table["label"].to_numpy().astype(np.int8)


def fold_numbers(table: pa.Table, label: npt.NDArray[np.int8], folds: int, seed: int) -> npt.NDArray[np.intp]:
    """Number 0 … folds − 1 of each row: classes spread evenly, all rows of a party in one fold.

    Equal tables in equal order, as `quayside.kycc.labels` gives them, and equal seeds give equal numbers.
    """
    encoded = table["party_id"].combine_chunks().dictionary_encode()
    party = encoded.indices.to_numpy()
    bad = np.zeros(len(encoded.dictionary), np.int8)
    np.maximum.at(bad, party, label)
    rng = np.random.default_rng(seed)
    fold = np.empty(len(bad), np.intp)
    dealt = 0
    for value in (1, 0):
        members = np.flatnonzero(bad == value)
        # the second class goes on where the first stopped, so that sizes differ by one at most
        fold[rng.permutation(members)] = (dealt + np.arange(len(members))) % folds
        dealt += len(members)
    return fold[party]


def _latest(table: pa.Table, test_size: float) -> npt.NDArray[np.bool_] | None:
    """Rows of the latest dates, about `test_size` of all; None with one date, or when that would be more than half."""
    import pyarrow as pa

    moments = table["as_of"].cast(pa.timestamp("us")).to_numpy() if table.num_rows else np.array([], "M8[us]")
    dates, counts = np.unique(moments, return_counts=True)
    if len(dates) < 2:
        return None
    share = np.cumsum(counts[::-1])[::-1][1:] / table.num_rows  # held out when it starts with date 1, 2, …
    best = int(np.argmin(np.abs(share - test_size)))
    return moments >= dates[best + 1] if share[best] <= 0.5 else None


def fingerprint(table: pa.Table) -> str:
    """SHA-256 of a table's columns, names and values in the order of the rows."""
    import pyarrow as pa

    digest = hashlib.sha256()
    for name in sorted(table.column_names):
        column = table[name]
        digest.update(f"{name}\x1f{len(column)}\x1f".encode())
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if pa.types.is_timestamp(kind):
            digest.update(column.cast(pa.timestamp("us")).cast(pa.int64()).to_numpy().tobytes())
        elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
            digest.update(column.cast(pa.float64()).to_numpy(zero_copy_only=False).tobytes())
        else:
            texts = column.cast(pa.string()).to_pylist()
            digest.update("\x1e".join("\x00" if text is None else text for text in texts).encode())
    return digest.hexdigest()
