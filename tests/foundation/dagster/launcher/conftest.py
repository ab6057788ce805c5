"""Fixtures of the launcher's tests. Nothing they start may be left behind: `no_orphan` holds that for every test."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.foundation.dagster.launcher.bench import Bench

    from quayside.foundation.settings import Settings

#: What may be there between tests: each has a method `standing` that says which processes.
standing: list[Any] = []


@pytest.fixture(scope="session")
def token() -> Iterator[str]:
    """Marks everything that is started from here on."""
    from tests.foundation.dagster.launcher.bench import TOKEN

    os.environ[TOKEN] = secrets.token_hex(8)
    yield os.environ[TOKEN]
    del os.environ[TOKEN]


@pytest.fixture(autouse=True)
def no_orphan(token: str) -> Iterator[None]:
    """After each test no process of it is left: no run, no child of a run, no server."""
    from tests.foundation.dagster.launcher.bench import until, with_token

    before = with_token().keys()  # such as a database server that tests of another folder share

    yield

    def left() -> dict[int, str]:
        expected = {pid for bench in standing for pid in bench.standing()}
        return {pid: command for pid, command in with_token().items() if pid not in expected | before}

    try:
        until(lambda: not left())
    except AssertionError:
        found = left()
        for pid in found:
            os.kill(pid, 9)
        raise AssertionError(f"left behind: {found}") from None


@pytest.fixture(scope="session")
def postgres_url(session_settings: Settings) -> str:
    """A database for Dagster's state, shared by this process's tests."""
    return new_database(session_settings)


@pytest.fixture
def own_postgres_url(session_settings: Settings) -> str:
    """A database for a daemon: in one that is shared it would find runs that other tests have left going."""
    return new_database(session_settings)


def new_database(session_settings: Settings) -> str:
    from quayside.foundation.postgres import connect, database_url

    name = f"launcher_{secrets.token_hex(4)}"
    with connect(session_settings, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    # The driver is named because SQLAlchemy 2.1 would choose psycopg 3, which dagster-postgres does not speak.
    url = database_url(session_settings).replace("/quayside?", f"/{name}?")
    return url.replace("postgresql://", "postgresql+psycopg2://")


@pytest.fixture(scope="session")
def _shared(token: str, postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import PythonFileTarget
    from tests.foundation.dagster.launcher.bench import (
        LOCATION,
        Bench,
        make_project,
        open_instance,
        write_config,
    )

    home = tmp_path_factory.mktemp("shared")
    project = make_project(home / "project", greeting="hello")
    with (
        open_instance(write_config(home / "home", postgres_url, {})) as instance,
        WorkspaceProcessContext(
            instance, PythonFileTarget(str(project / "defs.py"), "defs", str(project), LOCATION)
        ) as context,
    ):
        bench = Bench(instance, project, home, context.create_request_context())
        standing.append(bench)
        yield bench
        standing.remove(bench)


@pytest.fixture
def warm(_shared: Bench, tmp_path: Path) -> Bench:
    """A location with a code server and a warm server that all tests share, on PostgreSQL."""
    return replace(_shared, folder=tmp_path, launched=[])


@pytest.fixture
def fresh(token: str, postgres_url: str, tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """``fresh(**options)``: a project and a launcher of one's own, without a code server."""
    from tests.foundation.dagster.launcher.bench import Bench, make_project, open_instance, write_config

    made: list[Bench] = []

    def make(project: Path | None = None, **options: Any) -> Bench:
        home = write_config(tmp_path / f"home{len(made)}", postgres_url, options)
        folder = project or make_project(tmp_path / f"project{len(made)}", greeting="hello")
        made.append(Bench(open_instance(home), folder, tmp_path))
        return made[-1]

    yield make
    for bench in made:
        bench.instance.dispose()
