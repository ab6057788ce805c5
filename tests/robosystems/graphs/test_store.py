"""Graph databases: what sessions keep and throw away, beside readers, writers and kills."""

from __future__ import annotations

import datetime
import os
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quayside.foundation.errors import InputError, NotFoundError, SchemaError, UsageError
from quayside.robosystems.graphs import (
    SCHEMAS,
    GraphBusyError,
    GraphCorruptError,
    GraphQueryError,
    GraphSchema,
    GraphStore,
    NodeTable,
    RelTable,
)

pytestmark = pytest.mark.unit

PEOPLE = GraphSchema(
    "people",
    (NodeTable("Person", {"id": "STRING", "age": "INT64", "born": "DATE", "worth": "DECIMAL(18, 2)"}, "id"),),
    (RelTable("Knows", "Person", "Person", {"since": "INT64"}),),
)
PERSON, KNOWS = PEOPLE.node("Person"), PEOPLE.relationship("Knows")


@pytest.fixture
def store(tmp_path: Path) -> GraphStore:
    store = GraphStore(tmp_path / "graphs", buffer_pool_bytes=64 * 2**20)
    store.create("kg1", PEOPLE)
    return store


def count(store: GraphStore, graph_id: str = "kg1") -> int:
    return store.query(graph_id, "MATCH (n:Person) RETURN count(*) AS n").column("n")[0].as_py()


def people(*ids: str, age: int = 30) -> pa.Table:
    return pa.table({"id": list(ids), "age": [age] * len(ids)})


def files(store: GraphStore, graph_id: str = "kg1") -> list[str]:
    return sorted(p.name for p in (store.folder / graph_id).iterdir())


def test_what_is_written_is_read_with_parameters(store: GraphStore) -> None:
    hostile = "x'} ) DETACH DELETE n //"
    store.write(
        "kg1", "CREATE (:Person {id: $id, worth: $worth})", {"id": hostile, "worth": Decimal("12.50")}
    )
    rows = store.query(
        "kg1", "MATCH (p:Person {id: $id}) RETURN p.id AS id, p.worth AS worth", {"id": hostile}
    )
    assert rows.to_pylist() == [{"id": hostile, "worth": Decimal("12.50")}]
    none = store.query("kg1", "MATCH (p:Person {id: 'nobody'}) RETURN p.id AS id, p.age AS age")
    assert (none.num_rows, none.column_names) == (0, ["id", "age"])


def test_creating_again_keeps_rows_and_adds_what_is_missing(store: GraphStore) -> None:
    store.write("kg1", "CREATE (:Person {id: 'a'})")
    wider = GraphSchema(
        "wider",
        (
            NodeTable("Person", {"id": "STRING", "email": "STRING"}, "id"),
            NodeTable("Firm", {"id": "STRING"}, "id"),
        ),
        (KNOWS, RelTable("Owns", "Person", "Firm")),
    )
    assert store.create("kg1", wider) is False
    with store.reader("kg1") as session:
        assert session.counts() == {"Firm": 0, "Knows": 0, "Owns": 0, "Person": 1}
    assert store.query("kg1", "MATCH (p:Person) RETURN p.email AS e").to_pylist() == [{"e": None}]
    with store.session("kg1") as session:
        assert session.install(wider) == []


@pytest.mark.parametrize(
    "schema, message",
    [
        (GraphSchema("s", (NodeTable("Person", {"age": "INT64"}, "age"),)), "has the key id, not age"),
        (
            GraphSchema("s", (NodeTable("Person", {"id": "STRING", "age": "STRING"}, "id"),)),
            "age is INT64, not STRING",
        ),
        (GraphSchema("s", (NodeTable("Knows", {"id": "STRING"}, "id"),)), "is a rel table"),
        (
            GraphSchema(
                "s",
                (PERSON, NodeTable("Firm", {"id": "STRING"}, "id")),
                (RelTable("Knows", "Person", "Firm"),),
            ),
            "Knows joins",
        ),
    ],
)
def test_a_schema_that_contradicts_the_graph_is_refused_and_changes_nothing(
    store: GraphStore, schema: GraphSchema, message: str
) -> None:
    with pytest.raises(SchemaError, match=message):
        store.create("kg1", schema)
    with store.reader("kg1") as session:
        assert session.counts() == {"Knows": 0, "Person": 0}


def test_schemas_that_cannot_be() -> None:
    with pytest.raises(UsageError, match="key 'x' is not among its columns"):
        NodeTable("A", {"id": "STRING"}, "x")
    with pytest.raises(UsageError, match="joins Firm, which it has not"):
        GraphSchema("s", (PERSON,), (RelTable("Owns", "Person", "Firm"),))
    with pytest.raises(UsageError, match="names a table twice"):
        GraphSchema("s", (PERSON, PERSON))
    assert set(SCHEMAS) >= {"generic", "entity"}


