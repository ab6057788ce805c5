"""What every test shares: one embedded PostgreSQL and Valkey per session, and `settings` of one's own on them.

The controller of a test session chooses the folder, its pytest-xdist workers inherit it, whoever needs the server
first starts it, and the controller takes everything away at the end. A test's database is a copy of a template in
which all schemas are migrated, which costs some 50 ms.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as properties
from hypothesis.internal.conjecture import providers

from quayside.foundation import processes
from quayside.foundation.postgres import EmbeddedPostgres
from quayside.foundation.settings import Settings
from quayside.foundation.valkey import EmbeddedValkey
from tests import scheduling

if TYPE_CHECKING:
    from quayside.foundation.lake import Lake

SESSION_HOME = "QUAYSIDE_TEST_SESSION_HOME"
FOLDER_PREFIX = "quayside-tests-"
TEMPLATE = "template_of_tests"
#: Fixtures for which the catalog of the lake is there from the start.
LAKES = {"lake", "kycc_lake"}


# A property is tried on the same examples every time, however slow the machine is. To look for more:
# `--hypothesis-profile=search --hypothesis-seed=…`.
_SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)
# Each example of those that take a fixture makes its own mess there, or none.
_SHARED = HealthCheck.function_scoped_fixture
properties.register_profile(
    "same",
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=(*_SLOW, _SHARED),
)
properties.register_profile("search", properties.get_profile("same"), derandomize=False)
properties.load_profile("same")
# It also draws constants it finds in the modules that are imported by then, which depends on the tests before.
providers._get_local_constants = providers.Constants


def pytest_configure(config: pytest.Config) -> None:
    # Nothing of the developer's may reach a test; what a test reads by accident leads to the session's own servers.
    foreign = {*Settings.variables().values(), "DATABASE_URL", "QUAYSIDE_DEBUG"}
    for name in [
        n for n in os.environ if n in foreign or n.startswith(("PG", "AWS_", "LAKEBASE_", "DAGSTER_"))
    ]:
        del os.environ[name]
    os.environ["QUAYSIDE_ENV_FILE"] = os.devnull
    if SESSION_HOME not in os.environ:
        _take_away_leftovers()
        new = Path(tempfile.mkdtemp(prefix=f"new-{FOLDER_PREFIX}"))
        new.chmod(0o711)  # as root, the server's own user has to pass
        lock = processes.try_lock(new / "session.lock")
        assert lock is not None
        # Under this name another session may look whether it is a leftover: locked before it has it.
        folder = new.rename(new.with_name(new.name.removeprefix("new-")))
        os.environ[SESSION_HOME] = str(folder)
        config.add_cleanup(lambda: _end_session(folder, lock))
    os.environ["QUAYSIDE_HOME"] = os.environ[SESSION_HOME]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    scheduling.in_order(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    return scheduling.scheduler(config, log)


def pytest_runtest_setup() -> None:
    # What ignores or blocks these in this process would make every process that a later test starts immortal. A shell
    # does it to its background jobs, a library could; what the kernel says counts, since Python knows of its own alone.
    ours = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    status = Path("/proc/self/status").read_text()
    masks = [int(mask, 16) for mask in re.findall(r"Sig(?:Ign|Blk):\s*(\w+)", status)]
    if any(mask >> (number - 1) & 1 for mask in masks for number in ours):
        for number in ours:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ours)


def _end_session(folder: Path, lock: int) -> None:
    _take_away(folder)
    os.close(lock)
    del os.environ[SESSION_HOME]


def _take_away_leftovers() -> None:
    """Servers and files of test sessions that were killed."""
    for note in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*/session.lock"):
        with suppress(FileNotFoundError):  # another session that begins now was faster
            if note.stat().st_uid == os.geteuid() and (lock := processes.try_lock(note)) is not None:
                _take_away(note.parent)
                os.close(lock)


def _take_away(folder: Path) -> None:
    for home in [folder, *folder.glob("*")]:
        _stop_servers(home)
    shutil.rmtree(folder)


def _stop_servers(home: Path) -> None:
    for server in (EmbeddedPostgres(home), EmbeddedValkey(home)):
        if server.home.is_dir():
            server.stop()


@pytest.fixture(scope="session")
def require_service() -> Callable[[str, bool, str], None]:
    """``require_service(name, available, reason)``: skip with the reason when a service is missing.

    It fails instead when QUAYSIDE_REQUIRE_SERVICES=1, so that a skip cannot hide in the project's own checks.
    """

    def require(name: str, available: bool, reason: str) -> None:
        if available:
            return
        if os.environ.get("QUAYSIDE_REQUIRE_SERVICES") == "1":
            pytest.fail(f"{name} is required and missing: {reason}")
        pytest.skip(f"{name} is missing: {reason}")

    return require


@pytest.fixture(scope="session")
def session_settings() -> Settings:
    """Settings whose embedded servers all tests of the session share. Most tests want `settings`."""
    return make_settings(QUAYSIDE_HOME=os.environ[SESSION_HOME])


@pytest.fixture(scope="session")
def template_database(session_settings: Settings) -> str:
    """Name of a database with all schemas migrated, made once for all workers."""
    from quayside.cli.db import registered_schemas
    from quayside.foundation.postgres import advisory_lock, connect, dispose_engines, migrate

    with (
        advisory_lock(session_settings, "template of tests"),
        connect(session_settings, autocommit=True) as con,
    ):
        if con.execute("SELECT 1 FROM pg_database WHERE datname = %s", [TEMPLATE]).fetchone() is None:
            # Nothing here has to survive a power cut, and every DROP DATABASE would sync all files.
            con.execute("ALTER SYSTEM SET fsync = off")
            con.execute("ALTER SYSTEM SET full_page_writes = off")
            con.execute("SELECT pg_reload_conf()")
            con.execute(f"DROP DATABASE IF EXISTS {TEMPLATE}_new")  # of a worker that died half way
            con.execute(f"CREATE DATABASE {TEMPLATE}_new")
            new = make_settings(QUAYSIDE_DATABASE_URL=_url_of(session_settings, f"{TEMPLATE}_new"))
            for spec in registered_schemas():
                migrate(new, spec)
            dispose_engines()
            con.execute(f"ALTER DATABASE {TEMPLATE}_new RENAME TO {TEMPLATE}")
    return TEMPLATE


@pytest.fixture(scope="session")
def template_with_lake(
    session_settings: Settings, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """As `template_database`, with the catalog of an empty lake: making one costs several times what a copy does."""
    from quayside.foundation.lake import Lake
    from quayside.foundation.postgres import advisory_lock, connect, dispose_engines

    name = f"{TEMPLATE}_with_lake"
    with (
        advisory_lock(session_settings, "template of tests"),
        connect(session_settings, autocommit=True) as con,
    ):
        if con.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone() is None:
            con.execute(f"DROP DATABASE IF EXISTS {name}_new")
            con.execute(f"CREATE DATABASE {name}_new TEMPLATE {template_database}")
            url = _url_of(session_settings, f"{name}_new")
            new = make_settings(QUAYSIDE_HOME=str(tmp_path_factory.mktemp("lake")), QUAYSIDE_DATABASE_URL=url)
            Lake(new).connect().close()
            dispose_engines()
            con.execute(f"ALTER DATABASE {name}_new RENAME TO {name}")
    return name


def make_settings(**variables: Any) -> Settings:
    """Settings from these variables alone: neither the environment nor a ``.env`` is read."""
    saved = {name: os.environ.pop(name) for name in Settings.variables().values() if name in os.environ}
    try:
        return Settings(_env_file=None, **variables)  # pyright: ignore[reportCallIssue]
    finally:
        os.environ.update(saved)


@pytest.fixture
def empty_settings(session_settings: Settings, template_database: str, tmp_path: Path) -> Iterator[Settings]:
    """As `settings`, on a database that nothing was migrated in."""
    del template_database  # it also makes the server fast
    yield from private_settings(session_settings, tmp_path, "template1")


@pytest.fixture
def settings(
    session_settings: Settings, template_database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Settings]:
    """Settings on a private home below ``tmp_path`` and a private, migrated database of the session's server."""
    if not LAKES & {*request.fixturenames} or "s3_settings" in request.fixturenames:
        yield from private_settings(session_settings, tmp_path, template_database)
        return
    for made in private_settings(session_settings, tmp_path, request.getfixturevalue("template_with_lake")):
        move_lake(made)
        yield made


