"""Opening a DuckDB connection with the lake attached. Secrets travel as bound parameters, never inside SQL text."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import duckdb

from quayside.foundation.errors import ServiceUnavailableError, SettingsError
from quayside.foundation.lake.extensions import LAKE_EXTENSIONS, load_extensions
from quayside.foundation.lake.sql import identifier, literal, reason
from quayside.foundation.objects import S3Access
from quayside.foundation.postgres import advisory_lock, database_url
from quayside.foundation.processes import private_folder
from quayside.foundation.settings import Settings

#: Name of the attached lake in every connection, and of its schema in PostgreSQL.
CATALOG: Final = "lake"

#: Options a new lake is made with; they are stored in the catalog, so that every writer obeys them.
NEW_LAKE_OPTIONS: Final[dict[str, str | int]] = {
    # Rows kept in the catalog instead of a file. It made small commits no faster (28 ms either way), cannot hold a NUL
    # character inside a list, and turns deletes of different rows into conflicts.
    "data_inlining_row_limit": 0,
    # 10 M transactions: 303 MB and 3.4 s, where snappy needs 543 MB and 3.4 s and zstd's own level 20 % more time.
    "parquet_compression": "zstd",
    "parquet_compression_level": 1,
}

_PG_SECRET: Final = "quayside_postgres"  # noqa: S105  the name of a DuckDB secret, not its content
_S3_SECRET: Final = "quayside_s3"  # noqa: S105
_NO_CATALOG: Final = "creating a new DuckLake is explicitly disabled"
_numbers = itertools.count()


@dataclass(frozen=True)
class PostgresTarget:
    """Where PostgreSQL is, split into what a DuckDB secret holds and the remaining libpq options."""

    secret: dict[str, str]
    options: str

    @classmethod
    def of(cls, settings: Settings) -> PostgresTarget:
        from psycopg import ProgrammingError
        from psycopg.conninfo import conninfo_to_dict

        try:
            parts = {key: str(value) for key, value in conninfo_to_dict(database_url(settings)).items()}
        except ProgrammingError:  # its text may quote the URL, password included
            raise SettingsError("QUAYSIDE_DATABASE_URL is not a valid postgresql:// URL.") from None
        names = {"host": "HOST", "port": "PORT", "dbname": "DATABASE", "user": "USER", "password": "PASSWORD"}
        secret = {names[key]: parts.pop(key) for key in names if key in parts}
        return cls(secret, " ".join(f"{key}='{_backslash(value)}'" for key, value in parts.items()))


def open_connection(
    settings: Settings, *, read_only: bool, threads: int | None, memory_limit: str | None, in_use: bool = True
) -> duckdb.DuckDBPyConnection:
    """A new in-memory DuckDB with the lake attached as ``lake`` and, unless told otherwise, in use.

    Raises:
        SettingsError: the data path is not the one the catalog was made with, or S3 has no credentials.
        ServiceUnavailableError: PostgreSQL or the data folder cannot be reached.
    """
    extensions = settings.home / "duckdb" / "extensions"
    config: dict[str, str | bool | int | float | list[str]] = {
        "extension_directory": str(extensions),
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "allow_unsigned_extensions": True,  # see `load_extensions`
        "temp_directory": str(_temp_directory(settings.home / "duckdb" / "tmp")),
        "preserve_insertion_order": False,
    }
    if limit := memory_limit or settings.memory_limit:
        config["memory_limit"] = limit
    # One thread while the catalog is read: of several, all but one wait in a busy loop.
    con = duckdb.connect(":memory:", config=config | {"threads": 1})
    try:
        load_extensions(con, extensions, LAKE_EXTENSIONS)
        con.execute("SET TimeZone = 'UTC'")
        if settings.lake_data_path.startswith("s3://"):
            enable_s3(con, settings)
        _attach_lake(con, settings, read_only)
        if in_use:
            con.execute(f"USE {CATALOG}")
        number = threads or settings.threads
        con.execute("RESET threads" if number is None else f"SET threads = {int(number)}")
    except BaseException:
        con.close()
        raise
    return con


def attach_postgres(
    con: duckdb.DuckDBPyConnection, settings: Settings, alias: str, *, read_only: bool
) -> None:
    """Attach the platform's PostgreSQL to a lake connection as catalog `alias`.

    Raises:
        ServiceUnavailableError: PostgreSQL does not answer.
    """
    options = literal(PostgresTarget.of(settings).options)
    mode = ", READ_ONLY" if read_only else ""
    try:
        con.execute(f"ATTACH {options} AS {identifier(alias)} (TYPE postgres, SECRET '{_PG_SECRET}'{mode})")
    except duckdb.IOException as error:
        raise ServiceUnavailableError(f"PostgreSQL does not answer: {_reason(error)}.") from None


def enable_s3(con: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Let a connection read and write ``s3://`` with the credentials of the settings.

    Raises:
        SettingsError: there are no credentials.
    """
    load_extensions(con, settings.home / "duckdb" / "extensions", ("httpfs",))
    _create_secret(con, _S3_SECRET, "s3", _s3_secret(settings))


