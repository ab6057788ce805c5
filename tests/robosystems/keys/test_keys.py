"""API keys: what is stored, who gets in, and what dies with its row."""

from __future__ import annotations

import select
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr
from tests.conftest import make_settings
from tests.robosystems.shared import module_settings  # noqa: F401  a fixture

from quayside.foundation.errors import NotFoundError, SettingsError, UsageError
from quayside.foundation.postgres import connect
from quayside.foundation.secrets import redact
from quayside.foundation.settings import Settings
from quayside.robosystems.keys import ApiKeys, KeyCache, cleanup, hashing_secret
from quayside.robosystems.keys.store import InvalidKeyError

pytestmark = pytest.mark.integration
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECRET = SecretStr("a secret of the tests, thirty-two characters and more")


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def settings(module_settings: Settings) -> Settings:  # noqa: F811  the fixture
    return module_settings


@pytest.fixture
def con(settings: Settings) -> Iterator[psycopg.Connection[Any]]:
    with connect(settings, autocommit=True) as connection:
        yield connection
        connection.execute("DELETE FROM robosystems.api_keys")


@pytest.fixture
def keys(con: psycopg.Connection[Any], clock: Clock) -> ApiKeys:
    return ApiKeys(con, SECRET, clock)


def test_a_key_is_shown_once_and_nowhere_stored(con: psycopg.Connection[Any], keys: ApiKeys) -> None:
    """failure 10, 43: a key with an expiry works, in any time zone."""
    made = keys.create(
        "c", name="ci", expires_at=(NOW + timedelta(days=30)).astimezone(timezone(timedelta(hours=5)))
    )
    key = made.secret.get_secret_value()
    found = keys.authenticate(key)
    assert (found.key_id, found.customer_id, found.name) == (made.key.key_id, "c", "ci")
    assert found.expires_at == NOW + timedelta(days=30)
    everything = "".join(
        str(con.execute(f"SELECT * FROM {t}").fetchall()) for t in ("robosystems.api_keys", "ops.audit")
    )
    tail = key[17:]
    assert tail not in everything
    assert len(tail) == 43  # 256 bits
    assert tail not in redact(f"key {key}")
    assert tail not in repr(made)


@pytest.mark.parametrize("change", ["other secret", "other prefix", "empty", "shape", "case"])
def test_what_is_not_the_key_does_not_get_in(keys: ApiKeys, change: str) -> None:
    key = keys.create("c").secret.get_secret_value()
    other = keys.create("c").secret.get_secret_value()
    wrong = {
        "other secret": key[:17] + other[17:],
        "other prefix": other[:17] + key[17:],
        "empty": "",
        "shape": key + "x",
        "case": key.upper(),
    }[change]
    with pytest.raises(InvalidKeyError, match="unknown, expired or revoked"):
        keys.authenticate(wrong)


def test_expiry_and_revocation_end_a_key(keys: ApiKeys, clock: Clock) -> None:
    made = keys.create("c", expires_at=NOW + timedelta(hours=1))
    key = made.secret.get_secret_value()
    clock.now = NOW + timedelta(hours=1) - timedelta(microseconds=1)
    keys.authenticate(key)
    clock.now = NOW + timedelta(hours=1)
    with pytest.raises(InvalidKeyError):
        keys.authenticate(key)
    other = keys.create("c")
    first = keys.revoke(other.key.key_id)
    clock.now += timedelta(hours=1)
    assert keys.revoke(other.key.key_id) == first
    with pytest.raises(InvalidKeyError):
        keys.authenticate(other.secret.get_secret_value())


def test_requests_that_make_no_sense(keys: ApiKeys) -> None:
    with pytest.raises(NotFoundError, match="no customer 'x'"):
        keys.create("x")
    with pytest.raises(UsageError, match="could never be used"):
        keys.create("c", expires_at=NOW)
    with pytest.raises(UsageError, match="no time zone"):
        keys.create("c", expires_at=datetime(2030, 1, 1))
    with pytest.raises(NotFoundError, match="no API key 'k'"):
        keys.revoke("k")


def test_the_use_of_a_key_is_noted_now_and_then(keys: ApiKeys, clock: Clock) -> None:
    made = keys.create("c")
    for minutes in (0, 1, 4, 6):
        clock.now = NOW + timedelta(minutes=minutes)
        keys.authenticate(made.secret.get_secret_value())
    assert keys.get(made.key.key_id).last_used_at == NOW + timedelta(minutes=6)
    assert [k.key_id for k in keys.list("c")] == [made.key.key_id]
    assert keys.list("other") == []


