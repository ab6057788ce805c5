"""`WarmRunLauncher`: starts a run by forking a process that has the code location loaded already."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import dagster as dg
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher.base import CheckRunHealthResult, LaunchRunContext, RunLauncher, WorkerStatus
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher
from dagster._serdes import ConfigurableClass, ConfigurableClassData, deserialize_value, serialize_value

from quayside.foundation.dagster.launcher import protocol
from quayside.foundation.dagster.launcher.coordinator import PromptRunCoordinator
from quayside.foundation.dagster.launcher.processes import Records, memory_mb, this_host
from quayside.foundation.dagster.launcher.servers import LOGGER, CannotWarmError, Options, Servers, Version
from quayside.foundation.dagster.launcher.warden import ALIVE_SECONDS, ALIVE_TAG

if TYPE_CHECKING:
    from dagster._config import UserConfigSchema
    from dagster._core.storage.dagster_run import DagsterRun

#: Tag that says which host and which fork server a run was given to. Hidden in the UI, as Dagster's own are.
WORKER_TAG: Final = ".dagster/warm_worker"
#: What the tag says of a run that the default launcher started in our place.
DEFAULT_LAUNCHER: Final = "default"


class WarmRunLauncher(RunLauncher[dg.DagsterInstance], ConfigurableClass):
    """Starts each run in a process forked from a warm server of its code location, beside this launcher.

    The server has imported the code and resolved its definitions, so a run starts in some ten milliseconds instead of
    seconds, in a process of its own as with Dagster's default launcher. Where that cannot be done (the code is not
    importable here, something open at import forbids forking) the default launcher starts the run, and one warning
    says why.

    In ``dagster.yaml``::

        run_launcher:
          module: quayside.foundation.dagster.launcher
          class: WarmRunLauncher
    """

    def __init__(self, options: Options, inst_data: ConfigurableClassData | None = None) -> None:
        self._options = options
        self._inst_data = inst_data
        self._default = DefaultRunLauncher()
        self._servers: Servers | None = None
        self._warned = False
        self._lock = threading.Lock()
        self._host = this_host()
        super().__init__()

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        return self._inst_data

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        return {
            "idle_minutes": dg.Field(
                dg.Noneable(float),
                default_value=10.0,
                description="A server without runs for this long ends.",
            ),
            "grace_seconds": dg.Field(
                float, default_value=30.0, description="From being asked to end until a run is killed."
            ),
            "start_seconds": dg.Field(
                float, default_value=120.0, description="How long loading a code location may take."
            ),
            "max_memory_mb": dg.Field(
                float,
                default_value=2048.0,
                description="Servers unused for longest end when all together take more than this.",
            ),
            "mirror_logs": dg.Field(
                bool,
                default_value=False,
                description="Copy the output of steps to the terminal as well, which takes four more processes each.",
            ),
            "preload": dg.Field(
                [str],
                default_value=[],
                description="Modules that runs import late and every server is to import beforehand.",
            ),
            "base_folder": dg.Field(
                dg.Noneable(dg.StringSource),
                default_value=None,
                description="Where sockets and run records are; a local disk. By default XDG_RUNTIME_DIR or /tmp.",
            ),
        }

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> Self:
        minutes = config_value["idle_minutes"]
        options = Options(
            idle_seconds=minutes * 60 if minutes is not None else float("inf"),
            grace_seconds=config_value["grace_seconds"],
            start_seconds=config_value["start_seconds"],
            max_memory_mb=config_value["max_memory_mb"],
            mirror_logs=config_value["mirror_logs"],
            preload=config_value["preload"],
            base_folder=config_value["base_folder"],
        )
        return cls(options, inst_data)

    def register_instance(self, instance: dg.DagsterInstance) -> None:
        super().register_instance(instance)
        self._default.register_instance(instance)

    # Starting

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start a run: forked from a warm server, else by the default launcher."""
        run = context.dagster_run
        try:
            version = self._version(context)
            servers = self._warm_servers()
            # Noted first, so that the run is known as ours from its process's first moment on.
            place = {"host": self._host, "folder": str(servers.folder), "at": int(time.time())}
            self._instance.add_run_tags(run.run_id, {WORKER_TAG: json.dumps(place)})
            coordinator = self._instance.run_coordinator
            linger = coordinator.linger_seconds if isinstance(coordinator, PromptRunCoordinator) else 0.0
            servers.run(version, run.run_id, serialize_value(run), linger)
        except CannotWarmError as reason:
            # Written even where there is none: a retried run has the tags of the run before it.
            self._instance.add_run_tags(run.run_id, {WORKER_TAG: DEFAULT_LAUNCHER})
            self._instance.report_engine_event(
                f"Started by Dagster's default launcher, because forking it is not possible: {reason}.", run
            )
            self._default.launch_run(context)

    def _version(self, context: LaunchRunContext) -> Version:
        run = context.dagster_run
        if run.remote_job_origin is None or run.job_code_origin is None or context.workspace is None:
            raise CannotWarmError("the run does not say where its code is")
        location = run.remote_job_origin.location_name
        loaded = context.workspace.get_code_location(location)
        origin = run.job_code_origin.repository_origin
        load_data = None
        if run.has_repository_load_data and run.execution_plan_snapshot_id is not None:
            snapshot = self._instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id)
            load_data = (
                serialize_value(snapshot.repository_load_data) if snapshot.repository_load_data else None
            )
        return Version(
            location=location,
            origin=serialize_value(origin),
            server_id=str(getattr(loaded, "server_id", "")),
            load_data=load_data,
            executable=origin.executable_path,
            folder=getattr(origin.code_pointer, "working_directory", None),
        )

    def _warm_servers(self) -> Servers:
        with self._lock:
            if self._servers is None:
                try:
                    self._servers = Servers(self._options, serialize_value(self._instance.get_ref()))
                except OSError as error:
                    if not self._warned:
                        self._warned = True
                        LOGGER.warning("Runs are started by Dagster's default launcher: %s.", error)
                    raise CannotWarmError(f"the folder of its sockets cannot be used ({error})") from None
            return self._servers

    # Ending

    def terminate(self, run_id: str) -> bool:
        """Ask a run to end; it is killed after the grace period.

        Returns:
            False when it had ended already.
        """
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        if _by_default_launcher(run):
            return self._default.terminate(run_id)
        self._instance.report_run_canceling(run)
        place = json.loads(run.tags[WORKER_TAG])
        if place["host"] != self._host:
            return True  # its warden there reads the run's state every other second
        record = Records(Path(place["folder"]) / "runs").find(run_id)
        if record is None or not record.process.alive():
            self._instance.report_run_canceled(run, "Canceled; the run's process had ended already.")
            return True
        try:
            protocol.request(record.server, {"what": "cancel", "run_id": run_id})
        except protocol.NoServerError:
            # The server was killed, its runs go on. The warden that looks after them kills this one if need be.
            record.process.signal(signal.SIGINT)
        return True

    def dispose(self) -> None:
        """Let the servers end once their runs have."""
        with self._lock:
            servers, self._servers = self._servers, None
        if servers is not None:
            servers.release()

    def join(self, timeout: int = 30) -> None:
        """Wait until no run started here is going.

        Raises:
            TimeoutError: some still are after ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        while self._servers is not None and (going := self._servers.runs()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"Runs still going after {timeout} s: {', '.join(going)}.")
            time.sleep(0.05)
        self._default.join(timeout)

    # Health

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Always: run monitoring may be switched on."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the run's process lives, for run monitoring."""
        if _by_default_launcher(run):
            return self._default_health(run)
        place = json.loads(run.tags[WORKER_TAG])
        if place["host"] != self._host:
            return _distant_health(run, place)
        record = Records(Path(place["folder"]) / "runs").find(run.run_id)
        if record is not None and record.process.alive():
            return CheckRunHealthResult(WorkerStatus.RUNNING, run_worker_id=str(record.process.pid))
        return CheckRunHealthResult(
            WorkerStatus.FAILED,
            "The run's process is gone, and nobody was left to record how it ended (the fork server and its warden "
            "were killed as well, or the host was restarted).",
        )

    def get_run_worker_debug_info(
        self, run: DagsterRun, include_container_logs: bool | None = True
    ) -> str | None:
        """Where the run's process is, whether it lives, and its memory."""
        if _by_default_launcher(run):
            return None
        place = json.loads(run.tags[WORKER_TAG])
        if place["host"] != self._host:
            return f"The run's process is on another host: {place['host']}."
        record = Records(Path(place["folder"]) / "runs").find(run.run_id)
        if record is None or not record.process.alive():
            return "The run has no process any more."
        size = memory_mb(record.process.pid)["proportional"]
        return f"The run's process {record.process.pid} lives and uses {size:.0f} MB."

    def _default_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """What the code server says of a run it executes. It cannot be asked: as far as we know, all is well."""
        from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult

        client = self._default._get_grpc_client_for_termination(run.run_id)
        if client is None:
            return CheckRunHealthResult(
                WorkerStatus.RUNNING, "The run does not say which server executes it."
            )
        try:
            answer = client.can_cancel_execution(CanCancelExecutionRequest(run_id=run.run_id), timeout=10)
        except DagsterUserCodeUnreachableError:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "Its code server does not answer now.")
        if deserialize_value(answer, CanCancelExecutionResult).can_cancel:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(
            WorkerStatus.FAILED, "Its code server has no process for this run any more."
        )


def _by_default_launcher(run: DagsterRun) -> bool:
    return run.tags.get(WORKER_TAG, DEFAULT_LAUNCHER) == DEFAULT_LAUNCHER


def _distant_health(run: DagsterRun, place: Mapping[str, Any]) -> CheckRunHealthResult:
    """The state of a run whose host cannot be looked at: from the last sign of life its warden gave."""
    # The later of the two: a retried run has the sign of the run before it until it gives one itself.
    silent = time.time() - max(place["at"], int(run.tags.get(ALIVE_TAG, 0)))
    if silent < 3 * ALIVE_SECONDS:
        return CheckRunHealthResult(
            WorkerStatus.RUNNING, f"Sign of life {silent:.0f} s ago from {place['host']}."
        )
    return CheckRunHealthResult(
        WorkerStatus.FAILED, f"No sign of life from {place['host']} for {silent:.0f} s: that host is gone."
    )
