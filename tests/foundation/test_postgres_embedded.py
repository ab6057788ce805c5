"""The embedded PostgreSQL: every way to start it, and every way it can have died before."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from quayside.foundation import processes
from quayside.foundation.embedded import ServerStatus
from quayside.foundation.errors import PermanentError, QuaysideError, ServiceUnavailableError, SettingsError
from quayside.foundation.postgres import EmbeddedPostgres
from quayside.foundation.settings import Settings

pytestmark = pytest.mark.integration

ROOT = os.geteuid() == 0
START = (
    "import sys; from pathlib import Path; from quayside.foundation.postgres import EmbeddedPostgres; "
    "server = EmbeddedPostgres(Path(sys.argv[1])); print(server.start(), server.status().pid)"
)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that, unlike ``tmp_path``, the server's own user can enter when tests run as root."""
    folder = Path(tempfile.mkdtemp(prefix="place-", dir=os.environ["QUAYSIDE_TEST_SESSION_HOME"]))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def home(place: Path) -> Iterator[Path]:
    home = place / "home"
    yield home
    if home.is_dir():
        EmbeddedPostgres(home).stop()


@pytest.fixture
def server(home: Path) -> EmbeddedPostgres:
    return EmbeddedPostgres(home)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A stopped server's folder, to be copied: making one costs a second."""
    folder = Path(tempfile.mkdtemp(prefix="made-", dir=os.environ["QUAYSIDE_TEST_SESSION_HOME"]))
    folder.chmod(0o711)
    server = EmbeddedPostgres(folder)
    server.start()
    execute(server, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)")
    server.stop()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def stopped(made: Path, server: EmbeddedPostgres, home: Path) -> EmbeddedPostgres:
    """A server of its own that holds a row and does not run."""
    subprocess.run(["cp", "-a", made, home], check=True)
    return server


@pytest.fixture
def running(stopped: EmbeddedPostgres) -> EmbeddedPostgres:
    stopped.start()
    return stopped


@pytest.fixture(scope="session")
def shared(session_settings: Settings) -> EmbeddedPostgres:
    """The test session's own server, for what does it no harm."""
    server = EmbeddedPostgres(session_settings.home)
    server.start()
    return server


def execute(server: EmbeddedPostgres, statement: str) -> None:
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(statement.encode())


def kept_rows(server: EmbeddedPostgres) -> int:
    with psycopg.connect(server.url) as connection:
        row = connection.execute("SELECT count(*) FROM kept").fetchone()
    assert row is not None
    return row[0]


def as_server_user(server: EmbeddedPostgres) -> dict[str, int]:
    found = server.data.stat()
    return {"user": found.st_uid, "group": found.st_gid} if ROOT else {}


