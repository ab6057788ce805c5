"""Redis: yours, or the embedded Valkey."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from quayside.foundation import processes
from quayside.foundation.errors import ServiceUnavailableError, SettingsError
from quayside.foundation.settings import Settings
from quayside.foundation.valkey import EmbeddedValkey, client, redis_url

START = (
    "import sys; from pathlib import Path; from quayside.foundation.valkey import EmbeddedValkey; "
    "server = EmbeddedValkey(Path(sys.argv[1])); print(server.start(), server.status().pid)"
)


def settings_of(home: Path, **variables: Any) -> Settings:
    return Settings(_env_file=None, QUAYSIDE_HOME=str(home), **variables)  # pyright: ignore[reportCallIssue]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    server = EmbeddedValkey(tmp_path)
    yield server
    server.stop()


@pytest.mark.integration
def test_it_is_made_once_says_so_and_keeps_what_it_was_given(
    server: EmbeddedValkey, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_of(tmp_path)
    with client(settings) as connection:
        connection.set("key", "value")
    assert capsys.readouterr().err == f"quayside: creating an embedded Valkey in {server.data}\n"
    status = server.status()
    assert status.running
    assert status.pid in processes.processes_in(server.data)
    assert status.version == "9.1.2"
    assert status.address == f"127.0.0.1:{server.port}"
    assert server.start() is False

    assert server.stop() is True
    assert server.stop() is False
    assert server.status().pid is None
    with client(settings) as connection:
        assert connection.get("key") == b"value"
    assert server.status().address == status.address, "the port is kept"
    assert capsys.readouterr().err == ""


@pytest.mark.integration
def test_strangers_are_refused(server: EmbeddedValkey) -> None:
    server.start()
    assert server.port is not None
    with (
        redis.Redis("127.0.0.1", server.port, retry=Retry(NoBackoff(), 0)) as stranger,
        pytest.raises(redis.AuthenticationError, match="Authentication required"),
    ):
        stranger.ping()
    for name in ("password", "valkey.conf", "valkey.log"):
        assert (server.folder / name).stat().st_mode & 0o077 == 0, name
    commands = Path(f"/proc/{server.status().pid}/cmdline").read_text()
    assert server.password not in commands


@pytest.mark.integration
def test_a_path_no_socket_can_have(tmp_path: Path) -> None:
    server = EmbeddedValkey(tmp_path / ("deep/" * 30 + "with space, ünïcode"))
    assert server.start() is True
    assert server.is_ready()
    assert server.stop() is True


@pytest.mark.integration
def test_eight_processes_at_once_make_one_server(server: EmbeddedValkey, tmp_path: Path) -> None:
    starters = [
        subprocess.Popen([sys.executable, "-c", START, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(8)
    ]
    outputs = [starter.communicate(timeout=300)[0].split() for starter in starters]
    assert sorted(output[0] for output in outputs) == ["False"] * 7 + ["True"]
    assert {output[1] for output in outputs} == {str(server.status().pid)}


@pytest.mark.integration
def test_kill_9(server: EmbeddedValkey, tmp_path: Path) -> None:
    with client(settings_of(tmp_path)) as connection:
        connection.set("key", "value")
        # appendfsync everysec survives the death of the process: the kernel has the bytes.
        pids = processes.processes_in(server.data)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
    assert processes.wait_until(lambda: not server.is_ready(), 120)
    with client(settings_of(tmp_path)) as connection:
        assert connection.get("key") == b"value"


@pytest.mark.integration
def test_another_port_when_somebody_took_ours(server: EmbeddedValkey) -> None:
    server.start()
    old = server.port
    assert old is not None
    server.stop()
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thief.bind(("127.0.0.1", old))
        thief.listen()
        assert not server.is_ready()
        assert server.start() is True
        assert server.port != old
        thief.setblocking(False)
        with pytest.raises(BlockingIOError):
            thief.accept()  # nobody told it our password


@pytest.mark.integration
def test_a_port_lost_at_the_last_moment(server: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch) -> None:
    from quayside.foundation import valkey

    with socket.socket() as thief:
        thief.bind(("127.0.0.1", 0))
        thief.listen()
        taken = thief.getsockname()[1]
        choose, chosen = valkey._free_port, []

        def unlucky(wanted: int | None) -> int:
            chosen.append(wanted)
            return taken if len(chosen) == 1 else choose(wanted)

        monkeypatch.setattr(valkey, "_free_port", unlucky)
        assert server.start() is True
        assert server.port != taken
        thief.setblocking(False)
        with pytest.raises(BlockingIOError):
            thief.accept()


@pytest.mark.integration
def test_folder_removed_under_a_running_server(server: EmbeddedValkey, tmp_path: Path) -> None:
    server.start()
    old = server.status().pid
    assert old is not None
    shutil.rmtree(tmp_path / "valkey")
    assert server.start() is True
    assert server.status().pid != old
    assert not processes.processes_in(server.data, deleted=True)


@pytest.mark.integration
def test_one_sentence_says_why_it_does_not_start(server: EmbeddedValkey, tmp_path: Path) -> None:
    server.start()
    server.stop()
    manifest = next((server.data / "appendonlydir").glob("*.manifest"))
    manifest.write_text("nonsense\n")
    with pytest.raises(ServiceUnavailableError, match=r"Valkey in .* did not start: .*") as caught:
        redis_url(settings_of(tmp_path))
    assert "manifest" in str(caught.value) or "AOF" in str(caught.value)


@pytest.mark.integration
def test_your_own_server(server: EmbeddedValkey, tmp_path: Path) -> None:
    server.start()
    mine: dict[str, Any] = {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": server.port, "REDIS_DB": 3}
    home = tmp_path / "another"
    with client(settings_of(home, REDIS_PASSWORD=server.password, **mine)) as connection:
        assert connection.connection_pool.connection_kwargs["db"] == 3
    assert not home.exists()
    wrong = "wrong-password"
    with pytest.raises(SettingsError, match=r"Redis at 127\.0\.0\.1:\d+ refuses the connection") as caught:
        client(settings_of(home, REDIS_PASSWORD=wrong, **mine))
    assert wrong not in str(caught.value)
    with pytest.raises(SettingsError, match=r"Correct REDIS_PASSWORD or REDIS_DB"):
        client(settings_of(home, REDIS_PASSWORD=server.password, **(mine | {"REDIS_DB": 99})))


@pytest.mark.unit
def test_your_own_server_that_does_not_answer(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        with pytest.raises(
            ServiceUnavailableError, match=rf"^Redis at 127\.0\.0\.1:{port} does not answer: "
        ):
            client(settings_of(tmp_path, REDIS_HOST="127.0.0.1", REDIS_PORT=port))


@pytest.mark.unit
@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({"REDIS_HOST": "cache"}, "redis://cache:6379/0"),
        ({"REDIS_HOST": "cache", "REDIS_PASSWORD": "p@s/s:"}, "redis://:p%40s%2Fs%3A@cache:6379/0"),
        ({"REDIS_HOST": "::1", "REDIS_PORT": 7, "REDIS_DB": 2}, "redis://[::1]:7/2"),
    ],
)
def test_url_of_your_own_server(tmp_path: Path, variables: dict[str, Any], url: str) -> None:
    assert redis_url(settings_of(tmp_path, **variables)) == url
