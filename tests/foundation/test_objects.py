from __future__ import annotations

import os
import urllib.request
from datetime import timedelta
from pathlib import Path

import pytest
from tests.conftest import make_settings
from tests.foundation.s3_server import s3_settings  # noqa: F401  a fixture

from quayside.foundation.errors import (
    ConflictError,
    InputError,
    NotFoundError,
    ServiceUnavailableError,
    SettingsError,
    UsageError,
)
from quayside.foundation.objects import ObjectStore, S3Access
from quayside.foundation.settings import Settings


@pytest.fixture(
    params=[pytest.param("folder", marks=pytest.mark.unit), pytest.param("s3", marks=pytest.mark.integration)]
)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "folder":
        return ObjectStore(str(tmp_path / "store"), make_settings(QUAYSIDE_HOME=str(tmp_path)))
    settings = request.getfixturevalue("s3_settings")
    return ObjectStore(f"s3://lake/{tmp_path.name}", settings)


def test_put_get_list_delete(store: ObjectStore, tmp_path: Path) -> None:
    assert list(store.list()) == []
    store.put("a/one.bin", b"\x00\xff")
    big = tmp_path / "big.bin"
    big.write_bytes(os.urandom(6_000_000))
    store.put("a/two.bin", big)
    store.put("b c.txt", b"x")
    store.put("b c.txt", b"xyz")
    assert store.get("a/one.bin") == b"\x00\xff"
    assert store.get("a/two.bin") == big.read_bytes()
    assert {(o.key, o.size) for o in store.list()} == {
        ("a/one.bin", 2),
        ("a/two.bin", 6_000_000),
        ("b c.txt", 3),
    }
    assert {o.key for o in store.list("a")} == {"a/one.bin", "a/two.bin"}
    assert store.exists("b c.txt")
    store.delete("b c.txt")
    store.delete("b c.txt")
    assert not store.exists("b c.txt")
    with pytest.raises(NotFoundError, match=r"There is no b c\.txt in"):
        store.get("b c.txt")


def test_create_leaves_what_exists(store: ObjectStore) -> None:
    store.put("once", b"first", create=True)
    with pytest.raises(ConflictError, match="once exists"):
        store.put("once", b"second", create=True)
    assert store.get("once") == b"first"


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/passwd", "a//b", "", ".", "a\\b", "a\nb", "a/.."])
def test_keys_cannot_lead_out(store: ObjectStore, key: str) -> None:
    for call in (store.get, store.exists, store.delete):
        with pytest.raises(InputError, match="is not a key"):
            call(key)
    with pytest.raises(InputError, match="is not a key"):
        store.put(key, b"x")


@pytest.mark.unit
def test_links_out_of_a_folder_are_not_created_by_keys(tmp_path: Path) -> None:
    store = ObjectStore(f"file://{tmp_path}/store", make_settings(QUAYSIDE_HOME=str(tmp_path)))
    store.put("%2e%2e/x", b"1")
    assert [o.key for o in store.list()] == ["%2e%2e/x"]
    assert not (tmp_path / "x").exists()


@pytest.mark.integration
def test_presigned_url_needs_no_credentials_and_no_folder(
    s3_settings: Settings,  # noqa: F811
    tmp_path: Path,
) -> None:
    store = ObjectStore("s3://lake/signed", s3_settings)
    store.put("one", b"content")
    with urllib.request.urlopen(store.presigned_url("one", timedelta(minutes=1)), timeout=120) as answer:
        assert answer.read() == b"content"
    with pytest.raises(UsageError, match="is a folder"):
        ObjectStore(str(tmp_path), s3_settings).presigned_url("one", timedelta(minutes=1))


@pytest.mark.unit
def test_errors_are_one_sentence_without_secrets(tmp_path: Path) -> None:
    settings = make_settings(
        QUAYSIDE_HOME=str(tmp_path),
        AWS_ENDPOINT_URL="http://127.0.0.1:1",
        AWS_ACCESS_KEY_ID="test",
        AWS_SECRET_ACCESS_KEY="pl4nted-s3cret",
        AWS_SESSION_TOKEN="pl4nted-token",
    )
    assert "pl4nted" not in repr(S3Access.of(settings))
    store = ObjectStore("s3://lake/x", settings, timeout=timedelta(seconds=1))
    with pytest.raises(ServiceUnavailableError, match="one in s3://lake/x cannot be reached") as raised:
        store.get("one")
    assert "pl4nted" not in str(raised.value)
    assert "\n" not in str(raised.value)
    with pytest.raises(SettingsError, match="AWS_ACCESS_KEY_ID"):
        ObjectStore("s3://lake", make_settings(QUAYSIDE_HOME=str(tmp_path)))
    for url in ("s3://", "gs://bucket"):
        with pytest.raises(UsageError):
            ObjectStore(url, settings)
