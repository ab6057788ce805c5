"""Publication: a lake table as a PostgreSQL table, for readers that only know PostgreSQL (dbt's postgres target).

Rows are copied beside the old table and put in its place in one transaction; a reader sees the old rows or the new
ones, never a mixture and never none.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

import duckdb

from quayside.foundation.errors import (
    ConflictError,
    InputError,
    SchemaError,
    ServiceUnavailableError,
    UsageError,
)
from quayside.foundation.lake.catalog import TableAt, resolve
from quayside.foundation.lake.conflicts import is_connection_lost
from quayside.foundation.lake.sql import identifier, literal, reason
from quayside.foundation.lake.types import for_postgres
from quayside.foundation.postgres import advisory_lock, connect

if TYPE_CHECKING:
    import psycopg

    from quayside.foundation.lake.lake import Lake

#: Begins the comment of every published table; a table without it is somebody else's and is never replaced.
_MARK: Final = "Published by Quayside from lake table "
_RESERVED: Final = frozenset({"lake", "dagster", "pg_catalog", "information_schema", "pg_toast"})
_NAME_BYTES: Final = 63
_LOCK_SECONDS: Final = 30


@dataclass(frozen=True)
class Publication:
    """`rows` rows of `table` as they were at `snapshot_id` are in PostgreSQL's `target` now."""

    table: str
    snapshot_id: int
    target: str
    rows: int


def publish_table(
    lake: Lake, table: str, *, target: str | None = None, snapshot_id: int | None = None
) -> Publication:
    """Copy ``schema.table`` at a snapshot (default: the current one) into PostgreSQL, by default under the same name.

    While views or grants hang on the old table and its columns are the same, its rows are exchanged and the table
    stays; otherwise the table is exchanged.

    Raises:
        NotFoundError: no such table or snapshot.
        UsageError: the target is not one of our publications, or its name is not usable.
        SchemaError: columns changed while views depend on the old ones.
        InputError: PostgreSQL cannot hold a value, e.g. a text with a NUL character.
        ConflictError: readers held the old table for too long.
    """
    schema, _, name = (target or table).rpartition(".")
    schema = schema or "public"
    qualified = f"{schema}.{name}"
    if schema in _RESERVED or schema.startswith("pg_"):
        raise UsageError(f"PostgreSQL schema {schema} is not for publications: choose another with --to.")
    if not name or max(len(schema.encode()), len(name.encode())) > _NAME_BYTES:
        raise UsageError(f"{qualified!r} is no name PostgreSQL can hold: choose another with --to.")
    with (
        advisory_lock(lake.settings, f"quayside.lake.publish:{qualified}"),
        closing(lake.connect(read_only=True)) as con,
        connect(lake.settings, autocommit=True) as postgres,
    ):
        _check_ours(postgres, schema, name)
        at = resolve(con, table, snapshot_id)
        place = _Place(schema, name, staging_name(qualified))
        _run(postgres, f"CREATE SCHEMA IF NOT EXISTS {identifier(schema)}")
        _run(postgres, f"DROP TABLE IF EXISTS {place.staging}")  # of a publication that was killed
        try:
            rows = _copy(lake, con, postgres, at, place)
            _exchange(postgres, at, place)
        finally:
            if not postgres.broken:
                _run(postgres, f"DROP TABLE IF EXISTS {place.staging}")
        _run(postgres, f"ANALYZE {place.final}")
    return Publication(at.qualified, at.snapshot_id, qualified, rows)


def staging_name(qualified: str) -> str:
    """Name of the table in which the rows of a publication wait; always the same, so that leftovers are found."""
    return f"_quayside_new_{blake2b(qualified.encode(), digest_size=8).hexdigest()}"


@dataclass(frozen=True)
class _Place:
    """Where a publication goes, quoted: the table, and the one its rows wait in."""

    schema: str
    name: str
    staging_name: str

    @property
    def final(self) -> str:
        return f"{identifier(self.schema)}.{identifier(self.name)}"

    @property
    def staging(self) -> str:
        return f"{identifier(self.schema)}.{identifier(self.staging_name)}"


