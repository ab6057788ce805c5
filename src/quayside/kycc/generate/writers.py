"""Files of a batch. A file or folder appears under its name only when it is complete."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from quayside.foundation.errors import UsageError
from quayside.kycc.generate.batch import SCHEMAS
from quayside.kycc.generate.json_text import json_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from quayside.kycc.generate.batch import Batch, TableName

    Progress = Callable[[int, int], object]

_MANIFEST: Final = "batch.json"
_COMPRESSION: Final = "zstd"


def write_json(
    batch: Batch, path: Path | str, *, threads: int | None = None, on_progress: Progress | None = None
) -> Path:
    """Write the batch as one JSON object: its provenance, then its four tables, one row per line.

    Args:
        on_progress: called with (parties done, parties in all) as transactions are written.

    Raises:
        UsageError: the file cannot be written, with the reason.
    """
    with _complete_file(Path(path)) as temporary, temporary.open("wb") as file:
        head = json.dumps(batch.provenance, ensure_ascii=False)
        file.write(head[:-1].encode())
        for name in SCHEMAS:
            file.write(f',\n"{name}":['.encode())
            separator = b"\n"
            for done, rows in enumerate(batch.blocks(name, json_rows, threads), start=1):
                if not len(rows):
                    continue
                file.write(separator)
                file.write(rows)
                separator = b",\n"
                _report(batch, name, done, on_progress)
            file.write(b"\n]")
        file.write(b"}\n")
    return Path(path)


def write_parquet(
    batch: Batch, folder: Path | str, *, threads: int | None = None, on_progress: Progress | None = None
) -> Path:
    """Write the batch as a folder: a Parquet file per table and ``batch.json`` with its provenance.

    An earlier batch folder of that name is replaced as a whole; any other folder that is not empty is refused.

    Args:
        on_progress: called with (parties done, parties in all) as transactions are written.

    Raises:
        UsageError: the folder cannot be written, with the reason.
    """
    import pyarrow.parquet as pq

    with _complete_folder(Path(folder)) as temporary:
        for name, schema in SCHEMAS.items():
            repeated = [field.name for field in schema if pa.types.is_dictionary(field.type)]
            with pq.ParquetWriter(
                temporary / f"{name}.parquet",
                schema,
                compression=_COMPRESSION,
                use_dictionary=[*repeated, "counterparty_id"],
                store_decimal_as_integer=True,
                store_schema=False,  # plain strings for every reader, whatever Arrow type they were made from
            ) as writer:
                for done, rows in enumerate(batch.blocks(name, threads=threads), start=1):
                    writer.write_batch(rows)
                    _report(batch, name, done, on_progress)
        _write_document(temporary / _MANIFEST, batch.provenance)
    return Path(folder)


def write_outcomes(batch: Batch, path: Path | str) -> Path:
    """Write the outcomes as one JSON object: batch_id, observed_through, outcomes.

    Raises:
        UsageError: the file cannot be written, with the reason.
    """
    from quayside.kycc.generate.batch import iso

    with _complete_file(Path(path)) as temporary, temporary.open("wb") as file:
        head = {"batch_id": batch.spec.batch_id, "observed_through": iso(batch.observed_through)}
        file.write(json.dumps(head, ensure_ascii=False)[:-1].encode())
        file.write(b',\n"outcomes":[')
        separator = b"\n"
        for rows in batch.outcomes.to_batches():
            if rows.num_rows:
                file.write(separator)
                file.write(json_rows(rows))
                separator = b",\n"
        file.write(b"\n]}\n")
    return Path(path)


def write_fx_rates(batch: Batch, path: Path | str) -> Path:
    """Write the rates of the batch's currencies, as CSV or Parquet by the file's ending.

    Raises:
        UsageError: the ending is another, or the file cannot be written, with the reason.
    """
    path = Path(path)
    if path.suffix not in (".csv", ".parquet"):
        raise UsageError(f"Rates are written as .csv or .parquet, not as {path.name!r}.")
    with _complete_file(path) as temporary:
        if path.suffix == ".csv":
            import pyarrow.csv as pc

            pc.write_csv(batch.fx_rates, temporary)
        else:
            import pyarrow.parquet as pq

            pq.write_table(batch.fx_rates, temporary, compression=_COMPRESSION)
    return path


def _report(batch: Batch, table: TableName, blocks_done: int, on_progress: Progress | None) -> None:
    """Transactions are nearly all of the work, so that they alone count as progress."""
    from quayside.kycc.generate.batch import BLOCK_PARTIES

    if on_progress is not None and table == "transactions":
        total = batch.spec.parties
        on_progress(min(blocks_done * BLOCK_PARTIES, total), total)


def _write_document(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _complete_file(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its name at the end, and is removed when there is none."""
    if path.is_dir():
        raise UsageError(f"Cannot write {path}: it is a folder; name a file.")
    with _written(path) as temporary:
        yield temporary
        os.replace(temporary, path)


@contextmanager
def _complete_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder` that takes its name at the end."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"Cannot write {folder}: it is a file; name a folder.")
    with _written(folder) as temporary:
        if folder.exists() and any(folder.iterdir()) and not (folder / _MANIFEST).is_file():
            raise UsageError(
                f"Cannot write {folder}: it holds other files and no earlier batch; name another folder."
            )
        temporary.mkdir()
        yield temporary
        if folder.exists():
            old = _beside(folder)
            os.replace(folder, old)
            os.replace(temporary, folder)
            shutil.rmtree(old)
        else:
            os.replace(temporary, folder)


@contextmanager
def _written(path: Path) -> Iterator[Path]:
    temporary = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"Cannot write {path}: {reason}; choose another place or free this one.") from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
