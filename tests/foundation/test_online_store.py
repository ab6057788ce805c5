"""Values served by key, on a real Valkey."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
import redis

from quayside.foundation import online_store
from quayside.foundation.errors import ServiceUnavailableError
from quayside.foundation.online_store import OnlineStore, RedisOnlineStore
from quayside.foundation.settings import Settings
from quayside.foundation.valkey import client

pytestmark = pytest.mark.integration


@pytest.fixture
def valkey(session_settings: Settings) -> Iterator[redis.Redis]:
    with client(session_settings) as connection:
        yield connection


@pytest.fixture
def view(valkey: redis.Redis) -> Iterator[str]:
    """A view of this test's own on the session's server."""
    name = f"view_{secrets.token_hex(6)}"
    yield name
    for key in valkey.scan_iter(f"quayside:online:{name}:*"):
        valkey.delete(key)


def test_what_is_written_is_read_in_order_and_with_its_types(valkey: redis.Redis, view: str):
    store: OnlineStore = RedisOnlineStore(valkey)
    values = {"score": 712, "volume": 1.5, "band": "good", "kyc": True, "depth": None}
    assert store.write(view, [("p1", values), ("p:2 ü", {"score": 1})]) == 2
    asked = ["band", "score", "kyc", "volume", "depth", "unknown"]
    assert store.read(view, ["p:2 ü", "nobody", "p1"], asked) == [
        {"band": None, "score": 1, "kyc": None, "volume": None, "depth": None, "unknown": None},
        None,
        {"band": "good", "score": 712, "kyc": True, "volume": 1.5, "depth": None, "unknown": None},
    ]


def test_writing_again_replaces_and_keeps_nothing_of_before(valkey: redis.Redis, view: str):
    store = RedisOnlineStore(valkey)
    store.write(view, [("p1", {"a": 1, "b": 2})])
    store.write(view, [("p1", {"b": 3})])
    assert store.read(view, ["p1"], ["a", "b"]) == [{"a": None, "b": 3}]


def test_a_key_without_values_is_still_there(valkey: redis.Redis, view: str):
    store = RedisOnlineStore(valkey)
    store.write(view, [("p1", {})])
    assert store.read(view, ["p1"], []) == [{}]


def test_keys_end_by_themselves_a_week_after_the_last_write(valkey: redis.Redis, view: str):
    RedisOnlineStore(valkey).write(view, [("p1", {"a": 1})])
    [key] = valkey.scan_iter(f"quayside:online:{view}:*")
    assert online_store.TTL_SECONDS - 60 < valkey.ttl(key) <= online_store.TTL_SECONDS == 7 * 86400


def test_many_keys_go_in_chunks(valkey: redis.Redis, view: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(online_store, "CHUNK", 10)
    store = RedisOnlineStore(valkey)
    keys = [str(i) for i in range(25)]
    assert store.write(view, ((key, {"n": int(key)}) for key in keys)) == 25
    assert store.read(view, keys, ["n"]) == [{"n": i} for i in range(25)]
    assert store.remove(view, [*keys[:12], "nobody"]) == 12
    assert [row is None for row in store.read(view, keys, ["n"])] == [True] * 12 + [False] * 13


def test_a_view_is_a_plain_name_and_a_value_is_json(valkey: redis.Redis, view: str):
    store = RedisOnlineStore(valkey)
    with pytest.raises(ValueError, match="without a colon"):
        store.read("a:b", ["x"], ["y"])
    with pytest.raises(ValueError):
        store.write(view, [("p1", {"a": float("nan")})])


@pytest.mark.slow
def test_a_server_that_does_not_answer_is_one_sentence(view: str):
    store = RedisOnlineStore(redis.Redis(port=1))
    with pytest.raises(ServiceUnavailableError, match="online store does not answer"):
        store.read(view, ["p1"], ["a"])
