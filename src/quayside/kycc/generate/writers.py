"""Files of a batch. A file or folder appears under its name only when it is complete."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar

import pyarrow as pa

from quayside.foundation.errors import UsageError
from quayside.kycc.generate.batch import BLOCK, SCHEMAS, iso
from quayside.kycc.generate.complete import complete_file, complete_folder
from quayside.kycc.generate.json_text import json_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from quayside.kycc.generate.batch import Batch, TableName

    Progress = Callable[[int, int], object]

T = TypeVar("T")

_MANIFEST: Final = "batch.json"
#: What a batch folder may hold, and a later batch of that name replaces.
_FOLDER: Final = frozenset(
    {_MANIFEST, "outcomes.json", "fx_rates.csv", "fx_rates.parquet", *(f"{name}.parquet" for name in SCHEMAS)}
)
#: Half the time of zstd to write and two thirds to read, for files 1.6 times as large (DuckDB, 2 M transactions).
_COMPRESSION: Final = "snappy"


def write_json(
    batch: Batch, path: Path | str, *, threads: int | None = None, on_progress: Progress | None = None
) -> Path:
    """Write the batch as one JSON object: its provenance, then its four tables, one row per line.

    Args:
        on_progress: called with (parties done, parties in all) as transactions are written.

    Raises:
        UsageError: the file cannot be written, with the reason.
    """
    with complete_file(Path(path)) as temporary, temporary.open("wb") as file:
        head = json.dumps(batch.provenance, ensure_ascii=False)
        file.write(head[:-1].encode())
        for name in SCHEMAS:
            blocks = batch.blocks(name, json_rows, threads)
            _write_rows(file, name, _reported(batch, name, blocks, on_progress))
        file.write(b"}\n")
    return Path(path)


def write_parquet(
    batch: Batch, folder: Path | str, *, threads: int | None = None, on_progress: Progress | None = None
) -> Path:
    """Write the batch as a folder: a Parquet file per table and ``batch.json`` with its provenance.

    An earlier batch folder of that name is replaced as a whole, rates and outcomes beside it included; a folder that
    holds anything else is refused.

    Args:
        on_progress: called with (parties done, parties in all) as transactions are written.

    Raises:
        UsageError: the folder cannot be written, with the reason.
    """
    import pyarrow.parquet as pq

    options: dict[str, Any] = {
        "compression": _COMPRESSION,
        "store_decimal_as_integer": True,
        "store_schema": False,  # plain strings for every reader, whatever Arrow type they were made from
    }
    with complete_folder(Path(folder), _FOLDER) as temporary:
        for name, schema in SCHEMAS.items():
            # A dictionary of strings that never repeat is tried in vain: it costs a third of the time.
            repeated = [field.name for field in schema if pa.types.is_dictionary(field.type)]
            options["use_dictionary"] = [*repeated, "counterparty_id"]
            with pq.ParquetWriter(temporary / f"{name}.parquet", schema, **options) as writer:
                for rows in _reported(batch, name, batch.blocks(name, threads=threads), on_progress):
                    writer.write_batch(rows)
        document = json.dumps(batch.provenance, ensure_ascii=False, indent=2)
        (temporary / _MANIFEST).write_text(document + "\n", encoding="utf-8")
    return Path(folder)


def write_outcomes(batch: Batch, path: Path | str) -> Path:
    """Write the outcomes as one JSON object: batch_id, observed_through, outcomes.

    Raises:
        UsageError: the file cannot be written, with the reason.
    """
    with complete_file(Path(path)) as temporary, temporary.open("wb") as file:
        head = {"batch_id": batch.spec.batch_id, "observed_through": iso(batch.observed_through)}
        file.write(json.dumps(head, ensure_ascii=False)[:-1].encode())
        _write_rows(file, "outcomes", map(json_rows, batch.outcomes.to_batches()))
        file.write(b"}\n")
    return Path(path)


def write_fx_rates(batch: Batch, path: Path | str) -> Path:
    """Write the rates of the batch's currencies, as CSV or Parquet by the file's ending.

    Raises:
        UsageError: the ending is another, or the file cannot be written, with the reason.
    """
    path = Path(path)
    if path.suffix not in (".csv", ".parquet"):
        raise UsageError(f"Rates are written as .csv or .parquet, not as {path.name!r}.")
    with complete_file(path) as temporary:
        if path.suffix == ".csv":
            import pyarrow.csv

            pyarrow.csv.write_csv(batch.fx_rates, temporary)
        else:
            import pyarrow.parquet as pq

            pq.write_table(batch.fx_rates, temporary, compression=_COMPRESSION)
    return path


def _reported(
    batch: Batch, table: TableName, blocks: Iterator[T], on_progress: Progress | None
) -> Iterator[T]:
    """The blocks, each reported once it is dealt with. Transactions are nearly all of the work and alone count."""
    total = batch.spec.parties
    for done, block in enumerate(blocks, start=1):
        yield block
        if on_progress is not None and table == "transactions":
            on_progress(min(done * BLOCK[table], total), total)


def _write_rows(file: BinaryIO, key: str, blocks: Iterable[memoryview]) -> None:
    """``,"key":[…]`` with the rows of all blocks."""
    file.write(f',\n"{key}":['.encode())
    separator = b"\n"
    for rows in blocks:
        if len(rows):
            file.write(separator)
            file.write(rows)
            separator = b",\n"
    file.write(b"\n]")