def _attach_lake(con: duckdb.DuckDBPyConnection, settings: Settings, read_only: bool) -> None:
    target = PostgresTarget.of(settings)
    _create_secret(con, _PG_SECRET, "postgres", target.secret)
    attach = _attach_sql(settings, target, "READ_ONLY" if read_only else "CREATE_IF_NOT_EXISTS false")
    try:
        try:
            con.execute(attach)
        except duckdb.InvalidInputException as error:
            if _NO_CATALOG not in str(error):
                raise
            _create_catalog(con, settings, target)
            con.execute(attach)
    except duckdb.Error as error:
        raise _attach_error(error) from None


def _create_catalog(con: duckdb.DuckDBPyConnection, settings: Settings, target: PostgresTarget) -> None:
    if not settings.lake_data_path.startswith("s3://"):
        private_folder(Path(settings.lake_data_path))
    # DuckLake's own CREATE SCHEMA and CREATE TABLE collide when several processes meet an empty database.
    with advisory_lock(settings, "quayside.lake.create"):
        con.execute(_attach_sql(settings, target, "CREATE_IF_NOT_EXISTS true"))
        for name, value in NEW_LAKE_OPTIONS.items():
            con.execute(f"CALL {CATALOG}.set_option({literal(name)}, ?)", [value])
        con.execute(f"DETACH {CATALOG}")


def _attach_sql(settings: Settings, target: PostgresTarget, mode: str) -> str:
    # META_SCHEMA: of the database, PostgreSQL's scanner is to learn the catalog's schema alone. It reads columns, keys and
    # indexes of all it may see, at every attaching: 50 ms in a fresh platform, and more with every table of other schemas.
    return (
        f"ATTACH {literal('ducklake:postgres:' + target.options)} AS {CATALOG} (DATA_PATH "
        f"{literal(settings.lake_data_path + '/')}, METADATA_SCHEMA '{CATALOG}', META_SECRET '{_PG_SECRET}', META_SCHEMA '{CATALOG}', {mode})"
    )


def _attach_error(error: duckdb.Error) -> SettingsError | ServiceUnavailableError:
    text = str(error)
    if match := re.search(r'DATA_PATH parameter "(.*?)" does not match existing data path .*? "(.*?)"', text):
        return SettingsError(
            f"The lake's catalog was made for data in {match[2]} but QUAYSIDE_LAKE_URL says {match[1]}: "
            "set QUAYSIDE_LAKE_URL to the first, or use another database."
        )
    return ServiceUnavailableError(f"The lake cannot be attached: {_reason(error)}.")


def _reason(error: BaseException) -> str:
    """What PostgreSQL said, without DuckDB's prefixes around it."""
    return re.sub(r'^.*Unable to connect to Postgres at ".*?": ', "", reason(error))


def _create_secret(con: duckdb.DuckDBPyConnection, name: str, kind: str, values: dict[str, str]) -> None:
    options = ", ".join([f"TYPE {kind}", *(f"{key} ?" for key in values)])
    con.execute(f"CREATE OR REPLACE SECRET {name} ({options})", list(values.values()))


def _s3_secret(settings: Settings) -> dict[str, str]:
    access = S3Access.of(settings)
    secret = {"KEY_ID": access.key_id, "SECRET": access.secret, "REGION": access.region}
    if access.session_token is not None:
        secret["SESSION_TOKEN"] = access.session_token
    if access.endpoint is not None:
        endpoint = urlsplit(access.endpoint)
        secret |= {
            "ENDPOINT": endpoint.netloc + endpoint.path.rstrip("/"),
            "URL_STYLE": "path",
            "USE_SSL": str(endpoint.scheme == "https").lower(),
        }
    return secret


def _temp_directory(parent: Path) -> Path:
    # DuckDB makes this folder when it first spills and removes it on close. What killed processes left is removed here.
    host = re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname())
    private_folder(parent)
    for left in parent.glob(f"{host}-*"):
        owner = left.name.removeprefix(f"{host}-").partition("-")[0]
        if owner.isdigit() and not _is_running(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
    return parent / f"{host}-{os.getpid()}-{next(_numbers)}"


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _backslash(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")
