"""What the launcher's tests share: a project on disk, runs of its jobs, and the processes that belong to them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import yaml
from dagster._core.code_pointer import FileCodePointer
from dagster._core.instance.ref import InstanceRef
from dagster._core.origin import DEFAULT_DAGSTER_ENTRY_POINT, JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from quayside.foundation.dagster.launcher import protocol
from quayside.foundation.dagster.launcher.launcher import WORKER_TAG, WarmRunLauncher
from quayside.foundation.dagster.launcher.processes import Process, Record, Records
from quayside.foundation.dagster.launcher.servers import Servers
from quayside.foundation.dagster.launcher.worker import pool_connections

#: In the environment of everything these tests start, by whatever parent.
TOKEN = "WARM_LAUNCHER_TEST"
LOCATION = "project"
#: Enough for an op that cleans up on a machine that has much else to do.
GRACE_SECONDS = 5.0


def until(condition: Callable[[], Any], seconds: float = 240, what: object = None) -> Any:
    """What the condition returns once that is true."""
    deadline, pause = time.monotonic() + seconds, 0.01
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what or condition}"
        time.sleep(pause)
        pause = min(pause * 1.3, 0.1)  # looking costs time that what we wait for could have
    return found


def with_token() -> dict[int, str]:
    """Living processes with this session's token: id → command line."""
    wanted = f"{TOKEN}={os.environ[TOKEN]}".encode()
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if int(entry.name) == os.getpid() or wanted not in (entry / "environ").read_bytes().split(b"\0"):
                continue
            found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # it ended meanwhile, or waits to be reaped
            continue
    return found


