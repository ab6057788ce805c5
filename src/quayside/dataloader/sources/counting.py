"""Rows counted while they pass, for whoever asks from another thread how far a read is.

`Passing` counts what Python sees anyway, the batches of a driver. `CountingFilter` has DuckDB call us once a vector (2,048
rows), for reads that Python sees nothing of: 0.12 CPU seconds a million rows, and PyArrow's import, so for large tables alone.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from quayside.dataloader.sources import scanner

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

#: A table of fewer rows, or of less in files, is read before anybody asks.
LARGE_ROWS: Final = 500_000
LARGE_BYTES: Final = 64 * 1024 * 1024


class Passing:
    """Rows of the streams that are being read now."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.rows = 0

    def through(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The same batches; counted until the stream ends, however it does."""
        given = 0
        try:
            for batch in batches:
                given += batch.num_rows
                self._add(batch.num_rows)
                yield batch
        finally:
            self._add(-given)

    def _add(self, rows: int) -> None:
        with self._lock:
            self.rows += rows


class CountingFilter:
    """A condition that lets every row pass and counts it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self.rows = 0

    @classmethod
    @contextmanager
    def made(cls, con: duckdb.DuckDBPyConnection, *, large: bool) -> Iterator[CountingFilter | None]:
        """One for relations of `con`; None where it is not worth it."""
        import duckdb
        from duckdb.func import ARROW

        if not large:
            yield None
            return
        counting = cls(scanner.new_name())
        boolean = duckdb.type("BOOLEAN")
        con.create_function(counting._name, counting._pass, [boolean], boolean, type=ARROW, side_effects=True)
        try:
            yield counting
        finally:
            with suppress(duckdb.Error):  # a transaction of the owner's that failed; it is closed soon
                con.remove_function(counting._name)

    def around(self, relation: str) -> str:
        """The relation, counted from none when it is read."""
        self.rows = 0
        return f"(SELECT * FROM {relation} WHERE {self._name}(true))"  # noqa: S608  a relation of ours

    def _pass(self, rows: Any) -> Any:
        with self._lock:
            self.rows += len(rows)
        return rows
