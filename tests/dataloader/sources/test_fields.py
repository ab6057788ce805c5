"""Names of secrets and what they lead to. cases 31 and 38: a missing secret is named, a value never is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import make_settings
from tests.dataloader.servers import load_request

from quayside.dataloader.errors import SourceUnavailableError
from quayside.dataloader.secrets import open_scope
from quayside.dataloader.sources import registry
from quayside.dataloader.sources.fields import PROTECTION, Field, resolve_fields, whole
from quayside.foundation.errors import InputError, SettingsError
from quayside.foundation.secrets import redact

pytestmark = pytest.mark.unit

FIELDS = (
    Field("host", required=True),
    Field("port", default="1"),
    Field("password"),
    Field("path", plain=True),
)
SECRET = "pl4nted-s3cret-of-fields"


def resolve(values: dict[str, Any], scope: str = "env") -> dict[str, str]:
    return resolve_fields("the_source", FIELDS, values, open_scope(make_settings(), scope))


def test_a_name_leads_to_its_value_and_a_password_is_masked_from_then_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("A_HOST", "db.internal.example")
    monkeypatch.setenv("A_PASSWORD", SECRET)
    found = resolve({"host": "A_HOST", "password": "A_PASSWORD", "path": "A_HOST"})
    assert found == {"host": "db.internal.example", "port": "1", "password": SECRET, "path": "A_HOST"}
    assert redact(f"{SECRET} at db.internal.example") == "*** at db.internal.example"


def test_a_scope_may_have_an_argument(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PROD_HOST", "h")
    assert resolve({"host": "HOST"}, "env:PROD_")["host"] == "h"
    (tmp_path / "host").write_text("from a file\n")
    assert resolve({"host": "host"}, f"file:{tmp_path}")["host"] == "from a file"
    assert resolve({"host": str(tmp_path / "host")}, "file")["host"] == "from a file"


@pytest.mark.parametrize(
    "values, scope, error, words",
    [
        ({}, "env", InputError, "host is missing"),
        (
            {"host": "NOT_SET_ANYWHERE"},
            "env",
            SettingsError,
            "field host: Secret env:NOT_SET_ANYWHERE is not set",
        ),
        ({"host": "nope"}, "file", SettingsError, "field host: Secret file:/run/secrets/nope cannot be read"),
        ({"host": "../etc/passwd"}, "file", SettingsError, "leaves the folder"),
        (
            {"host": "x"},
            "vault",
            SettingsError,
            "no scope of secrets 'vault': db_kv_scope is one of azure-keyvault, env, file",
        ),
        (
            {"host": {"value": "h"}, "password": {"value": SECRET}},
            "env",
            InputError,
            "password has to be the name",
        ),
        ({"host": {"value": "h"}, "hots": "x"}, "env", InputError, "hots is not a field of it"),
        ({"host": ["h"]}, "env", InputError, "host is neither the name of a secret nor"),
    ],
)
def test_what_is_wrong_is_named_and_no_value_is(values: Any, scope: str, error: type[Exception], words: str):
    with pytest.raises(error, match=words) as raised:
        resolve(values, scope)
    assert "the_source" in str(raised.value) or "vault" in scope
    assert SECRET not in str(raised.value)


def test_numbers_are_checked():
    values = resolve({"host": {"value": "h"}, "port": 5432})
    assert whole("s", values, "port") == 5432
    for wrong in ("0", "x", "1.5"):
        with pytest.raises(InputError, match="Field port of source s is not a whole number of at least 1"):
            whole("s", {"port": wrong}, "port")


def test_an_unknown_db_type_is_answered_with_the_list():
    with pytest.raises(InputError, match=r"db_type 'access': it is one of .*mysql.*postgresql"):
        registry.source_module("access")


@pytest.mark.parametrize("db_type", sorted(registry.MODULES))
def test_every_source_has_fields_and_opens(db_type: str):
    try:
        module = registry.source_module(db_type)
    except ImportError as error:
        pytest.fail(f"{db_type}: importing a source must not need its driver: {error}")
    assert callable(module.open)
    names = [name for field in module.FIELDS for name in (field.name, *field.aliases)]
    assert len(set(names)) == len(names)
    assert not any(field.secret and field.plain for field in module.FIELDS)


def test_protection_is_the_same_everywhere():
    servers = [module for name in ("postgresql", "mysql") for module in [registry.source_module(name)]]
    assert all(set(PROTECTION) <= set(module.FIELDS) for module in servers)


def test_errors_are_transient_or_not():
    from quayside.dataloader.sources.postgresql_errors import of_text
    from quayside.foundation.errors import PermanentError, TransientError

    fields = {"password": "short", "host": "h"}
    refused = of_text('FATAL:  password authentication failed for user "u" (short)', "s", fields)
    assert isinstance(refused, PermanentError)
    assert str(refused) == 'Source s refuses: password authentication failed for user "u" (***).'
    assert isinstance(of_text("server closed the connection unexpectedly", "s", fields), TransientError)
    assert isinstance(SourceUnavailableError("x"), TransientError)


def test_a_request_holds_no_secret():
    request = load_request("postgresql", {"host": "A_HOST", "password": "A_PASSWORD"})
    os.environ["A_PASSWORD"] = SECRET
    assert SECRET not in str(request.to_json())
