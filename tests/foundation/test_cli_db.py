"""``quayside db``, as a person calls it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quayside.cli.db import registered_schemas
from quayside.cli.main import run
from quayside.foundation.postgres import EmbeddedPostgres, connect
from quayside.foundation.settings import Settings
from quayside.foundation.valkey import EmbeddedValkey

pytestmark = pytest.mark.integration

Db = Callable[..., tuple[int, str, str]]


@pytest.fixture
def db(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Db:
    """``db(settings or home, *arguments)`` → exit code, standard output, standard error."""

    def call(where: Settings | Path, *arguments: str) -> tuple[int, str, str]:
        if isinstance(where, Settings):
            assert where.database_url is not None
            monkeypatch.setenv("QUAYSIDE_DATABASE_URL", where.database_url.get_secret_value())
        monkeypatch.setenv("QUAYSIDE_HOME", str(where.home if isinstance(where, Settings) else where))
        with pytest.raises(SystemExit) as ended:
            run(["db", *arguments])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call


@pytest.fixture
def home() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="cli-", dir=os.environ["QUAYSIDE_TEST_SESSION_HOME"]))
    folder.chmod(0o711)
    yield folder / "home"
    for server in (EmbeddedPostgres(folder / "home"), EmbeddedValkey(folder / "home")):
        server.stop()
    shutil.rmtree(folder)


@pytest.mark.slow
def test_start_status_migrate_stop(db: Db, home: Path) -> None:
    code, out, err = db(home, "start")
    assert code == 0
    assert out == (
        f"PostgreSQL was started ({home}/postgres/run).\nValkey was started (127.0.0.1:{EmbeddedValkey(home).port}).\n"
    )
    assert err == (
        f"quayside: creating an embedded PostgreSQL in {home}/postgres/data\n"
        f"quayside: creating an embedded Valkey in {home}/valkey/data\n"
    )
    assert db(home, "start")[1].count("runs already") == 2

    found = json.loads(db(home, "status", "--json")[1])
    specs = registered_schemas()
    assert {schema["name"]: schema["state"] for schema in found["schemas"]} == {
        spec.name: "missing" for spec in specs
    }
    assert found["postgres"]["pid"] == EmbeddedPostgres(home).status().pid
    assert found["postgres"]["version"].startswith("18.")
    assert found["postgres"]["folder"] == f"{home}/postgres/data"
    assert found["postgres"]["size_bytes"] > 1_000_000
    assert found["valkey"]["running"] is True

    assert db(home, "migrate") == (
        0,
        "".join(f"Schema {spec.name} went from nothing to revision {spec.head}.\n" for spec in specs),
        "",
    )
    assert [row["state"] for row in json.loads(db(home, "status", "--json")[1])["schemas"]] == [
        "current"
    ] * len(specs)
    assert "current" in db(home, "status")[1]

    assert db(home, "stop") == (0, "PostgreSQL is stopped.\nValkey is stopped.\n", "")
    assert db(home, "stop") == (0, "PostgreSQL was not running.\nValkey was not running.\n", "")
    found = json.loads(db(home, "status", "--json")[1])
    assert (found["postgres"]["running"], found["valkey"]["running"], found["schemas"]) == (False, False, [])


def test_status_and_stop_make_nothing(db: Db, home: Path) -> None:
    assert db(home, "status")[0] == 0
    assert db(home, "stop")[0] == 0
    assert not home.exists()


def test_a_server_of_yours(db: Db, empty_settings: Settings) -> None:
    code, out, _ = db(empty_settings, "migrate")
    assert (code, out.splitlines()[0]) == (0, "Schema ops went from nothing to revision 0001.")
    assert db(empty_settings, "migrate")[1].splitlines()[0] == "Schema ops is at revision 0001 already."
    found = json.loads(db(empty_settings, "status", "--json")[1])
    assert found["postgres"]["kind"] == "yours"
    assert {schema["state"] for schema in found["schemas"]} == {"current"}
    assert "url" not in str(found).lower()
    assert not empty_settings.home.exists()


def test_a_newer_schema_is_refused_with_one_sentence(db: Db, settings: Settings) -> None:
    with connect(settings, autocommit=True) as connection:
        connection.execute("UPDATE ops.alembic_version SET version_num = '9999'")
    code, out, err = db(settings, "migrate")
    assert (code, out) == (1, "")
    assert err == (
        "quayside: Schema ops is at revision 9999, which this Quayside does not know (it goes up to 0001): the database "
        "was changed by a newer version, use that one.\n"
    )
    schemas: list[dict[str, Any]] = json.loads(db(settings, "status", "--json")[1])["schemas"]
    assert [schema["state"] for schema in schemas] == ["newer"] + ["current"] * (len(schemas) - 1)


def test_services_of_yours_that_do_not_answer(db: Db, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUAYSIDE_DATABASE_URL", "postgresql://me:hunter-2@127.0.0.1:1/x")
    monkeypatch.setenv("REDIS_HOST", "127.0.0.1")
    monkeypatch.setenv("REDIS_PORT", "1")
    code, out, err = db(home, "migrate")
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert "hunter-2" not in err
    code, out, _ = db(home, "status", "--json")
    found = json.loads(out)
    assert code == 0
    assert "Connection refused" in found["postgres"]["problem"]
    assert "Redis at 127.0.0.1:1 does not answer" in found["valkey"]["problem"]
    assert db(home, "start")[1] == (
        "PostgreSQL is yours (QUAYSIDE_DATABASE_URL): nothing to start.\nValkey is yours (REDIS_HOST): nothing to start.\n"
    )
