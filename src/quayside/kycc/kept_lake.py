"""A lake that is opened once for a piece of work of many steps. Opening costs some 0.15 s, more than many a step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from quayside.foundation.lake import Lake

if TYPE_CHECKING:
    import duckdb


class KeptLake(Lake):
    """As `Lake`, and within `kept_open` its plain connections are further ones of one opened database: with transactions and
    temporary tables of their own, and a snapshot of the lake of their own."""

    _opened: duckdb.DuckDBPyConnection | None = None

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """Open the lake for the block. Not to be held across a fork; blocks may nest."""
        if self._opened is not None:
            yield
            return
        with closing(super().connect()) as self._opened:
            try:
                yield
            finally:
                self._opened = None

    def connect(
        self,
        *,
        read_only: bool = False,
        threads: int | None = None,
        memory_limit: str | None = None,
        in_use: bool = True,
    ) -> duckdb.DuckDBPyConnection:
        if self._opened is None or read_only or threads or memory_limit or not in_use:
            return super().connect(
                read_only=read_only, threads=threads, memory_limit=memory_limit, in_use=in_use
            )
        con = self._opened.cursor()
        con.execute("USE lake")
        con.execute("SET TimeZone = 'UTC'")
        return con