def test_cleanup_deactivates_first_and_deletes_after_the_grace_time(
    con: psycopg.Connection[Any], keys: ApiKeys
) -> None:
    expired = keys.create("c", expires_at=NOW + timedelta(days=1)).key.key_id
    good = keys.create("c", expires_at=NOW + timedelta(days=90)).key.key_id
    at = NOW + timedelta(days=1)
    assert cleanup(con, at=at, dry_run=True).deactivated == [expired]
    assert keys.get(expired).deactivated_at is None
    first, again = cleanup(con, at=at), cleanup(con, at=at)
    assert (first.deactivated, first.deleted, again.deactivated, again.deleted) == ([expired], [], [], [])
    at += timedelta(days=30)
    assert cleanup(con, at=at).deleted == []
    assert cleanup(con, at=at + timedelta(seconds=1)).deleted == [expired]
    assert [k.key_id for k in keys.list()] == [good]
    actions = con.execute("SELECT details FROM ops.audit WHERE action = 'clean up' ORDER BY id").fetchall()
    assert [d[0] for d in actions] == [
        {"deactivated": [expired], "deleted": []},
        {"deactivated": [], "deleted": [expired]},
    ]


@pytest.mark.parametrize("how", ["revoked", "deleted", "expired"])
def test_a_cached_key_dies_with_its_row(settings: Settings, keys: ApiKeys, clock: Clock, how: str) -> None:
    """failure 43"""
    made = keys.create("c", expires_at=NOW + timedelta(days=1))
    other = keys.create("c").secret.get_secret_value()
    key = made.secret.get_secret_value()
    with connect(settings, autocommit=True) as listener, connect(settings, autocommit=True) as elsewhere:
        cache = KeyCache(listener, clock=clock)
        closed = connect(settings, autocommit=True)
        closed.close()
        nobody = ApiKeys(closed, SECRET, clock)
        for each in (key, other):
            cache.authenticate(keys, each)
            cache.authenticate(nobody, each)  # from memory: no question to the database
        if how == "revoked":
            ApiKeys(elsewhere, SECRET, clock).revoke(made.key.key_id)
        elif how == "deleted":
            elsewhere.execute("DELETE FROM robosystems.api_keys WHERE key_id = %s", [made.key.key_id])
        else:
            clock.now += timedelta(days=1)
        if how != "expired":  # what was told at the commit takes a moment to arrive
            assert select.select([listener.fileno()], [], [], 30)[0]
        with pytest.raises(InvalidKeyError):
            cache.authenticate(keys, key)
        cache.authenticate(nobody, other)


def test_without_the_line_to_the_database_nothing_is_answered_from_memory(
    settings: Settings, con: psycopg.Connection[Any], keys: ApiKeys
) -> None:
    made = keys.create("c")
    key = made.secret.get_secret_value()
    with connect(settings, autocommit=True) as listener:
        cache = KeyCache(listener)
        cache.authenticate(keys, key)
        row = listener.execute("SELECT pg_backend_pid()").fetchone()
        assert row is not None
        closed = select.poll()
        closed.register(listener.fileno(), select.POLLRDHUP)
        con.execute("SELECT pg_terminate_backend(%s)", row)
        assert closed.poll(30_000)
        keys.revoke(made.key.key_id)
        for _ in range(2):
            with pytest.raises(InvalidKeyError):
                cache.authenticate(keys, key)


def test_another_secret_is_said_to_be_that(con: psycopg.Connection[Any], keys: ApiKeys) -> None:
    key = keys.create("c").secret.get_secret_value()
    with pytest.raises(SettingsError, match="hashed with another secret: set QUAYSIDE_API_KEY_SECRET"):
        ApiKeys(con, SecretStr("y" * 40)).authenticate(key)


def test_where_the_secret_comes_from(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded = make_settings(QUAYSIDE_HOME=str(tmp_path))
    made = hashing_secret(embedded)
    assert hashing_secret(embedded) == made
    assert stat.S_IMODE((tmp_path / "api-keys.secret").stat().st_mode) == 0o600
    yours = make_settings(QUAYSIDE_HOME=str(tmp_path), QUAYSIDE_DATABASE_URL="postgresql://u@h/d")
    with pytest.raises(SettingsError, match="set QUAYSIDE_API_KEY_SECRET to its name"):
        hashing_secret(yours)
    named = yours.model_copy(update={"api_key_secret": "env:TEST_KEY_SECRET"})
    monkeypatch.setenv("TEST_KEY_SECRET", "short")
    with pytest.raises(SettingsError, match="shorter than 32"):
        hashing_secret(named)
    monkeypatch.setenv("TEST_KEY_SECRET", "z" * 32)
    assert hashing_secret(named).get_secret_value() == "z" * 32
