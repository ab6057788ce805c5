"""The processes behind `quayside up`: a code server per location, one webserver, one daemon, and their end.

Every child carries a token in its environment, and so does whatever it starts (runs, the servers behind the code
servers). What is left when all have been asked to end is found by that token, whoever its parent is by then. Database
servers are started with an environment of their own and stay. A child gets SIGTERM when this process dies, even by
SIGKILL; the code servers' own children follow within Dagster's heartbeat of 30 seconds, after the run they are in.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from quayside.foundation.errors import ServiceUnavailableError, SettingsError
from quayside.foundation.processes import end_processes, private_folder, wait_until
from quayside.foundation.settings import Settings, project_root

TOKEN: Final = "QUAYSIDE_UP_TOKEN"  # noqa: S105 - a name
#: A log of this size is put aside at the next start; the one put aside before it goes.
LOG_LIMIT_BYTES: Final = 10_000_000
CODE_SERVER_SECONDS: Final = 180.0

_PR_SET_PDEATHSIG: Final = 1
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class Service:
    """One child: its name, where its output goes, and the process once it was started."""

    name: str
    command: list[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def alive(self) -> bool:
        """Whether it was started and has not ended."""
        return self.process is not None and self.process.poll() is None


@dataclass
class Services:
    """All of them, for one `quayside up`."""

    settings: Settings
    host: str
    port: int
    workspace: Path
    _folder: Path = field(
        default_factory=lambda: Path(tempfile.mkdtemp(prefix="quayside-up-", dir=_short_folder()))
    )
    _token: str = field(default_factory=lambda: secrets.token_hex(16))
    _children: list[Service] = field(default_factory=list)

    def start(self) -> None:
        """Start everything; it is not ready yet then.

        Raises:
            SettingsError: the workspace file cannot be used.
            ServiceUnavailableError: a code server ended before it listened.
        """
        entries, sockets = [], []
        for entry in read_workspace(self.workspace):
            module = entry.get("python_module")
            if module is None:
                entries.append(
                    entry
                )  # somebody's own kind of location: webserver and daemon load it themselves
                continue
            if isinstance(module, str):
                module = {"module_name": module}
            name = module.get("location_name") or module["module_name"]
            socket = self._folder / f"{len(sockets)}.sock"
            command = ["dagster", "code-server", "start", "--socket", str(socket), "--location-name", name]
            command += ["--module-name", module["module_name"], "--use-python-environment-entry-point"]
            if attribute := module.get("attribute"):
                command += ["--attribute", attribute]
            sockets.append((self._spawn(f"code-{name}", command), socket))
            entries.append({"grpc_server": {"socket": str(socket), "location_name": name}})
        for service, socket in sockets:
            listening = wait_until(
                lambda s=socket, c=service: s.exists() or not c.alive(), CODE_SERVER_SECONDS
            )
            if not listening or not service.alive():
                raise ServiceUnavailableError(f"The {service.name} server did not start; see {service.log}.")
        served = self._folder / "workspace.yaml"
        served.write_text(yaml.safe_dump({"load_from": entries}), "utf-8")
        web = ["dagster_webserver", "--host", self.host, "--port", str(self.port), "--workspace", str(served)]
        self._spawn("webserver", web)
        self._spawn("daemon", ["dagster._daemon", "run", "--workspace", str(served)])

    def _spawn(self, name: str, command: list[str]) -> Service:
        log = self.settings.home / "logs" / f"{name}.log"
        private_folder(log.parent)
        if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
            log.replace(log.with_suffix(".log.1"))
        if command[0] != "dagster":
            command = [*command, "--log-format", "json" if self.settings.log_format == "json" else "colored"]
        service = Service(name, [sys.executable, "-m", *command], log)
        parent = os.getpid()
        with log.open("ab") as output:
            service.process = subprocess.Popen(
                service.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=project_root(),
                env=self._environment(),
                # A terminal's Ctrl-C is for us alone: we end the others in order.
                start_new_session=True,
                preexec_fn=lambda: _in_child(parent),
            )
        self._children.append(service)
        return service

    def _environment(self) -> Mapping[str, str]:
        own = {
            TOKEN: self._token,
            "QUAYSIDE_HOME": str(self.settings.home),
            "DAGSTER_HOME": str(self.settings.dagster_home_path),
            "PYTHONUNBUFFERED": "1",
        }
        if self.settings.origin("dagster_webserver_url") == "default":
            own["DAGSTER_WEBSERVER_URL"] = f"http://localhost:{self.port}"
        return os.environ | own

    def ended(self) -> Service | None:
        """A child that has ended although nobody asked it to, if there is one."""
        return next((service for service in self._children if not service.alive()), None)

    def logs(self) -> list[Path]:
        """The file each child writes its output to."""
        return [service.log for service in self._children]

    def end(self, *names: str, seconds: float) -> None:
        """Ask the named children (a prefix is enough) to end, and kill those which have not after ``seconds``."""
        pids = [s.process.pid for s in self._children if s.name.startswith(names) and s.process and s.alive()]
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not any(s.alive() for s in self._children if s.name.startswith(names)), seconds)
        for service in self._children:
            if service.name.startswith(names) and service.process and service.alive():
                service.process.kill()
                service.process.wait()

    def end_leftovers(self, seconds: float) -> list[int]:
        """End whatever still carries our token, and forget the sockets; the process ids it had to end."""
        left = self.leftovers()
        end_processes(left, signal.SIGTERM, seconds)
        shutil.rmtree(self._folder, ignore_errors=True)
        return left

    def leftovers(self) -> list[int]:
        """Processes that carry our token."""
        wanted = f"{TOKEN}={self._token}".encode()
        found: list[int] = []
        for environment in Path("/proc").glob("[0-9]*/environ"):
            try:
                if wanted in environment.read_bytes().split(b"\0"):
                    found.append(int(environment.parent.name))
            except OSError:  # it ended meanwhile, or belongs to somebody else
                continue
        return found


def _in_child(parent: int) -> None:
    """Between fork and exec: ask for SIGTERM when the parent dies."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def _short_folder() -> str | None:
    """Where sockets can be made: their paths end at 107 bytes, which a long TMPDIR leaves no room for."""
    return None if len(tempfile.gettempdir()) < 60 else "/tmp"  # noqa: S108 - the folder made in it is private