def test_rows_in_bulk(store: GraphStore, tmp_path: Path) -> None:
    """Decimals and dates too, columns by name and not by place, and a file name that needs quoting."""
    path = tmp_path / "it's.parquet"
    table = pa.table(
        {
            "worth": pa.array([Decimal("1.25"), None], pa.decimal128(18, 2)),
            "born": [datetime.date(2024, 2, 29), None],
            "id": ["a", "b"],
        }
    )
    pq.write_table(table, path)
    edges = tmp_path / "edges.parquet"
    pq.write_table(pa.table({"since": [1], "to": ["b"], "from": ["a"]}), edges)
    with store.session("kg1") as session:
        assert session.copy_from_parquet("Person", path) == 2
        assert session.copy_from_parquet("Knows", edges) == 1
    rows = store.query(
        "kg1",
        "MATCH (a:Person)-[k:Knows]->(b:Person) RETURN a.worth AS w, a.born AS d, k.since AS s, b.id AS b",
    )
    assert rows.to_pylist() == [{"w": Decimal("1.25"), "d": datetime.date(2024, 2, 29), "s": 1, "b": "b"}]
    with pytest.raises(InputError, match="cannot be read as Parquet"), store.session("kg1") as session:
        session.copy_from_parquet("Person", tmp_path / "none.parquet")


def test_merging_inserts_changes_and_takes_the_last_of_several(store: GraphStore) -> None:
    with store.session("kg1") as session:
        session.merge_nodes(PERSON, people("a", "b", "c"))
        session.merge_nodes(PERSON, pa.table({"id": ["b", "d", "d"], "age": [31, 1, 2]}))
        edges = pa.table({"from": ["a", "a"], "to": ["b", "c"], "since": [1, 2]})
        session.merge_relationships(KNOWS, PEOPLE, edges)
        session.merge_relationships(
            KNOWS, PEOPLE, pa.table({"from": ["a", "d", "d"], "to": ["b", "a", "a"], "since": [9, 3, 4]})
        )
    ages = store.query("kg1", "MATCH (p:Person) RETURN p.id AS id, p.age AS age ORDER BY p.id").to_pylist()
    assert [(r["id"], r["age"]) for r in ages] == [("a", 30), ("b", 31), ("c", 30), ("d", 2)]
    known = store.query(
        "kg1",
        "MATCH (a:Person)-[k:Knows]->(b:Person) RETURN a.id AS a, b.id AS b, k.since AS s ORDER BY a.id, b.id",
    ).to_pylist()
    assert [tuple(r.values()) for r in known] == [("a", "b", 9), ("a", "c", 2), ("d", "a", 4)]
    with pytest.raises(InputError, match="no value in 'id'"), store.session("kg1") as session:
        session.merge_nodes(PERSON, pa.table({"id": pa.array([None], pa.string()), "age": [1]}))


def test_a_session_that_fails_keeps_nothing_even_when_its_error_is_swallowed(store: GraphStore) -> None:
    """LadybugDB loses rows from its index when a COPY fails: what it then holds may never be published."""
    with store.session("kg1") as session:
        session.copy("Person", people(*(f"n{i}" for i in range(500))))

    def swallow() -> None:
        with store.session("kg1") as session:
            session.write("CREATE (:Person {id: 'kept?'})")
            with pytest.raises(GraphQueryError, match="duplicated primary key value n10"):
                session.copy("Person", people("n10"))

    def fall() -> None:
        with store.session("kg1") as session:
            session.write("CREATE (:Person {id: 'kept?'})")
            raise ZeroDivisionError

    with pytest.raises(GraphQueryError, match="failed before"):
        swallow()
    with pytest.raises(ZeroDivisionError):
        fall()
    assert count(store) == 500
    assert store.query("kg1", "MATCH (p:Person {id: 'n10'}) RETURN p.age AS age").num_rows == 1
    assert len(files(store)) == 2


@pytest.mark.parametrize(
    "statement, message",
    [
        ("MATCH (n:Nope) RETURN n", "Table Nope does not exist"),
        ("this is no Cypher", "Parser exception"),
        ("CREATE (:Person {age: 1})", "id"),
    ],
)
def test_a_refused_statement_is_one_sentence(store: GraphStore, statement: str, message: str) -> None:
    with pytest.raises(GraphQueryError, match=f"Graph kg1 refused a statement: .*{message}") as caught:
        store.write("kg1", statement)
    assert "\n" not in str(caught.value)


def test_a_reader_writes_nothing_and_sees_one_state(store: GraphStore) -> None:
    with pytest.raises(GraphQueryError, match="read-only"):
        store.query("kg1", "CREATE (:Person {id: 'a'})")
    with store.reader("kg1") as session:
        store.write("kg1", "CREATE (:Person {id: 'a'})")
        store.write("kg1", "CREATE (:Person {id: 'b'})")  # its own file is two publications old and removed
        assert session.counts()["Person"] == 0
    assert count(store) == 2


