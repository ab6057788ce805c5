"""Schemas and their migrations."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from quayside.cli.db import registered_schemas
from quayside.foundation.errors import SchemaError
from quayside.foundation.postgres import SchemaSpec, connect, ensure_schema, migrate, schema_status
from quayside.foundation.postgres.schema import revisions
from quayside.foundation.settings import Settings

REVISION = """
from alembic import op

revision = {revision!r}
down_revision = {down_revision!r}

def upgrade():
    op.execute({statement!r})
"""


@pytest.fixture
def invented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SchemaSpec]:
    """A schema of two revisions in a package of its own, as any system would write it."""
    name = f"invented_{secrets.token_hex(4)}"
    folder = tmp_path / name / "versions"
    folder.mkdir(parents=True)
    (tmp_path / name / "__init__.py").write_text("")
    statements = [f"CREATE TABLE {name}.first (n int)", f"CREATE TABLE {name}.second (n int)"]
    for number, statement in enumerate(statements, 1):
        text = REVISION.format(revision=f"{number:04}", down_revision=f"{number - 1:04}", statement=statement)
        (folder / f"{number:04}_step.py").write_text(text.replace("'0000'", "None"))
    monkeypatch.syspath_prepend(tmp_path)
    yield SchemaSpec(name, name, "0002")
    sys.modules.pop(name, None)


def before_the_second_revision(spec: SchemaSpec) -> SchemaSpec:
    """The code as it was then; the file is put aside."""
    second = spec.versions / "0002_step.py"
    second.rename(second.with_suffix(".aside"))
    return replace(spec, head="0001")


def after_the_second_revision(spec: SchemaSpec) -> SchemaSpec:
    aside = spec.versions / "0002_step.aside"
    aside.rename(aside.with_suffix(".py"))
    return replace(spec, head="0002")


def tables(settings: Settings, spec: SchemaSpec) -> set[str]:
    with connect(settings) as connection:
        found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", [spec.name])
        return {row[0] for row in found}


@pytest.mark.unit
@pytest.mark.parametrize("spec", registered_schemas(), ids=lambda spec: spec.name)
def test_written_head_is_the_newest_revision(spec: SchemaSpec) -> None:
    assert revisions(spec).get_heads() == [spec.head]


@pytest.mark.integration
@pytest.mark.parametrize("spec", registered_schemas(), ids=lambda spec: spec.name)
def test_every_schema_migrates_from_nothing(empty_settings: Settings, spec: SchemaSpec) -> None:
    assert schema_status(empty_settings, spec).state == "missing"
    assert migrate(empty_settings, spec).state == "missing"
    assert migrate(empty_settings, spec).state == "current"
    ensure_schema(empty_settings, spec)


@pytest.mark.integration
def test_the_embedded_server_migrates_by_itself(session_settings: Settings, invented: SchemaSpec) -> None:
    old = before_the_second_revision(invented)
    ensure_schema(session_settings, old)
    assert tables(session_settings, old) == {"alembic_version", "first"}
    new = after_the_second_revision(old)
    assert schema_status(session_settings, new).state == "older"
    ensure_schema(session_settings, new)
    assert tables(session_settings, new) == {"alembic_version", "first", "second"}
    assert schema_status(session_settings, new).revision == "0002"


@pytest.mark.slow
@pytest.mark.integration
def test_many_processes_migrate_once(
    session_settings: Settings, invented: SchemaSpec, tmp_path: Path
) -> None:
    code = (
        "from quayside.foundation.settings import load_settings; "
        "from quayside.foundation.postgres import SchemaSpec, ensure_schema; "
        f"ensure_schema(load_settings(), SchemaSpec({invented.name!r}, {invented.package!r}, '0002'))"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "QUAYSIDE_HOME": str(session_settings.home)}
    running = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert [process.communicate(timeout=300)[1] for process in running] == [""] * 4
    assert tables(session_settings, invented) == {"alembic_version", "first", "second"}


@pytest.mark.integration
def test_your_own_server_is_not_changed_unasked(empty_settings: Settings, invented: SchemaSpec) -> None:
    sentence = (
        r"in your PostgreSQL is missing and this Quayside needs revision 0001: run `quayside db migrate`\.$"
    )
    old = before_the_second_revision(invented)
    with pytest.raises(SchemaError, match=sentence):
        ensure_schema(empty_settings, old)
    assert schema_status(empty_settings, old).state == "missing"
    migrate(empty_settings, old)
    ensure_schema(empty_settings, old)

    new = after_the_second_revision(old)
    with pytest.raises(
        SchemaError, match=r"is at revision 0001 and .* needs revision 0002: run `quayside db migrate`"
    ):
        ensure_schema(empty_settings, new)
    migrate(empty_settings, new)
    ensure_schema(empty_settings, new)


@pytest.mark.integration
@pytest.mark.parametrize("where", ["session_settings", "empty_settings"])
def test_a_schema_newer_than_the_code_is_refused(
    request: pytest.FixtureRequest, where: str, invented: SchemaSpec
) -> None:
    settings: Settings = request.getfixturevalue(where)
    migrate(settings, invented)
    old = before_the_second_revision(invented)
    for act in (ensure_schema, migrate):
        with pytest.raises(
            SchemaError, match=r"is at revision 0002, which this Quayside does not know .* 0001"
        ):
            act(settings, old)
    assert tables(settings, old) == {"alembic_version", "first", "second"}


@pytest.mark.integration
def test_a_migration_that_fails_changes_nothing(empty_settings: Settings, invented: SchemaSpec) -> None:
    second = invented.versions / "0002_step.py"
    second.write_text(second.read_text().replace("CREATE TABLE", "CREATE TABEL"))
    with pytest.raises(SchemaError, match=r'syntax error at or near "TABEL"\. Nothing was changed\.$'):
        migrate(empty_settings, invented)
    assert schema_status(empty_settings, invented).state == "missing"
    assert tables(empty_settings, invented) == set()


@pytest.mark.integration
def test_a_schema_that_is_current_needs_no_alembic(session_settings: Settings, settings: Settings) -> None:
    del session_settings
    code = (
        "import sys; from quayside.foundation.settings import load_settings; "
        "from quayside.foundation.postgres import ensure_schema; "
        "from quayside.foundation.migrations import SCHEMA; ensure_schema(load_settings(), SCHEMA); "
        "sys.exit('alembic' in sys.modules or 'sqlalchemy' in sys.modules)"
    )
    assert settings.database_url is not None
    environment = os.environ | {"QUAYSIDE_DATABASE_URL": settings.database_url.get_secret_value()}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


@pytest.mark.integration
@pytest.mark.parametrize(
    "statement",
    ["UPDATE ops.audit SET actor = 'x'", "DELETE FROM ops.audit", "TRUNCATE ops.audit"],
)
def test_audit_is_append_only(settings: Settings, statement: str) -> None:
    with connect(settings, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO ops.audit (actor, action, subject_type, subject) VALUES ('a', 'b', 'c', 'd')"
        )
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match=r"ops\.audit is append-only"):
            connection.execute(statement.encode())
        assert connection.execute("SELECT count(*) FROM ops.audit").fetchone() == (1,)


@pytest.mark.integration
@pytest.mark.parametrize("quantity", ["NaN", "Infinity", "-1"])
def test_a_quantity_of_usage_is_a_number(settings: Settings, quantity: str) -> None:
    with connect(settings, autocommit=True) as connection, pytest.raises(psycopg.errors.CheckViolation):
        connection.execute("INSERT INTO usage.events VALUES ('e', 's', 'k', %s, 'x', now())", [quantity])
