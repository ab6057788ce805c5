"""The launcher's small parts: processes and their records, the table of runs, sources, the protocol."""

from __future__ import annotations

import builtins
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.foundation.dagster.launcher.alone import say
from tests.foundation.dagster.launcher.bench import until

from quayside.foundation.dagster.launcher import processes, protocol
from quayside.foundation.dagster.launcher import table as table_module
from quayside.foundation.dagster.launcher.processes import Process, Records
from quayside.foundation.dagster.launcher.servers import runtime_folder
from quayside.foundation.dagster.launcher.sources import Sources
from quayside.foundation.dagster.launcher.table import Table

pytestmark = pytest.mark.unit


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process with a session of its own that ends when interrupted."""
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as process:
        yield process
        process.kill()


@pytest.fixture
def stubborn() -> Iterator[subprocess.Popen[bytes]]:
    """As `sleeper`, but it ignores SIGINT and has a child that does too."""
    command = ["sh", "-c", "trap '' INT; sleep 600 & echo; wait"]
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        processes.end_session(process.pid, signal.SIGKILL)


# Processes


def test_a_process_lives_until_it_has_ended(sleeper: subprocess.Popen[bytes]):
    process = Process.of(sleeper.pid)
    assert process.alive()
    assert process.signal(signal.SIGTERM)
    until(lambda: not process.alive(), what="a zombie does not live")
    sleeper.wait()
    assert not process.alive()
    assert not process.signal(signal.SIGTERM)


def test_a_number_given_to_another_process_is_not_signalled(sleeper: subprocess.Popen[bytes]):
    stale = Process(sleeper.pid, Process.of(sleeper.pid).started - 1)
    assert not stale.alive()
    assert not stale.signal(signal.SIGKILL)
    assert sleeper.poll() is None


def test_a_session_ends_with_all_its_members(stubborn: subprocess.Popen[bytes]):
    members = processes.session_members(stubborn.pid)
    assert len(members) == 2
    processes.end_session(stubborn.pid, signal.SIGKILL)
    assert stubborn.wait() == -signal.SIGKILL
    until(lambda: not any(member.alive() for member in members))
    processes.end_session(stubborn.pid, signal.SIGKILL)


def test_memory_of_a_process():
    found = processes.memory_mb()
    assert found["proportional"] > 10
    assert found["private"] > 0
    assert processes.memory_mb(99_999_999) == {"proportional": 0.0, "private": 0.0}
    assert processes.oom_kills() is None or processes.oom_kills() >= 0


# Records


def test_a_record_is_found_until_it_is_removed_by_its_own_process(tmp_path: Path):
    records = Records(tmp_path)
    me, other = Process.of(os.getpid()), Process(1, 1)
    assert records.find("r") is None
    assert records.claim("r", "a socket")
    assert not records.claim("r", "another")
    found = records.find("r")
    assert found is not None
    assert (found.process, found.server) == (me, "a socket")
    assert not records.remove("r", other)
    assert records.find("r") == found
    assert records.remove("r", me)
    assert records.remove("r", me), "nobody else's either"
    assert list(tmp_path.iterdir()) == []


def test_records_of_the_dead_are_swept_and_claimed(tmp_path: Path):
    records = Records(tmp_path)
    for run_id in ("dead", "taken over"):
        (tmp_path / run_id).write_text('{"pid": 1, "started": 1, "server": ""}')
    assert records.claim("taken over", "")
    assert records.claim("mine", "")
    records.sweep()
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "taken over"}


CLAIM = """
processes = part("processes")
from pathlib import Path
folder, winners = Path(sys.argv[1]), set()
for turn in range(30):
    (folder / str(turn)).write_text('{"pid": 1, "started": 1, "server": ""}')
    said, say = os.pipe()
    start, go = os.pipe()
    done, end = os.pipe()
    for _ in range(8):
        if os.fork() == 0:
            os.close(go)
            os.close(end)
            os.read(start, 1)
            os.write(say, b"x" if processes.Records(folder).claim(str(turn), "") else b"-")
            os.read(done, 1)  # it lives until all have tried
            os._exit(0)
    os.close(go)
    answers = b""
    while len(answers) < 8:
        answers += os.read(said, 8)
    winners.add(answers.count(b"x"))
    os.close(end)
    for _ in range(8):
        os.wait()
    for pipe in (said, say, start, done):
        os.close(pipe)
print(winners)
"""


def test_of_many_who_claim_a_run_at_once_one_has_it(tmp_path: Path):
    """Also when a dead process's record is in the way."""
    assert say(CLAIM, str(tmp_path)) == "{1}"


# The table


def test_a_run_is_asked_once_and_then_forced(stubborn: subprocess.Popen[bytes]):
    table = Table(grace_seconds=240)
    assert table.next_deadline() is None
    table.add("r", Process.of(stubborn.pid))
    assert not table.ask_to_end("unknown")
    assert table.ask_to_end("r")
    deadline = table.next_deadline()
    assert deadline is not None
    assert 0 < deadline <= 240
    table.force_overdue()
    assert stubborn.poll() is None
    assert table.ask_to_end("r"), "still there"
    table.runs["r"].asked_at -= 240
    assert table.next_deadline() == 0
    table.force_overdue()
    assert stubborn.wait(240) == -signal.SIGKILL
    assert table.next_deadline() is None
    table.remove("r")
    assert table.runs == {}


