"""Who the embedded PostgreSQL runs as. Needs root, which can be anybody."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from quayside.foundation import processes
from quayside.foundation.errors import SettingsError
from quayside.foundation.postgres import EmbeddedPostgres
from quayside.foundation.postgres import account as accounts
from quayside.foundation.valkey import EmbeddedValkey, binary

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user cannot become another one"),
]

NOBODY = 65534


@pytest.fixture
def closed_home() -> Iterator[Path]:
    """A QUAYSIDE_HOME below a folder which root alone may enter, like a clone in ``/root``."""
    folder = Path(tempfile.mkdtemp(prefix="closed-", dir=os.environ["QUAYSIDE_TEST_SESSION_HOME"]))
    yield folder / "home"
    for made in accounts.folders_of(folder / "home" / "postgres"):
        processes.end_processes(processes.processes_in(made / "data"), signal.SIGQUIT)
        shutil.rmtree(made)
    shutil.rmtree(folder)


def one(server: EmbeddedPostgres) -> int:
    with psycopg.connect(server.url) as connection:
        row = connection.execute("SELECT 1").fetchone()
    assert row is not None
    return row[0]


def test_root_has_a_system_user_run_it_where_that_can_live(
    closed_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = EmbeddedPostgres(closed_home)
    server.start()
    said = capsys.readouterr().err
    assert one(server) == 1
    user = pwd.getpwnam("quayside")
    assert server.folder.parent == accounts.SYSTEM_FOLDER
    assert f"keeping PostgreSQL's data in {server.folder}, because user quayside cannot enter" in said
    assert server.data.stat().st_uid == user.pw_uid
    assert (server.data / "PG_VERSION").stat().st_uid == user.pw_uid
    assert closed_home.parent.stat().st_mode & 0o777 == 0o700, "the caller's folders are left as they are"

    # Found again from the folder alone, and data stays where it is.
    again = EmbeddedPostgres(closed_home)
    assert again.stop() is True
    assert again.start() is True
    assert again.folder == server.folder
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_the_server_of_a_home_that_was_deleted_is_stopped_and_its_data_kept(
    closed_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = EmbeddedPostgres(closed_home)
    server.start()
    old = server.folder
    shutil.rmtree(closed_home)
    server.start()
    assert server.folder != old
    assert one(server) == 1
    assert not processes.processes_in(old / "data")
    assert (old / "data" / "PG_VERSION").is_file()
    assert f"is still in {old}: delete it" in capsys.readouterr().err


@pytest.mark.slow
def test_four_processes_at_once_choose_one_folder(closed_home: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from quayside.foundation.postgres import EmbeddedPostgres; "
        "EmbeddedPostgres(Path(sys.argv[1])).start()"
    )
    starters = [subprocess.Popen([sys.executable, "-c", code, str(closed_home)]) for _ in range(4)]
    assert [starter.wait(60) for starter in starters] == [0] * 4
    assert accounts.folders_of(closed_home / "postgres") == [EmbeddedPostgres(closed_home).folder]


def test_binaries_the_user_cannot_read_are_copied_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    user = accounts.server_account(tmp_path / "none")
    assert user is not None
    system = Path(tempfile.mkdtemp(prefix="system-", dir=os.environ["QUAYSIDE_TEST_SESSION_HOME"]))
    system.chmod(0o755)
    closed = tmp_path / "site"
    closed.symlink_to(accounts.wheel_site())  # tmp_path is root's alone
    monkeypatch.setattr(accounts, "SYSTEM_FOLDER", system)
    monkeypatch.setattr(accounts, "wheel_site", lambda: closed)

    first = accounts.binaries(user)
    assert system in first.parents
    assert processes.can_run([str(first / "postgres"), "--version"], user)
    assert processes.can_run([str(first / "initdb"), "--version"], user)  # needs its libraries beside it
    assert f"copying PostgreSQL to {system}" in capsys.readouterr().err
    assert accounts.binaries(user) == first
    assert capsys.readouterr().err == ""
    assert [folder.name for folder in system.glob("postgres-*")] == [first.parents[2].name]
    shutil.rmtree(system)


def test_data_of_root_is_refused(closed_home: Path) -> None:
    data = closed_home / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("18\n")
    with pytest.raises(SettingsError, match="belongs to root, as whom PostgreSQL does not run"):
        EmbeddedPostgres(closed_home).start()


def as_nobody(work: Callable[[], None]) -> str:
    """What ``work`` raised when an ordinary user did it, empty when nothing.

    A fork, because such a user may be unable to read the interpreter that runs the tests.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            work()
        except BaseException:  # noqa: BLE001 - whatever it is has to reach the parent
            os.write(writing, traceback.format_exc().encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as result:
        text = result.read()
    os.waitpid(child, 0)
    return text


@pytest.fixture
def nobodys_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A QUAYSIDE_HOME to be, in a folder of that user, who can read PostgreSQL's binaries."""
    folder = Path(tempfile.mkdtemp(prefix="nobody-", dir=os.environ["QUAYSIDE_TEST_SESSION_HOME"]))
    nobody = processes.Account("nobody", NOBODY, NOBODY)
    if not processes.can_run([str(accounts.binaries(None) / "postgres"), "--version"], nobody):
        accounts._copy(folder / "site")
        monkeypatch.setattr(accounts, "wheel_site", lambda: folder / "site")
    os.chown(folder, NOBODY, NOBODY)
    yield folder / "home"
    for server in (EmbeddedPostgres(folder / "home"), EmbeddedValkey(folder / "home")):
        server.stop()
    shutil.rmtree(folder)


def test_an_ordinary_user_runs_it_as_oneself(nobodys_home: Path) -> None:
    server = EmbeddedPostgres(nobodys_home)

    def work() -> None:
        assert server.start() is True
        assert one(server) == 1
        assert server.stop() is True
        assert server.start() is True
        for pid in processes.processes_in(server.data):
            with suppress(ProcessLookupError):  # a backend ends by itself once its postmaster is gone
                os.kill(pid, signal.SIGKILL)
        processes.wait_until(lambda: not server.is_ready(), 10)
        assert server.start() is True
        assert one(server) == 1

    assert as_nobody(work) == ""
    assert server.folder == nobodys_home / "postgres"
    assert {path.stat().st_uid for path in server.folder.iterdir()} == {NOBODY}
    assert server.folder.stat().st_mode & 0o777 == 0o700

    # Root can use and restart it; it stays that user's.
    assert one(server) == 1
    assert server.stop() is True
    assert server.start() is True
    assert {path.stat().st_uid for path in server.folder.iterdir()} == {NOBODY}

    def use() -> None:
        assert one(server) == 1

    assert as_nobody(use) == ""


@pytest.mark.parametrize("kind", [EmbeddedPostgres, EmbeddedValkey])
def test_the_folder_of_another_user_is_one_sentence(
    closed_home: Path, kind: type[EmbeddedPostgres | EmbeddedValkey]
) -> None:
    closed_home.parent.chmod(0o711)
    closed_home.mkdir()
    server = kind(closed_home)
    server.home.mkdir(mode=0o700)

    for act in (server.start, server.stop, server.status):

        def work(act: Callable[[], object] = act) -> None:
            with pytest.raises(SettingsError, match=r"cannot use .*: Permission denied\. Set QUAYSIDE_HOME"):
                act()

        assert as_nobody(work) == ""


def test_valkey_of_an_ordinary_user_stays_that_users_when_root_starts_it(nobodys_home: Path) -> None:
    server = EmbeddedValkey(nobodys_home)
    if not processes.can_run([str(binary()), "--version"], processes.Account("nobody", NOBODY, NOBODY)):
        pytest.skip("the user nobody cannot read the folder of Valkey's binary")

    def work() -> None:
        server.start()
        server.stop()

    assert as_nobody(work) == ""
    server.start()
    assert {path.stat().st_uid for path in server.folder.iterdir()} == {NOBODY}
    assert Path(f"/proc/{server.status().pid}").stat().st_uid == NOBODY

    def use() -> None:
        assert server.is_ready()

    assert as_nobody(use) == ""
