"""Drivers that are extras of the package, and what the modules of vendors' databases have in common."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from quayside.dataloader.errors import DriverMissingError, SourceRefusedError, SourceUnavailableError
from quayside.dataloader.sources.arrow import ArrowTable
from quayside.dataloader.sources.failures import without_secrets
from quayside.foundation.errors import InputError, QuaysideError

if TYPE_CHECKING:
    import duckdb

    from quayside.dataloader.request import LoadRequest
    from quayside.dataloader.sources.arrow import ArrowSource


def needs_driver(module: str, extra: str, db_type: str, source: str) -> Any:
    """The driver's module, imported now.

    Raises:
        DriverMissingError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError:
        raise DriverMissingError(
            f"Source {source} is of db_type {db_type}, whose driver is not installed: install quayside[{extra}]."
        ) from None


@contextmanager
def as_table(
    con: duckdb.DuckDBPyConnection, request: LoadRequest, source: ArrowSource, connections: int
) -> Iterator[ArrowTable]:
    """An `ArrowTable` that is closed at the end."""
    table = ArrowTable(con, request, source, connections)
    try:
        yield table
    finally:
        table.close()


def meaning(
    text: str, source: str, fields: Mapping[str, str], denied: re.Pattern[str], lost: re.Pattern[str]
) -> QuaysideError:
    """A driver's error by its words: what is refused is looked for first, since a refusal may speak of a connection."""
    said = without_secrets(text.strip(), fields)
    said = " ".join(line.strip() for line in said.splitlines()[:2] if line.strip()).rstrip(". ")
    said = said or "nothing was said"
    if denied.search(text):
        return SourceRefusedError(f"Source {source} refuses: {said}.")
    if lost.search(text):
        return SourceUnavailableError(f"Source {source} does not answer: {said}.")
    return InputError(f"Source {source} cannot be read: {said}.")