def read_workspace(path: Path) -> list[dict[str, Any]]:
    """The entries of a workspace file.

    Raises:
        SettingsError: there is no such file, or it is not a workspace.
    """
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
        entries = content["load_from"]
    except OSError as error:
        raise SettingsError(f"The workspace {path} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, TypeError, KeyError):
        raise SettingsError(f"The workspace {path} is not YAML with a list `load_from`.") from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise SettingsError(f"The workspace {path} is not YAML with a list `load_from`.")
    return entries


def prepare_dagster_home(settings: Settings) -> str | None:
    """Make DAGSTER_HOME and link our ``dagster.yaml`` into it, so that it follows ours.

    Returns:
        A sentence for the person when a file of theirs is there and is left as it is.

    Raises:
        SettingsError: the project has no ``dagster.yaml``, or the folder cannot be made.
    """
    shipped, home = project_root() / "dagster.yaml", settings.dagster_home_path
    if not shipped.is_file():
        raise SettingsError(f"There is no {shipped}; run this in a checkout of Quayside.")
    used = home / "dagster.yaml"
    try:
        private_folder(home)
        if used.is_symlink() and used.resolve() != shipped.resolve() and not used.exists():
            used.unlink()  # ours of a checkout that is gone or was moved
        if not used.is_symlink() and not used.exists():
            used.symlink_to(shipped)
    except OSError as error:
        raise SettingsError(f"DAGSTER_HOME {home} cannot be prepared: {error.strerror}.") from None
    if used.resolve() != shipped.resolve() and used.read_bytes() != shipped.read_bytes():
        return f"{used} is not the dagster.yaml of this project and is used as it is; {shipped} is the one it replaces."
    return None