def children(parent: int) -> set[int]:
    """Ids of the living children of a process."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent and fields[0] not in "ZX":
            found.add(int(entry.parent.name))
    return found


def make_project(folder: Path, **settings: Any) -> Path:
    """The folder with the definitions of `project`, and `settings.json` that they read at import."""
    folder.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("project.py"), folder / "defs.py")
    (folder / "settings.json").write_text(json.dumps(settings))
    # Older than the server that loads them: a file saved while it loads counts as changed.
    for path in folder.iterdir():
        os.utime(path, (time.time() - 60,) * 2)
    return folder


def write_config(home: Path, postgres_url: str | None, options: Mapping[str, Any], **more: Any) -> Path:
    """``dagster.yaml`` with the launcher. Without a URL Dagster keeps its state in SQLite files there."""
    home.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = {
        "run_launcher": {
            "module": "quayside.foundation.dagster.launcher",
            "class": "WarmRunLauncher",
            "config": {"grace_seconds": GRACE_SECONDS, "base_folder": str(home), **options},
        },
        # Code servers have ended when a workspace is left, not some time after.
        "code_servers": {"wait_for_local_processes_on_shutdown": True},
        "telemetry": {"enabled": False},
        **more,
    }
    if postgres_url is not None:
        config["storage"] = {"postgres": {"postgres_url": postgres_url}}
    (home / "dagster.yaml").write_text(yaml.safe_dump(config))
    return home


def open_instance(home: Path) -> dg.DagsterInstance:
    instance = dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home)))
    pool_connections(instance)
    return instance


@dataclass
class Bench:
    """An instance with the launcher, and one code location.

    Without a ``workspace`` no code server stands behind the location: enough for everything but the default launcher,
    and `server_id` is then ours to change as a reload would.
    """

    instance: dg.DagsterInstance
    project: Path
    folder: Path
    workspace: Any = None
    server_id: str = "1"
    executable: str = sys.executable
    launched: list[str] = field(default_factory=list)

    # Runs

    def create(self, job: str, **tags: str) -> str:
        """A run of ``<job>_job`` that is not started."""
        job = f"{job}_job"
        tags = {"folder": str(self.folder), **tags}
        found = self._of_workspace(job) if self.workspace is not None else self._by_hand(job)
        run = self.instance.create_run(
            **{
                **dict.fromkeys(_NONE),
                "job_name": job,
                "run_config": {},
                "status": dg.DagsterRunStatus.NOT_STARTED,
                "tags": tags,
                "asset_graph": None,
                **found,
            }
        )
        return run.run_id

    def launch(self, run_id: str) -> None:
        """Start it as the daemon does."""
        self.launched.append(run_id)
        self.instance.launch_run(run_id, self.workspace or self._stub())

    def submit(self, job: str, **tags: str) -> str:
        """Start a run of the job; its id."""
        run_id = self.create(job, **tags)
        self.launch(run_id)
        return run_id

    def run(self, run_id: str) -> dg.DagsterRun:
        found = self.instance.get_run_by_id(run_id)
        assert found is not None
        return found

    def finished(self, run_id: str) -> str:
        """Wait for its end; how it ended."""
        until(
            lambda: self.run(run_id).is_finished,
            what=f"{self.run(run_id)} ended: {self.texts(run_id)}",
        )
        return self.run(run_id).status.value

    def started(self, run_id: str) -> dict[str, Any]:
        """Wait until its op has begun; what that said of itself."""
        mark = self.folder / f"{run_id}.started"
        until(mark.exists, what=f"op of {self.run(run_id)} began: {self.texts(run_id)}")
        return json.loads(mark.read_text())

    def saw(self, job: str = "look", **tags: str) -> dict[str, Any]:
        """Run it to success; what it saw."""
        run_id = self.submit(job, **tags)
        assert self.finished(run_id) == "SUCCESS", self.texts(run_id)
        return json.loads((self.folder / f"{run_id}.json").read_text())

    def events(self, run_id: str) -> list[str]:
        """Types of its events, in order."""
        return [e.dagster_event.event_type_value for e in self.instance.all_logs(run_id) if e.dagster_event]

    def texts(self, run_id: str) -> list[str]:
        """What its events say."""
        return [
            (e.dagster_event.message if e.dagster_event else e.user_message) or ""
            for e in self.instance.all_logs(run_id)
        ]

    def said(self, run_id: str, words: str) -> bool:
        """Whether an event says that."""
        return any(words in text for text in self.texts(run_id))

    def warm(self, run_id: str) -> bool:
        """Whether it was forked, not started by the default launcher."""
        return self.said(run_id, "forked from a warm server")

    # Processes

    @property
    def launcher(self) -> WarmRunLauncher:
        launcher = self.instance.run_launcher
        assert isinstance(launcher, WarmRunLauncher)
        return launcher

    @property
    def servers(self) -> Servers:
        return self.launcher._warm_servers()

    @property
    def records(self) -> Records:
        return self.servers.records

    def server(self) -> Any:
        """The one server there is."""
        [server] = self.servers._servers.values()
        return server

    def server_process(self) -> Process:
        return Process.of(self.server().process.pid)

    def status(self) -> dict[str, Any]:
        return protocol.request(self.server().socket, {"what": "status"})

    def warden(self) -> Process:
        """The server's warden: the child that is no run."""
        server = self.server().process.pid

        def found() -> set[int]:
            runs = {r.process.pid for run_id in self.launched if (r := self.records.find(run_id))}
            return children(server) - runs

        [pid] = until(lambda: len(found()) == 1 and found())
        return Process.of(pid)

    def record(self, run_id: str) -> Record:
        return until(lambda: self.records.find(run_id))

    def place(self, run_id: str, **changes: Any) -> None:
        """Change what is noted of where the run is."""
        noted = json.loads(self.run(run_id).tags[WORKER_TAG])
        self.instance.add_run_tags(run_id, {WORKER_TAG: json.dumps({**noted, **changes})})

    def standing(self) -> set[int]:
        """Processes that may be there while no run is going: code server, warm servers and a warden of each."""
        servers = self.launcher._servers
        warm = {s.process.pid for s in servers._servers.values()} if servers else set()
        code = {
            pid
            for pid, line in with_token().items()
            if "dagster api grpc" in line or "resource_tracker" in line
        }
        wardens = [children(server) for server in warm]
        return warm | code | {pid for found in wardens if len(found) == 1 for pid in found}

    # What a run is made of

    def _of_workspace(self, job: str) -> dict[str, Any]:
        [location] = self.workspace.code_locations
        [repository] = location.get_repositories().values()
        remote = repository.get_full_job(job)
        plan = self.workspace.get_execution_plan(remote, {}, step_keys_to_execute=None, known_state=None)
        return {
            "execution_plan_snapshot": plan.execution_plan_snapshot,
            "job_snapshot": remote.job_snapshot,
            "remote_job_origin": remote.get_remote_origin(),
            "job_code_origin": remote.get_python_origin(),
            "asset_graph": repository.asset_graph,
        }

    def _by_hand(self, job: str) -> dict[str, Any]:
        file, folder = str(self.project / "defs.py"), str(self.project)
        target = LoadableTargetOrigin(
            executable_path=self.executable, python_file=file, working_directory=folder
        )
        location = ManagedGrpcPythonEnvCodeLocationOrigin(target, LOCATION)
        code = RepositoryPythonOrigin(
            self.executable, FileCodePointer(file, "defs", folder), None, DEFAULT_DAGSTER_ENTRY_POINT, None
        )
        return {
            "remote_job_origin": RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), job),
            "job_code_origin": JobPythonOrigin(job, code),
        }

    def _stub(self) -> Any:
        return SimpleNamespace(get_code_location=lambda _: SimpleNamespace(server_id=self.server_id))


_NONE = (
    "run_id",
    "root_run_id",
    "parent_run_id",
    "step_keys_to_execute",
    "execution_plan_snapshot",
    "job_snapshot",
    "parent_job_snapshot",
    "asset_selection",
    "asset_check_selection",
    "resolved_op_selection",
    "op_selection",
)


@contextmanager
def stopped(process: Process) -> Iterator[None]:
    """The process does nothing meanwhile."""
    process.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.signal(signal.SIGCONT)