def copied_platform(session: Settings, original: Settings, tmp_path: Path) -> Iterator[Settings]:
    """As `private_settings`, with the database and the lake of a platform that nobody is connected to."""
    from psycopg.conninfo import conninfo_to_dict

    from quayside.foundation.postgres import database_url

    database = conninfo_to_dict(database_url(original))["dbname"]
    for made in private_settings(session, tmp_path, str(database)):
        shutil.copytree(original.lake_data_path, made.lake_data_path)
        move_lake(made)
        yield made


def move_lake(settings: Settings) -> None:
    """After the database with its catalog was copied: its files are in the home of these settings."""
    from quayside.foundation.postgres import connect
    from quayside.foundation.processes import private_folder

    private_folder(Path(settings.lake_data_path))
    with connect(settings, autocommit=True) as con:
        statement = b"UPDATE lake.ducklake_metadata SET value = %s WHERE key = 'data_path'"
        assert con.execute(statement, [f"{settings.lake_data_path}/"]).rowcount == 1


def private_settings(session: Settings, tmp_path: Path, template: str) -> Iterator[Settings]:
    from psycopg.errors import ObjectInUse

    from quayside.foundation.postgres import connect, dispose_engines

    name = f"test_{secrets.token_hex(6)}"
    home = tmp_path / "home"
    with connect(session, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        yield make_settings(QUAYSIDE_HOME=str(home), QUAYSIDE_DATABASE_URL=_url_of(session, name))
        dispose_engines()
        _stop_servers(home)
        with suppress(ObjectInUse):  # somebody does not let go within five seconds: it goes with the server
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _url_of(session: Settings, database: str) -> str:
    from quayside.foundation.postgres import database_url

    return database_url(session).replace("/quayside?", f"/{database}?")


@pytest.fixture
def lake(settings: Settings) -> Lake:
    """An empty lake in ``tmp_path``, its catalog in the test's own database."""
    from quayside.foundation.lake import Lake

    return Lake(settings)


@pytest.fixture
def command_environment(settings: Settings) -> dict[str, str]:
    """Environment for a sub-process that is to work on `settings`."""
    assert settings.database_url is not None
    return os.environ | {
        "QUAYSIDE_HOME": str(settings.home),
        "QUAYSIDE_DATABASE_URL": settings.database_url.get_secret_value(),
    }
