"""Which module reads which ``db_type``. Vendors' modules, and their drivers, are imported by the load that needs them.

A module of a source has ``FIELDS`` (`quayside.dataloader.sources.fields`) and the function ``open`` of the protocol
`quayside.dataloader.sources.source.Source`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Final

from quayside.dataloader.secrets import open_scope
from quayside.dataloader.sources.fields import PROTECTION, resolve_fields
from quayside.foundation.errors import InputError

if TYPE_CHECKING:
    import duckdb

    from quayside.dataloader.request import LoadRequest
    from quayside.dataloader.sources.source import SourceTable
    from quayside.foundation.settings import Settings

_ROOM: Final = "quayside.dataloader.sources"

#: ``db_type`` → module in this room.
MODULES: Final[dict[str, str]] = {
    "clickhouse": "clickhouse",
    "csv": "files",
    "duckdb": "embedded",
    "mariadb": "mysql",
    "mssql": "mssql",
    "mysql": "mysql",
    "oracle": "oracle",
    "parquet": "files",
    "postgresql": "postgresql",
    "s3_iceberg": "s3_iceberg",
    "snowflake": "snowflake",
    "snowflake_pem": "snowflake",
    "sqlite": "embedded",
}


def source_module(db_type: str) -> ModuleType:
    """The module that reads a ``db_type``.

    Raises:
        InputError: there is none; the sentence lists those there are.
    """
    if db_type not in MODULES:
        raise InputError(
            f"There is no source of db_type {db_type!r}: it is one of {', '.join(sorted(MODULES))}."
        )
    return import_module(f"{_ROOM}.{MODULES[db_type]}")


@contextmanager
def open_source(
    settings: Settings, con: duckdb.DuckDBPyConnection, request: LoadRequest
) -> Iterator[SourceTable]:
    """`quayside.dataloader.sources.source.open_source`."""
    module = source_module(request.db_type)
    with module.open(con, request, _fields(settings, module, request)) as table:
        yield table


@contextmanager
def open_many(
    settings: Settings, con: duckdb.DuckDBPyConnection, request: LoadRequest
) -> Iterator[Callable[[LoadRequest], SourceTable | None]]:
    """What opens small tables of the request's database one after the other, on one connection and one snapshot.

    They are read in one transaction of `con`, and each is left alone when the next is opened. None instead of a table that is
    large, or that may be for all one knows. Only where `shares` says so.
    """
    module = source_module(request.db_type)
    with module.open_many(con, request, _fields(settings, module, request)) as table:
        yield table


def shares(request: LoadRequest) -> bool:
    """Whether tables of this database can be read by `open_many`."""
    return hasattr(source_module(request.db_type), "open_many")


def cancel(settings: Settings, con: duckdb.DuckDBPyConnection, request: LoadRequest, load: str) -> None:
    """Have the source end what the load with this mark runs there, where its ``db_type`` has a way: from any thread.

    It is asked on a connection of its own, also while the source is being opened. `con` is the load's.

    Raises:
        QuaysideError: it could not be told.
    """
    module = source_module(request.db_type)
    if hasattr(module, "cancel"):
        module.cancel(con, request, _fields(settings, module, request), load)


def _fields(settings: Settings, module: ModuleType, request: LoadRequest) -> dict[str, str]:
    """The connection fields, with their secrets."""
    scope = open_scope(settings, request.db_kv_scope)
    # Columns of the source's row; its db_config_value goes before them.
    known = {field.name for field in module.FIELDS}
    protection = {
        field.name: getattr(request, field.name, None) for field in PROTECTION if field.name in known
    }
    values = {
        name: value for name, value in protection.items() if value is not None
    } | request.db_config_value
    return resolve_fields(request.db_config_key, module.FIELDS, values, scope)