def test_a_query_that_takes_too_long_is_ended(store: GraphStore) -> None:
    endless = "UNWIND range(1, 100000) AS a UNWIND range(1, 100000) AS b RETURN sum(a * b)"
    with pytest.raises(GraphQueryError, match="Interrupted"):
        store.query("kg1", endless, timeout_seconds=0.05)


def test_names_that_lead_elsewhere_are_refused(store: GraphStore) -> None:
    for name in ("../up", "", ".locks", "a/b", "A", "x" * 65, "a\n"):
        with pytest.raises(InputError, match="no graph id"):
            store.exists(name)
    with pytest.raises(InputError, match="cannot be a name"), store.session("kg1") as session:
        session.install(GraphSchema("s", (NodeTable("a`b", {"id": "STRING"}, "id"),)))


def test_missing_dropped_and_listed(store: GraphStore) -> None:
    with pytest.raises(NotFoundError, match="no graph kg2"):
        store.query("kg2", "RETURN 1")
    with pytest.raises(NotFoundError, match="no graph kg2"), store.session("kg2"):
        pass
    assert not (store.folder / "kg2").exists()
    store.create("kg0", PEOPLE)
    assert store.graph_ids() == ["kg0", "kg1"]
    assert (store.drop("kg0"), store.drop("kg0")) == (True, False)
    assert store.graph_ids() == ["kg1"]


def test_size_in_bytes_and_none_of_what_is_no_database(store: GraphStore) -> None:
    before = store.size_bytes("kg1")
    with store.session("kg1") as session:
        session.copy("Person", people(*(f"n{i}" for i in range(20_000))))
    assert store.size_bytes("kg1") > before > 0
    with pytest.raises(NotFoundError):
        store.size_bytes("kg2")
    (store.folder / "kg1" / "current").resolve().write_bytes(b"")
    with pytest.raises(GraphCorruptError, match="restore its last backup"):
        store.size_bytes("kg1")


@pytest.mark.parametrize("damage", ["garbage", "half", "changed"])
def test_a_corrupt_database_is_one_sentence_for_readers_and_writers(store: GraphStore, damage: str) -> None:
    path = (store.folder / "kg1" / "current").resolve()
    content = path.read_bytes()
    path.write_bytes(
        {
            "garbage": b"x" * 5000,
            "half": content[: len(content) // 2],
            "changed": content[:4096] + b"\xff" * 9000,
        }[damage]
    )
    for use in (
        lambda: store.query("kg1", "MATCH (n:Person) RETURN n.id"),
        lambda: store.write("kg1", "RETURN 1"),
    ):
        with pytest.raises(
            GraphCorruptError, match=r"Graph kg1 is not a usable database \(.+\): restore"
        ) as caught:
            use()
        assert "\n" not in str(caught.value)


#: Opens a session, writes, says so, and waits to be killed (or, given "release", to be let go).
WRITER = """
import sys
from quayside.robosystems.graphs import GraphStore
store = GraphStore(sys.argv[1], buffer_pool_bytes=2**26)
with store.session("kg1") as session:
    session.write("CREATE (:Person {id: 'of the other'})")
    if sys.argv[2] == "checkpointed":
        session.query("CHECKPOINT")
    print("written", flush=True)
    sys.stdin.readline()
print("published", flush=True)
"""


def writer(store: GraphStore, how: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(store.folder), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    return process


def test_one_writer_at_a_time_over_processes_and_readers_beside_it(store: GraphStore) -> None:
    other = writer(store, "plain")
    assert count(store) == 0
    with (
        pytest.raises(GraphBusyError, match="written to by another process; waited 0"),
        store.session("kg1", wait_seconds=0),
    ):
        pass
    store.create("kg2", PEOPLE, wait_seconds=0)  # another database is another matter
    other.communicate("go\n")
    store.write("kg1", "CREATE (:Person {id: 'ours'})")
    assert count(store) == 2


@pytest.mark.parametrize("how", ["plain", "checkpointed"])
def test_a_killed_writer_leaves_a_usable_database(store: GraphStore, how: str) -> None:
    store.write("kg1", "CREATE (:Person {id: 'before'})")
    other = writer(store, how)
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    assert other.stdin is not None
    assert other.stdout is not None
    other.stdin.close()
    other.stdout.close()
    assert count(store) == 1
    store.write("kg1", "CREATE (:Person {id: 'after'})")
    assert count(store) == 2
    assert len(files(store)) == 2


def test_cursor_and_rows_are_published_together(store: GraphStore) -> None:
    with store.reader("kg1") as session:
        assert session.cursor("bank") is None

    def fall() -> None:
        with store.session("kg1") as session:
            session.set_cursor("bank", "1")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fall()
    with store.session("kg1") as session:
        assert session.cursor("bank") is None
        session.set_cursor("bank", "2")
        session.set_cursor("bank", "3")
    with store.reader("kg1") as session:
        assert session.cursor("bank") == "3"