def test_what_a_run_left_is_given_a_moment_and_killed(
    stubborn: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(table_module, "LEFTOVER_SECONDS", 0.3)
    table = Table(grace_seconds=30)
    table.add("r", Process.of(stubborn.pid))
    stubborn.kill()
    stubborn.wait()
    table.remove("r")
    assert table.runs == {}
    assert not table.empty()
    until(lambda: table.force_overdue() or table.empty())
    until(lambda: not any(member.alive() for member in processes.session_members(stubborn.pid)))


# Sources


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "old.json"
    path.write_text("{}")
    os.utime(path, (time.time() - 60,) * 2)
    return path


def test_a_file_that_was_read_is_watched(old: Path):
    sources = Sources()
    with sources.recording():
        old.read_text()
    assert builtins.open.__module__ in {"io", "_io"}, "given back"
    assert sources.changed() is None
    os.utime(old)
    assert sources.changed() == str(old)


@pytest.mark.parametrize("change", ["written", "replaced", "removed"])
def test_how_it_may_change(old: Path, change: str):
    sources = Sources()
    with sources.recording():
        old.read_bytes()
    stamp = old.stat()
    match change:
        case "written":
            old.write_text("{ }")
            os.utime(old, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        case "replaced":
            new = old.with_suffix(".new")
            new.write_text("[]")
            os.utime(new, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
            new.replace(old)
        case _:
            old.unlink()
    assert sources.changed() == str(old)


def test_what_was_written_or_not_there_is_not_watched(tmp_path: Path):
    sources = Sources()
    with sources.recording():
        (tmp_path / "log").write_text("a line")
        with pytest.raises(FileNotFoundError):
            (tmp_path / "missing").read_text()
    (tmp_path / "log").write_text("another")
    assert sources.changed() is None


def test_a_module_saved_while_it_was_loaded_counts_as_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Whether the import saw the file before or after it was saved cannot be known."""
    monkeypatch.syspath_prepend(str(tmp_path))
    sources = Sources()
    with sources.recording():
        (tmp_path / "saved_just_now.py").write_text("A = 1")
        __import__("saved_just_now")
    del sys.modules["saved_just_now"]
    assert sources.changed() == str(tmp_path / "saved_just_now.py")


# The protocol


def serve(path: str, answer: bytes) -> threading.Thread:
    """A server for one request."""
    listener = protocol.listen(path)
    listener.setblocking(True)

    def work() -> None:
        with listener, listener.accept()[0] as connection:
            protocol.receive(connection)
            connection.sendall(answer)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_path_of_any_length(tmp_path: Path):
    folder = tmp_path / ("a" * 100) / ("b" * 100)
    folder.mkdir(parents=True)
    path = str(folder / "server.sock")
    assert len(path) > 107
    thread = serve(path, b'{"fine": true}\n')
    assert protocol.request(path, {"what": "status"}) == {"fine": True}
    thread.join()
    assert Path(path).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("answer", [b"", b'{"half'])
def test_a_server_that_ends_before_it_answers(tmp_path: Path, answer: bytes):
    thread = serve(str(tmp_path / "s"), answer)
    with pytest.raises(protocol.NoServerError, match="ended before it answered"):
        protocol.request(str(tmp_path / "s"), {})
    thread.join()


def test_no_server_there(tmp_path: Path):
    for path in (tmp_path / "s", tmp_path / "no folder" / "s"):
        with pytest.raises(protocol.NoServerError, match="no fork server answers"):
            protocol.request(str(path), {})


CONNECT = "import socket; os.setuid(int(sys.argv[2])); socket.socket(socket.AF_UNIX).connect(sys.argv[1])"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else for a moment")
def test_other_users_are_refused():
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = f"{folder}/s"
        with protocol.listen(path) as listener:
            Path(path).chmod(0o666)
            for account, welcome in ((65534, False), (0, True)):
                say(CONNECT, path, str(account))
                with listener.accept()[0] as connection:
                    assert protocol.from_own_user(connection) is welcome


def test_a_folder_that_others_could_enter_is_refused(tmp_path: Path):
    folder = runtime_folder(str(tmp_path))
    assert folder.stat().st_mode & 0o777 == 0o700
    assert runtime_folder(str(tmp_path)) == folder
    folder.chmod(0o755)
    with pytest.raises(PermissionError, match="closed to others"):
        runtime_folder(str(tmp_path))


def test_messages_are_objects(tmp_path: Path):
    for line in (b"[]\n", b"7\n", b"x\n", b"[" * 100_000 + b"\n"):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            sender = threading.Thread(target=theirs.sendall, args=(line,))
            sender.start()
            with pytest.raises(ValueError):
                protocol.receive(ours)
            sender.join()
