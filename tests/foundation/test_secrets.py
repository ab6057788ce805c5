"""Secrets by name, and their removal from text."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import SecretStr

from quayside.foundation import secrets
from quayside.foundation.errors import SettingsError

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_known", set())


def test_a_secret_comes_from_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("API_KEY", "from-the-environment")
    (tmp_path / "key").write_text("line one\nline two\n")
    assert secrets.resolve("env:API_KEY").get_secret_value() == "from-the-environment"
    assert secrets.resolve(f"file:{tmp_path}/key").get_secret_value() == "line one\nline two"
    assert "from-the" not in repr(secrets.resolve("env:API_KEY"))


def test_what_is_resolved_is_redacted_from_then_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("API_KEY", "Zm9vYmFy")
    assert secrets.redact("key Zm9vYmFy.") == "key Zm9vYmFy."
    secrets.resolve("env:API_KEY")
    assert secrets.redact("key Zm9vYmFy.") == "key ***."


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda folder: None, "cannot be read: No such file or directory"),
        (lambda folder: (folder / "it").mkdir(), "is not a regular file"),
        (lambda folder: os.mkfifo(folder / "it"), "is not a regular file"),
        (lambda folder: (folder / "it").write_text("\n"), "is empty"),
        (lambda folder: (folder / "it").write_bytes(b"\xff\xfe\x00"), "is not UTF-8 text"),
        (lambda folder: (folder / "it").write_bytes(b"x" * 70_000), "of at most 65536 bytes"),
    ],
)
def test_an_unusable_file_is_one_sentence(make, sentence: str, tmp_path: Path):
    make(tmp_path)
    with pytest.raises(SettingsError, match=sentence):
        secrets.resolve(f"file:{tmp_path}/it")


def test_a_missing_variable_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NOT_THERE", raising=False)
    with pytest.raises(SettingsError, match="export the variable NOT_THERE"):
        secrets.resolve("env:NOT_THERE")


@pytest.mark.parametrize("pasted", ["hunter2secret", "env:", "file:", "vault:hunter2secret", ""])
def test_a_secret_pasted_instead_of_its_name_is_not_repeated(pasted: str):
    with pytest.raises(SettingsError) as raised:
        secrets.resolve(pasted)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("postgresql://me:s3cret@db:5432/x", "postgresql://me:***@db:5432/x"),
        ("redis://:s3cret@db", "redis://:***@db"),
        ("see https://hooks.slack.com/services/T0/B0/xyz now", "see https://hooks.slack.com/*** now"),
        ("token xoxb-12-34-abcDEF", "token xoxb-***"),
        ("Authorization: Bearer abcdefgh.ijk", "Authorization: Bearer ***"),
        ("host=db password=s3cret user=me", "host=db password=*** user=me"),
        ('{"api_key": "s3cret"}', '{"api_key": "***"}'),
        ("AKIAIOSFODNN7EXAMPLE", "AKIA***"),
        ("https://example.com/a:b@c stays", "https://example.com/a:b@c stays"),
        ("a token was missing", "a token was missing"),
    ],
)
def test_what_looks_like_a_secret_is_redacted(text: str, expected: str):
    assert secrets.redact(text) == expected


def test_the_password_of_a_known_url_is_redacted_wherever_it_stands():
    secrets.remember(SecretStr("postgresql://me:p%40ssw0rd@db/x"))
    assert secrets.redact("password p@ssw0rd refused, p%40ssw0rd too") == "password *** refused, *** too"


def test_short_values_do_not_blank_out_ordinary_words():
    secrets.remember(SecretStr("a"))
    assert secrets.redact("a party") == "a party"