def start_elsewhere(home: Path) -> subprocess.Popen[str]:
    """Another process that starts the server of ``home``, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", START, str(home)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def kill(server: EmbeddedPostgres, pids: list[int]) -> None:
    assert pids
    for pid in pids:
        with suppress(ProcessLookupError):  # a backend ends by itself once its postmaster is gone
            os.kill(pid, signal.SIGKILL)
    # The kernel needs a moment to close a dead process's socket.
    assert processes.wait_until(lambda: not server.is_ready(), 120)


# -- starting ------------------------------------------------------------------------------------------------------


def test_it_is_made_once_says_so_and_outlives_its_starter(server: EmbeddedPostgres, home: Path) -> None:
    assert server.status() == ServerStatus(False, None, None, home / "postgres" / "data", None, None)
    starter = start_elsewhere(home)
    out, err = starter.communicate(timeout=300)
    assert out.startswith("True "), err
    assert f"creating an embedded PostgreSQL in {server.data}" in err
    # Ctrl-C reaches the whole process group of a terminal; the server must not be in it.
    with pytest.raises(ProcessLookupError):
        os.killpg(starter.pid, signal.SIGINT)

    assert server.start() is False
    status = server.status()
    assert status.running
    assert f"True {status.pid}\n" == out
    assert status.version == "18"
    assert status.size_bytes is not None
    assert status.size_bytes > 10_000_000
    assert server.stop() is True
    assert server.stop() is False
    assert not server.status().running


@pytest.mark.slow
def test_eight_processes_at_once_make_one_server(home: Path) -> None:
    starters = [start_elsewhere(home) for _ in range(8)]
    outputs = [starter.communicate(timeout=300) for starter in starters]
    assert all(starter.returncode == 0 for starter in starters), outputs
    assert sorted(out.split()[0] for out, _ in outputs) == ["False"] * 7 + ["True"]
    assert len({out.split()[1] for out, _ in outputs}) == 1
    assert sum("creating an embedded" in err for _, err in outputs) == 1


def test_asking_a_running_server_starts_no_process_and_takes_no_lock(
    shared: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, name in ((subprocess, "Popen"), (os, "fork"), (processes, "locked"), (processes, "try_lock")):
        monkeypatch.setattr(place, name, None)
    assert shared.start() is False


def test_server_settings(running: EmbeddedPostgres) -> None:
    wanted = {
        "listen_addresses": "",
        "TimeZone": "UTC",
        "wal_level": "logical",
        "fsync": "on",
        "server_encoding": "UTF8",
        "data_checksums": "on",
    }
    with psycopg.connect(running.url) as connection:
        found = {
            name: row[0]
            for name in wanted
            if (row := connection.execute("SELECT current_setting(%s)", [name]).fetchone())
        }
        owner = connection.execute(
            "SELECT datlocprovider, datlocale FROM pg_database WHERE datname = 'quayside'"
        )
        assert owner.fetchone() == ("b", "C.UTF-8")
    assert found == wanted


def test_nobody_else_may_enter(shared: EmbeddedPostgres) -> None:
    for folder in (shared.data, shared.socket_folder, shared.folder / "log"):
        assert folder.stat().st_mode & 0o077 == 0, folder


def test_nothing_of_the_environment_reaches_it(
    stopped: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "PGDATA": "/nowhere",
        "PGPORT": "9",
        "PGHOST": "/nowhere",
        "LC_ALL": "xx_XX",
        "A_SECRET": "x",
    }.items():
        monkeypatch.setenv(name, value)
    stopped.start()
    assert b"A_SECRET" not in Path(f"/proc/{stopped.status().pid}/environ").read_bytes()
    assert kept_rows(stopped) == 1


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_sqlalchemy_takes_the_url(shared: EmbeddedPostgres, driver: str) -> None:
    import sqlalchemy

    url = sqlalchemy.make_url(shared.url).set(drivername=f"postgresql+{driver}")
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1


# -- dying ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_kill_9_of_everything(running: EmbeddedPostgres) -> None:
    execute(running, "INSERT INTO kept VALUES (2)")
    kill(running, processes.processes_in(running.data))
    assert running.start() is True
    assert kept_rows(running) == 2


@pytest.mark.slow
def test_kill_9_of_the_postmaster_waits_for_orphaned_sessions(running: EmbeddedPostgres, home: Path) -> None:
    postmaster = running.status().pid
    assert postmaster is not None
    connection = psycopg.connect(running.url)
    connection.execute("INSERT INTO kept VALUES (2)")  # never committed
    orphan = connection.info.backend_pid
    os.kill(orphan, signal.SIGSTOP)
    kill(running, [postmaster])
    starter = start_elsewhere(home)
    with pytest.raises(subprocess.TimeoutExpired):
        starter.wait(1)
    os.kill(orphan, signal.SIGCONT)
    out, err = starter.communicate(timeout=300)
    assert out.startswith("True "), err
    assert kept_rows(running) == 1
    connection.close()


@pytest.mark.slow
@pytest.mark.parametrize("survivor", ["nobody", "initdb"])
def test_kill_9_half_way_through_initdb(server: EmbeddedPostgres, home: Path, survivor: str) -> None:
    def killed_too_late() -> bool:
        starter = start_elsewhere(home)
        pattern = "data.new-*/base/1"
        assert processes.wait_until(lambda: any((home / "postgres").glob(pattern)), 120)
        if survivor == "nobody":
            os.killpg(starter.pid, signal.SIGKILL)
        else:
            os.kill(starter.pid, signal.SIGKILL)
        starter.communicate()
        return server.data.exists()

    while killed_too_late():  # who looks may sleep longer than initdb takes
        server.stop()
        shutil.rmtree(home)
    assert server.start() is True
    with psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert not list(server.folder.glob("data.new-*"))


def test_stale_pid_file_of_a_process_that_is_gone(running: EmbeddedPostgres) -> None:
    pid_file = running.data / "postmaster.pid"
    gone = subprocess.Popen(["true"])
    gone.wait()
    lines = pid_file.read_text().splitlines()
    running.stop()
    pid_file.write_text("\n".join([str(gone.pid), *lines[1:]]) + "\n")
    assert not running.is_ready()
    assert running.start() is True


def test_stale_pid_file_whose_number_is_another_process_now(running: EmbeddedPostgres) -> None:
    lines = (running.data / "postmaster.pid").read_text().splitlines()
    running.stop()
    with subprocess.Popen(["sleep", "1200"], **as_server_user(running)) as other:
        text = "\n".join([str(other.pid), *lines[1:]]) + "\n"
        for stale in (running.data / "postmaster.pid", running.socket_folder / ".s.PGSQL.5432.lock"):
            stale.write_text(text)
            stale.chmod(0o644)
        assert not running.is_ready()
        assert running.stop() is False
        assert running.start() is True
        assert kept_rows(running) == 1
        assert other.poll() is None
        other.kill()


@pytest.mark.slow
def test_folder_removed_under_a_running_server(running: EmbeddedPostgres, home: Path) -> None:
    old = running.status().pid
    assert old is not None
    shutil.rmtree(home)
    assert running.start() is True
    assert running.status().pid != old
    assert not processes.processes_in(running.data, deleted=True)
    with psycopg.connect(running.url) as connection:
        assert connection.execute("SELECT to_regclass('kept')").fetchone() == (None,)


def test_stop_ends_a_server_whose_folder_was_removed(running: EmbeddedPostgres, home: Path) -> None:
    shutil.rmtree(home)
    assert running.stop() is True
    assert not processes.processes_in(running.data, deleted=True)


# -- refusing ------------------------------------------------------------------------------------------------------


def broken_configuration(server: EmbeddedPostgres) -> None:
    with (server.data / "postgresql.conf").open("a") as file:
        file.write("no_such_setting = 1\n")


def another_version(server: EmbeddedPostgres) -> None:
    (server.data / "PG_VERSION").write_text("16\n")


def no_data_folder(server: EmbeddedPostgres) -> None:
    (server.data / "PG_VERSION").unlink()


def damaged_control_file(server: EmbeddedPostgres) -> None:
    (server.data / "global" / "pg_control").write_bytes(b"")


def damaged_location(server: EmbeddedPostgres) -> None:
    (server.home / "location").write_text("../../etc\n")


@pytest.mark.parametrize(
    ("harm", "kind", "sentence"),
    [
        (
            broken_configuration,
            ServiceUnavailableError,
            "did not start: .*no_such_setting|configuration file .* errors",
        ),
        (damaged_control_file, ServiceUnavailableError, "did not start: .*pg_control"),
        (another_version, PermanentError, "was made by PostgreSQL 16 and the embedded one is 18"),
        (no_data_folder, PermanentError, "is not a PostgreSQL data folder: move it away"),
        (damaged_location, SettingsError, "location is damaged"),
    ],
)
def test_one_sentence_says_why_it_does_not_start(
    stopped: EmbeddedPostgres,
    harm: Callable[[EmbeddedPostgres], None],
    kind: type[QuaysideError],
    sentence: str,
) -> None:
    harm(stopped)
    with pytest.raises(kind, match=sentence) as caught:
        stopped.start()
    assert "\n" not in str(caught.value)
    (stopped.home / "location").unlink(missing_ok=True)


def test_a_file_where_the_folder_should_be(place: Path) -> None:
    (place / "file").write_text("")
    with pytest.raises(SettingsError, match=r"cannot use .*file.*: Not a directory"):
        EmbeddedPostgres(place / "file").start()


# -- the socket's path ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["deep/" * 30 + "home", "with space and, comma", "ünïcode"], ids=["deep", "comma", "unicode"]
)
def test_a_path_no_socket_can_have(
    place: Path, made: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    temporary = place / "tmp"
    temporary.mkdir(mode=0o711)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    home = place / name
    home.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", made, home], check=True)
    server = EmbeddedPostgres(home)
    server.start()
    try:
        folder = server.socket_folder
        assert folder.parent == temporary
        assert folder.stat().st_mode & 0o777 == 0o700
        assert kept_rows(server) == 1
        server.stop()
        shutil.rmtree(folder)  # what a reboot does to /tmp
        server.start()
        assert kept_rows(server) == 1
    finally:
        server.stop()


def test_a_socket_folder_others_can_write_to_is_refused(running: EmbeddedPostgres) -> None:
    running.socket_folder.chmod(0o777)
    for use in (running.start, running.is_ready):
        with pytest.raises(
            SettingsError, match=f"{re.escape(str(running.socket_folder))} .* not a private folder"
        ):
            use()
    running.socket_folder.chmod(0o700)


def test_a_socket_folder_behind_a_link_is_refused(stopped: EmbeddedPostgres, place: Path) -> None:
    elsewhere = place / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    stopped.socket_folder.rmdir()
    stopped.socket_folder.symlink_to(elsewhere)
    with pytest.raises(SettingsError, match="not a private folder"):
        stopped.start()


@pytest.mark.slow
@pytest.mark.skipif(not ROOT, reason="only root can give a folder away")
def test_a_socket_folder_of_another_user_is_refused(stopped: EmbeddedPostgres) -> None:
    os.chown(stopped.socket_folder, 65534, 65534)
    with socket.socket(socket.AF_UNIX) as impostor:
        impostor.bind(str(stopped.socket_folder / ".s.PGSQL.5432"))
        impostor.listen()
        with pytest.raises(SettingsError, match="not a private folder"):
            stopped.start()
