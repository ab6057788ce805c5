"""Backups: whole or not there, checked before anything is replaced; in a folder and on S3. Sizes as they are stored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.conftest import make_settings
from tests.foundation.s3_server import s3_settings  # noqa: F401  a fixture
from tests.robosystems.shared import module_settings  # noqa: F401  a fixture

from quayside.foundation.errors import CheckFailedError, InputError, NotFoundError
from quayside.foundation.objects import ObjectStore
from quayside.foundation.postgres import connect
from quayside.foundation.settings import Settings
from quayside.robosystems.graphs import GraphCorruptError, GraphSchema, GraphStore, NodeTable
from quayside.robosystems.graphs.backup import back_up, backups, delete_backup, restore
from quayside.robosystems.graphs.sizes import StoredSizes

SCHEMA = GraphSchema("one", (NodeTable("Person", {"id": "STRING"}, "id"),))


@pytest.fixture
def graphs(tmp_path: Path) -> GraphStore:
    store = GraphStore(tmp_path / "graphs", buffer_pool_bytes=64 * 2**20)
    store.create("kg1", SCHEMA)
    store.write("kg1", "CREATE (:Person {id: 'a'})")
    return store


@pytest.fixture(
    params=[pytest.param("folder", marks=pytest.mark.unit), pytest.param("s3", marks=pytest.mark.integration)]
)
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "folder":
        return ObjectStore(str(tmp_path / "objects"), make_settings(QUAYSIDE_HOME=str(tmp_path)))
    return ObjectStore(f"s3://lake/{tmp_path.name}", request.getfixturevalue("s3_settings"))


@pytest.fixture
def folder(tmp_path: Path) -> ObjectStore:
    return ObjectStore(str(tmp_path / "objects"), make_settings(QUAYSIDE_HOME=str(tmp_path)))


def ids(graphs: GraphStore, graph_id: str = "kg1") -> list[str]:
    return graphs.query(graph_id, "MATCH (p:Person) RETURN p.id AS id ORDER BY id").column("id").to_pylist()


def test_back_up_and_restore(graphs: GraphStore, objects: ObjectStore) -> None:
    with graphs.session("kg1") as session:  # a writer at work does not matter
        session.write("CREATE (:Person {id: 'not yet there'})")
        first = back_up(graphs, objects, "kg1")
    graphs.write("kg1", "CREATE (:Person {id: 'b'})")
    second = back_up(graphs, objects, "kg1", backup_id="named")
    assert back_up(graphs, objects, "kg1", backup_id="named") == second
    assert [b.backup_id for b in backups(objects, "kg1")] == [first.backup_id, "named"]
    assert (first.counts, second.counts) == ({"Person": 1}, {"Person": 3})
    assert restore(graphs, objects, "kg1", backup_id=first.backup_id) == first
    assert ids(graphs) == ["a"]
    restore(graphs, objects, "kg1", into="kg2")  # the last one, into another graph
    assert ids(graphs, "kg2") == ["a", "b", "not yet there"]
    graphs.drop("kg1")
    restore(graphs, objects, "kg1", backup_id="named")
    assert graphs.write("kg1", "MATCH (p:Person) DELETE p RETURN count(*) AS n").num_rows == 1
    delete_backup(objects, "kg1", "named")
    assert [b.backup_id for b in backups(objects, "kg1")] == [first.backup_id]
    with pytest.raises(NotFoundError):
        restore(graphs, objects, "kg1", backup_id="named")


@pytest.mark.unit
@pytest.mark.parametrize("damage", ["changed", "short", "counts", "manifest", "cut off"])
def test_a_damaged_backup_is_refused_and_the_graph_stays(
    graphs: GraphStore, folder: ObjectStore, damage: str
) -> None:
    backup = back_up(graphs, folder, "kg1", backup_id="b1")
    manifest = backup.key.replace(".lbug", ".json")
    content = folder.get(backup.key)
    kind, message = CheckFailedError, r"b1 of graph kg1 is damaged"
    if damage == "changed":
        folder.put(backup.key, content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])
    elif damage == "short":
        folder.put(backup.key, content[:-1])
    elif damage == "counts":
        folder.put(
            manifest, json.dumps(json.loads(folder.get(manifest)) | {"counts": {"Person": 2}}).encode()
        )
        message = r"holds \{'Person': 1\} and should hold"
    elif damage == "manifest":
        folder.put(manifest, b"{}")
        kind, message = InputError, "is not the manifest"
    else:  # the process was killed between file and manifest
        folder.delete(manifest)
        kind, message = NotFoundError, "There is no"
    graphs.write("kg1", "CREATE (:Person {id: 'b'})")
    with pytest.raises(kind, match=message):
        restore(graphs, folder, "kg1", backup_id="b1")
    assert ids(graphs) == ["a", "b"]
    assert list((graphs.folder / ".scratch").iterdir()) == []


@pytest.mark.unit
def test_a_corrupt_graph_is_not_backed_up_and_its_backup_mends_it(
    graphs: GraphStore, folder: ObjectStore
) -> None:
    back_up(graphs, folder, "kg1")
    (graphs.folder / "kg1" / "current").resolve().write_bytes(b"LBUG of which nothing is left")
    with pytest.raises(GraphCorruptError):
        back_up(graphs, folder, "kg1")
    assert len(backups(folder, "kg1")) == 1
    restore(graphs, folder, "kg1")
    assert ids(graphs) == ["a"]
    with pytest.raises(NotFoundError, match="no backup of graph kg9"):
        restore(graphs, folder, "kg9")


@pytest.fixture
def con(module_settings: Settings) -> Iterator[psycopg.Connection[Any]]:  # noqa: F811  the fixture
    with connect(module_settings, autocommit=True) as con, con.transaction(force_rollback=True):
        yield con


@pytest.mark.integration
@pytest.mark.parametrize("many", [False, True])
def test_sizes_by_part_and_none_of_what_does_not_answer(
    con: psycopg.Connection[Any], graphs: GraphStore, folder: ObjectStore, many: bool
) -> None:
    """failure 31, 49"""
    graphs.create("kg1_sub", SCHEMA)
    con.execute(
        "INSERT INTO robosystems.graphs (graph_id, customer_id, parent_graph_id, deleted_at) VALUES"
        " ('kg1', 'c', NULL, NULL), ('kg1_sub', 'c', 'kg1', NULL), ('kg1_gone', 'c', 'kg1', now())"
    )
    folder.put("graph-files/kg1/a/b.csv", b"x" * 100)
    folder.put("graph-files/kg1/c.csv", b"x" * 10)
    folder.put("graph-tables/kg1/t.parquet", b"x" * 7)
    folder.put("graph-files/kg11/other.csv", b"x" * 1000)
    wanted = ["kg1", "kg2", *(f"none{i}" for i in range(30 if many else 0))]
    found = {sizes.graph_id: sizes for sizes in StoredSizes(con, graphs, folder).read(wanted)}
    one = found["kg1"]
    assert (one.files_bytes, one.tables_bytes, one.problem) == (110, 7, None)
    assert (one.graph_bytes, one.subgraphs_bytes) == (graphs.size_bytes("kg1"), graphs.size_bytes("kg1_sub"))
    assert (found["kg2"].graph_bytes, found["kg2"].problem) == (
        None,
        f"There is no graph kg2 in {graphs.folder}.",
    )
    graphs.drop("kg1_sub")  # a part that does not answer leaves no sum
    (broken,) = StoredSizes(con, graphs, folder).read(["kg1"])
    assert broken.graph_bytes is None
    assert "kg1_sub" in (broken.problem or "")


@pytest.mark.integration
def test_a_store_that_does_not_answer_leaves_every_graph_unmeasured(
    con: psycopg.Connection[Any],
    graphs: GraphStore,
    s3_settings: Settings,  # noqa: F811  the fixture
) -> None:
    away = ObjectStore("s3://there-is-no-such-bucket", s3_settings)
    (found,) = StoredSizes(con, graphs, away).read(["kg1"])
    assert found.problem is not None
    assert found.graph_bytes is None
