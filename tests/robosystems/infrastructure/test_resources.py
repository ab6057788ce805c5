"""The resources, by the names and methods of the interface: in a folder and on S3 over the wire."""

from __future__ import annotations

import io
import urllib.error
import urllib.request
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy
from pydantic import SecretStr
from tests.foundation.s3_server import s3_settings  # noqa: F401  a fixture
from tests.robosystems.shared import module_settings  # noqa: F401  a fixture

from quayside.foundation.errors import InputError, NotFoundError, UsageError
from quayside.foundation.settings import Settings
from quayside.robosystems.dagster.resources import DatabaseResource, GraphResource, S3Resource
from quayside.robosystems.graphs import GraphSchema, NodeTable


@pytest.fixture
def database(module_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> DatabaseResource:  # noqa: F811  the fixture
    monkeypatch.setenv("QUAYSIDE_HOME", str(module_settings.home))
    assert module_settings.database_url is not None
    monkeypatch.setenv("URL_OF_THE_TESTS", module_settings.database_url.get_secret_value())
    return DatabaseResource(database_url_secret="env:URL_OF_THE_TESTS")


def names(database: DatabaseResource) -> list[str]:
    with database.get_session() as session:
        return list(
            session.scalars(sqlalchemy.text("SELECT customer_id FROM robosystems.customers ORDER BY 1"))
        )


@pytest.mark.integration
def test_a_session_commits_on_success_and_rolls_back_on_error(database: DatabaseResource) -> None:
    """failure 54: one pooled engine, and statements that run."""
    insert = sqlalchemy.text("INSERT INTO robosystems.customers (customer_id, name) VALUES (:id, :id)")

    def fail() -> None:
        with database.get_session() as session:
            session.execute(insert, {"id": "lost"})
            raise ZeroDivisionError

    with database.get_session() as session:
        session.execute(insert, {"id": "kept"})
        first = session.get_bind()
    with pytest.raises(ZeroDivisionError):
        fail()
    assert names(database) == ["c", "kept"]
    with database.get_session() as session:
        assert session.get_bind() is first
        session.execute(sqlalchemy.text("DELETE FROM robosystems.customers WHERE customer_id = 'kept'"))
        session.commit()  # by hand is as good
    with database.connection() as connection:
        connection.execute("INSERT INTO robosystems.customers (customer_id, name) VALUES ('d', 'D')")
    assert names(database) == ["c", "d"]


@pytest.fixture(
    params=[pytest.param("folder", marks=pytest.mark.unit), pytest.param("s3", marks=pytest.mark.integration)]
)
def s3(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> S3Resource:
    monkeypatch.setenv("QUAYSIDE_HOME", str(tmp_path / "home"))
    if request.param == "folder":
        return S3Resource()
    settings: Settings = request.getfixturevalue("s3_settings")
    for name in ("aws_endpoint_url", "aws_access_key_id", "aws_secret_access_key", "aws_region"):
        value = getattr(settings, name)
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        monkeypatch.setenv(name.upper(), text)
    monkeypatch.setenv("QUAYSIDE_OBJECTS_URL", f"s3://lake/{tmp_path.name}")
    return S3Resource()


def test_upload_list_download(s3: S3Resource, tmp_path: Path) -> None:
    """failure 55"""
    big = b"0123456789" * 700_000  # more than one part
    path = tmp_path / "big.bin"
    path.write_bytes(big)
    with path.open("rb") as file:
        url = s3.upload_file(file, "reports/b/big.bin")
    assert url.endswith("/reports/b/big.bin")
    s3.upload_file(io.BytesIO(b"small"), "reports/a.txt")
    s3.upload_file(io.BytesIO(b"smaller?"), "reports/a.txt")
    found = s3.list_objects("reports")
    assert [(o["key"], o["size"]) for o in found] == [("reports/a.txt", 8), ("reports/b/big.bin", len(big))]
    assert all(o["last_modified"].tzinfo is not None for o in found)
    assert s3.list_objects("none") == []
    into = io.BytesIO()
    assert s3.download_file("reports/b/big.bin", into) == len(big)
    assert into.getvalue() == big
    with pytest.raises(NotFoundError, match=r"no reports/none"):
        s3.download_file("reports/none", into)
    with pytest.raises(InputError, match="is not a key"):
        s3.upload_file(io.BytesIO(b""), "../up")


def test_presigned_urls(s3: S3Resource) -> None:
    s3.upload_file(io.BytesIO(b"for anybody"), "shared.txt")
    if not s3.store().url.startswith("s3://"):
        with pytest.raises(UsageError, match="only objects on S3 have presigned URLs"):
            s3.get_presigned_url("shared.txt")
        return
    with urllib.request.urlopen(s3.get_presigned_url("shared.txt", 60), timeout=120) as answer:
        assert answer.read() == b"for anybody"
    other = s3.get_presigned_url("none.txt")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(other, timeout=120)
    caught.value.close()


@pytest.mark.unit
def test_graphs_by_resource(tmp_path: Path) -> None:
    graph = GraphResource(folder=str(tmp_path / "graphs"))
    graph.store().create("kg1", GraphSchema("one", (NodeTable("P", {"id": "INT64"}, "id"),)))
    pq.write_table(pa.table({"id": [1, 2]}), tmp_path / "rows.parquet")
    assert graph.copy_from_parquet("kg1", "P", tmp_path / "rows.parquet") == 2
    graph.write("kg1", "CREATE (:P {id: $id})", {"id": 3})
    assert graph.query("kg1", "MATCH (p:P) RETURN count(*) AS n").to_pylist() == [{"n": 3}]
    assert graph.size_bytes("kg1") > 0
