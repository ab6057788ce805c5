"""Schemas in PostgreSQL and their migrations.

A system that keeps tables declares one `SchemaSpec` and writes Alembic revisions into ``<package>/versions``; nothing
else is needed, ``env.py`` is shared. The version table lives in the schema itself. On the embedded server a schema
brings itself up to date when it is first used; a server of yours is changed by ``quayside db migrate`` alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from quayside.foundation.errors import SchemaError, sentence
from quayside.foundation.postgres.connections import advisory_lock, connect, database_url, engine, is_embedded

if TYPE_CHECKING:
    import psycopg
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    from quayside.foundation.settings import Settings

VERSION_TABLE: Final = "alembic_version"
_ALEMBIC_FOLDER: Final = Path(__file__).parent / "alembic"

State = Literal["missing", "older", "current", "newer"]
_up_to_date: set[tuple[str, str, str]] = set()


@dataclass(frozen=True)
class SchemaSpec:
    """A schema that some code needs.

    Attributes:
        name: the PostgreSQL schema that holds the version table, and usually all tables.
        package: dotted name of the package with the folder ``versions``.
        head: newest revision. Written down so that the check on every start costs one query and no import of
            Alembic; a test holds it to the folder.
        settings_of: the settings whose PostgreSQL holds it, from the platform's; a system with a server of its own
            says which one here.
    """

    name: str
    package: str
    head: str
    settings_of: Callable[[Settings], Settings] = field(default=lambda settings: settings, compare=False)

    @property
    def versions(self) -> Path:
        """The folder with the revisions."""
        return Path(str(files(self.package))) / "versions"


@dataclass(frozen=True)
class SchemaStatus:
    """A schema as it is (``revision``, None when missing) and as this code needs it (``head``)."""

    name: str
    revision: str | None
    head: str
    state: State


def ensure_schema(
    settings: Settings, spec: SchemaSpec, connection: psycopg.Connection[Any] | None = None
) -> None:
    """Make sure the schema is what this code was written for; asked once per process, by `connection` if there is one.

    Raises:
        SchemaError: it is newer than this code, or older on a server of yours.
    """
    settings = spec.settings_of(settings)
    key = (database_url(settings), spec.name, spec.head)
    if key in _up_to_date:
        return
    status = schema_status(settings, spec) if connection is None else _status(connection, spec)
    if status.state == "newer":
        raise _newer(status)
    if status.state != "current":
        if not is_embedded(settings):
            found = "is missing" if status.revision is None else f"is at revision {status.revision}"
            raise SchemaError(
                f"Schema {spec.name} in your PostgreSQL {found} and this Quayside needs revision {spec.head}: "
                "run `quayside db migrate`."
            )
        migrate(settings, spec)
    _up_to_date.add(key)


def schema_status(settings: Settings, spec: SchemaSpec) -> SchemaStatus:
    """How the schema in the database compares with this code. Changes nothing."""
    with connect(spec.settings_of(settings), autocommit=True) as connection:
        return _status(connection, spec)


def migrate(settings: Settings, spec: SchemaSpec) -> SchemaStatus:
    """Bring the schema to this code's revision, in one transaction, one process at a time.

    Returns:
        What it was before.

    Raises:
        SchemaError: it is newer than this code, or the database refused a change; then nothing was changed.
    """
    from alembic import command
    from sqlalchemy.exc import DBAPIError

    settings = spec.settings_of(settings)
    with advisory_lock(settings, f"migrate {spec.name}"):
        before = schema_status(settings, spec)
        if before.state == "newer":
            raise _newer(before)
        if before.state != "current":
            config = alembic_config(spec)
            try:
                with engine(settings).begin() as connection:
                    config.attributes["connection"] = connection
                    command.upgrade(config, "head")
            except DBAPIError as error:
                reason = sentence(error.orig or error)
                raise SchemaError(
                    f"Schema {spec.name} could not be brought to revision {spec.head}: {reason}. Nothing was changed."
                ) from error
    return before


def alembic_config(spec: SchemaSpec) -> Config:
    """Alembic's configuration for one schema; made in memory, there is no ini file."""
    from alembic.config import Config

    config = Config(attributes={"schema": spec.name, "version_table": VERSION_TABLE})
    for option, value in {
        "script_location": str(_ALEMBIC_FOLDER),
        "version_locations": str(spec.versions),
        "path_separator": "newline",
    }.items():
        config.set_main_option(option, value.replace("%", "%%"))
    return config


def revisions(spec: SchemaSpec) -> ScriptDirectory:
    """The revisions this code knows."""
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(alembic_config(spec))


def _status(connection: psycopg.Connection[Any], spec: SchemaSpec) -> SchemaStatus:
    import psycopg
    from psycopg import sql
    from psycopg.rows import tuple_row

    table = sql.Identifier(spec.name, VERSION_TABLE)
    try:
        cursor = connection.cursor(row_factory=tuple_row)
        exists = cursor.execute("SELECT to_regclass(%s)", [table.as_string(connection)]).fetchone()
        row = None
        if exists is not None and exists[0] is not None:
            row = cursor.execute(sql.SQL("SELECT version_num FROM {}").format(table)).fetchone()
    except psycopg.errors.InsufficientPrivilege as error:
        raise SchemaError(
            f"Schema {spec.name} cannot be read by this database user: {sentence(error)}. Grant it, or change the "
            "user in QUAYSIDE_DATABASE_URL."
        ) from None
    revision = None if row is None else str(row[0])
    return SchemaStatus(spec.name, revision, spec.head, _state(revision, spec))


def _state(revision: str | None, spec: SchemaSpec) -> State:
    if revision is None:
        return "missing"
    if revision == spec.head:
        return "current"
    known = {script.revision for script in revisions(spec).walk_revisions()}
    return "older" if revision in known else "newer"


def _newer(status: SchemaStatus) -> SchemaError:
    return SchemaError(
        f"Schema {status.name} is at revision {status.revision}, which this Quayside does not know (it goes up to "
        f"{status.head}): the database was changed by a newer version, use that one."
    )


os.register_at_fork(after_in_child=_up_to_date.clear)