def _check_ours(postgres: psycopg.Connection[Any], schema: str, name: str) -> None:
    row = postgres.execute(
        "SELECT c.relkind = 'r' AND coalesce(obj_description(c.oid, 'pg_class'), '') LIKE %s || '%%' "
        "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s",
        [_MARK, schema, name],
    ).fetchone()
    if row is not None and not row[0]:
        raise UsageError(
            f"{schema}.{name} exists in PostgreSQL and was not published from the lake: choose another name with --to."
        )


def _copy(
    lake: Lake, con: duckdb.DuckDBPyConnection, postgres: psycopg.Connection[Any], at: TableAt, place: _Place
) -> int:
    columns = {name: for_postgres(name, type_) for name, type_ in at.columns.items()}
    listed = ", ".join(f"{identifier(name)} {type_}" for name, (type_, _) in columns.items())
    _run(postgres, f"CREATE TABLE {place.staging} ({listed})")
    lake.attach_postgres(con, "publication")
    try:
        selected = ", ".join(expression for _, expression in columns.values())
        row = con.execute(
            f"INSERT INTO publication.{place.staging} SELECT {selected} FROM {at.relation}"  # noqa: S608  quoted
        ).fetchone()
    except duckdb.Error as error:
        if is_connection_lost(error):
            raise ServiceUnavailableError(
                f"PostgreSQL was lost while {at.qualified} was copied: try again."
            ) from error
        raise InputError(f"{at.qualified} cannot be published: {reason(error)}.") from error
    assert row is not None
    return int(row[0])


def _exchange(postgres: psycopg.Connection[Any], at: TableAt, place: _Place) -> None:
    from psycopg import errors

    try:
        with postgres.transaction():
            _run(postgres, f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'")
            if _columns(postgres, place.final) == _columns(postgres, place.staging) and _is_leaned_on(
                postgres, place
            ):
                # DELETE, not TRUNCATE: a reader whose transaction began before keeps seeing the old rows.
                _run(postgres, f"DELETE FROM {place.final}")  # noqa: S608  quoted
                _run(postgres, f"INSERT INTO {place.final} SELECT * FROM {place.staging}")  # noqa: S608
            else:
                _run(postgres, f"DROP TABLE IF EXISTS {place.final}")
                _run(postgres, f"ALTER TABLE {place.staging} RENAME TO {identifier(place.name)}")
            comment = f"{_MARK}{at.qualified} at snapshot {at.snapshot_id}"
            _run(postgres, f"COMMENT ON TABLE {place.final} IS {literal(comment)}")
    except errors.DependentObjectsStillExist as error:
        detail = (error.diag.message_detail or "").splitlines()
        raise SchemaError(
            f"Columns of {at.qualified} changed while objects depend on the published table "
            f"({'; '.join(detail)}): drop them, publish again, and make them anew."
        ) from error
    except errors.LockNotAvailable as error:
        raise ConflictError(
            f"{place.schema}.{place.name} was in use for {_LOCK_SECONDS} s: publish again later."
        ) from error


def _columns(postgres: psycopg.Connection[Any], table: str) -> list[tuple[str, str]]:
    return postgres.execute(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
        "WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        [table],
    ).fetchall()


def _is_leaned_on(postgres: psycopg.Connection[Any], place: _Place) -> bool:
    """Whether views read the table or somebody was granted rights on it."""
    row = postgres.execute(
        "SELECT c.relacl IS NOT NULL OR EXISTS (SELECT FROM pg_depend d WHERE d.refobjid = c.oid "
        "AND d.classid = 'pg_rewrite'::regclass) FROM pg_class c WHERE c.oid = to_regclass(%s)",
        [place.final],
    ).fetchone()
    return row is not None and row[0]


def _run(postgres: psycopg.Connection[Any], statement: str) -> None:
    postgres.execute(statement.encode())  # as bytes: psycopg's type for text admits only literals
