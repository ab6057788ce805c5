"""Schemas and their migrations."""

from __future__ import annotations

import pytest

from quayside.cli.db import registered_schemas
from quayside.foundation.errors import SchemaError
from quayside.foundation.migrations import SCHEMA
from quayside.foundation.postgres import SchemaSpec, ensure_schema, migrate, schema_status
from quayside.foundation.postgres.schema import revisions
from quayside.foundation.settings import Settings


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
def test_your_own_server_is_not_changed_unasked(empty_settings: Settings) -> None:
    with pytest.raises(
        SchemaError, match=r"^Schema ops in your PostgreSQL is missing .* run `quayside db migrate`\.$"
    ):
        ensure_schema(empty_settings, SCHEMA)
    assert schema_status(empty_settings, SCHEMA).state == "missing"
