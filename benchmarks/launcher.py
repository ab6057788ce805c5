"""Dagster's default run launcher and the warm one, side by side: runs per minute, CPU, time to start, memory.

    make bench-launcher

For every line a fresh PostgreSQL database, a code server (`dagster api grpc`) and a `dagster-daemon` are started. After
three runs that are not counted, the daemon is halted, `RUNS` runs of a job with one empty op are put into its queue, and
the clock starts when it goes on. The executor is the in-process one. CPU is read from /proc for the processes of the
line (daemon, code server, fork server, runs) and for PostgreSQL apart. At the end `SINGLE` runs are requested one after the other.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import dagster as dg
import psycopg
import sqlalchemy as sa
import yaml
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import GrpcServerTarget
from psycopg.sql import SQL, Identifier

from benchmarks import report
from quayside.foundation.postgres import database_url
from quayside.foundation.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

RUNS: Final = 200
SINGLE: Final = 10
CONCURRENCY: Final = (2, 5, 25)
TOKEN: Final = "QUAYSIDE_BENCH_LAUNCHER"
TICKS: Final = os.sysconf("SC_CLK_TCK")

TUNED_QUEUE: Final = {
    "dequeue_interval_seconds": 1,
    "dequeue_use_threads": True,
    "dequeue_num_workers": 8,
}
WARM: Final = {"module": "quayside.foundation.dagster.launcher", "class": "WarmRunLauncher"}


@dataclass(frozen=True)
class Setup:
    """One way to configure an instance."""

    name: str
    queue: dict[str, Any]
    launcher: dict[str, Any] | None = None
    pooled: bool = False
    prompt: bool = False


SETUPS: Final = {
    "shipped": Setup("default launcher, as shipped", {}),
    "tuned": Setup("default launcher, threaded queue", TUNED_QUEUE),
    "warm": Setup("**warm launcher**, threaded queue", TUNED_QUEUE, WARM),
    "prompt": Setup("**warm launcher**, prompt queue", {}, WARM, prompt=True),
    "platform": Setup(
        "**warm launcher**, prompt queue, Quayside's storage", {}, WARM, pooled=True, prompt=True
    ),
}


@dataclass(frozen=True)
class Measured:
    """What one line measured. Seconds unless named otherwise."""

    runs_per_minute: float
    client_cpu: float
    server_cpu: float
    burst: list[float]
    single: list[float]
    launch: list[float]
    peak_mb: float
    processes: int


def measure(setup: Setup, concurrency: int, runs: int) -> Measured:
    """Run one line.

    Raises:
        RuntimeError: a run did not succeed, or the queue did not move.
    """
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-launcher-")))
        url, postmaster = stack.enter_context(fresh_database())
        environment = {
            **{k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"},
            "DAGSTER_HOME": str(home),
            "BENCH_POSTGRES_URL": url,
            TOKEN: str(home),
        }
        os.environ.update(environment)
        if setup.pooled:
            os.environ["QUAYSIDE_DATABASE_URL"] = environment["QUAYSIDE_DATABASE_URL"] = url.replace(
                "+psycopg2", "", 1
            )
        (home / "dagster.yaml").write_text(yaml.safe_dump(instance_yaml(setup, concurrency)), "utf-8")
        instance = stack.enter_context(dg.DagsterInstance.from_config(str(home)))
        sock = str(home / "code.sock")
        stack.enter_context(
            child(
                ["dagster", "api", "grpc", "--socket", sock, "-m", "benchmarks.launcher_location"],
                environment,
                home / "code.log",
            )
        )
        wait_for(lambda: Path(sock).exists(), 60, "the code server")
        (home / "workspace.yaml").write_text(
            yaml.safe_dump({"load_from": [{"grpc_server": {"socket": sock, "location_name": "bench"}}]})
        )
        context = stack.enter_context(
            WorkspaceProcessContext(instance, GrpcServerTarget("localhost", None, sock, "bench"))
        )
        daemon = stack.enter_context(
            child(
                ["dagster._daemon", "run", "--workspace", str(home / "workspace.yaml")],
                environment,
                home / "daemon.log",
            )
        )
        submit(instance, context, create(instance, context, 3))
        finished(instance, 3, 120)
        return _measured(setup, instance, context, daemon, postmaster, runs)


def _measured(
    setup: Setup,
    instance: dg.DagsterInstance,
    context: WorkspaceProcessContext,
    daemon: subprocess.Popen[bytes],
    postmaster: int,
    runs: int,
) -> Measured:
    before = len(instance.get_run_ids())
    burst = create(instance, context, runs)
    daemon.send_signal(signal.SIGSTOP)
    submit(instance, context, burst)
    clients, server = tree_cpu(), postgres_cpu(postmaster)
    begun = time.time()
    daemon.send_signal(signal.SIGCONT)
    peak, most = finished(instance, before + runs, 1800)
    clients, server = tree_cpu() - clients, postgres_cpu(postmaster) - server
    records = [instance.get_run_record_by_id(run_id) for run_id in burst]
    ends = [
        r.end_time
        for r in records
        if r and r.end_time and r.dagster_run.status == dg.DagsterRunStatus.SUCCESS
    ]
    if len(ends) != runs:
        raise RuntimeError(f"{runs - len(ends)} of {runs} runs did not succeed")
    if setup.launcher and any(r and GRPC_INFO_TAG in r.dagster_run.tags for r in records):
        raise RuntimeError("the warm launcher fell back to the default one")
    starts = [r.start_time - begun for r in records if r and r.start_time]
    single, launch = [], []
    for done in range(SINGLE):
        (run_id,) = create(instance, context, 1)
        requested = time.time()
        submit(instance, context, [run_id])
        finished(instance, before + runs + done + 1, 120, every=0.05)
        record = instance.get_run_record_by_id(run_id)
        assert record is not None
        assert record.start_time is not None
        single.append(record.start_time - requested)
        launched = instance.get_run_stats(run_id).launch_time
        assert launched is not None
        launch.append(record.start_time - launched)
    return Measured(
        60 * runs / (max(ends) - begun), clients / runs, server / runs, starts, single, launch, peak, most
    )


def instance_yaml(setup: Setup, concurrency: int) -> dict[str, Any]:
    """The ``dagster.yaml`` of a line."""
    storage: dict[str, Any] = {"postgres": {"postgres_url": {"env": "BENCH_POSTGRES_URL"}}}
    if setup.pooled:
        storage = {
            "custom": {
                "module": "quayside.foundation.dagster.storage",
                "class": "QuaysideStorage",
                "config": {},
            }
        }
    found: dict[str, Any] = {
        "storage": storage,
        "telemetry": {"enabled": False},
    }
    queue = {"max_concurrent_runs": concurrency, **setup.queue}
    if setup.prompt:
        module = "quayside.foundation.dagster.launcher.coordinator"
        found["run_coordinator"] = {"module": module, "class": "PromptRunCoordinator", "config": queue}
    else:
        found["run_queue"] = queue
    if setup.launcher:
        found["run_launcher"] = setup.launcher
    return found


def create(instance: dg.DagsterInstance, context: WorkspaceProcessContext, count: int) -> list[str]:
    """Runs of the job, made but not yet requested."""
    request = context.create_request_context()
    repository = next(iter(request.code_locations[0].get_repositories().values()))
    job = repository.get_full_job("trivial")
    plan = request.get_execution_plan(job, {}, step_keys_to_execute=None, known_state=None)
    return [
        instance.create_run(
            job_name="trivial",
            run_id=None,
            run_config={},
            status=dg.DagsterRunStatus.NOT_STARTED,
            tags={},
            root_run_id=None,
            parent_run_id=None,
            step_keys_to_execute=None,
            execution_plan_snapshot=plan.execution_plan_snapshot,
            job_snapshot=job.job_snapshot,
            parent_job_snapshot=None,
            asset_selection=None,
            asset_check_selection=None,
            resolved_op_selection=None,
            op_selection=None,
            remote_job_origin=job.get_remote_origin(),
            job_code_origin=job.get_python_origin(),
            asset_graph=repository.asset_graph,
        ).run_id
        for _ in range(count)
    ]


def submit(instance: dg.DagsterInstance, context: WorkspaceProcessContext, run_ids: list[str]) -> None:
    """Put runs into the queue."""
    request = context.create_request_context()
    for run_id in run_ids:
        instance.submit_run(run_id, request)


def finished(
    instance: dg.DagsterInstance, count: int, seconds: float, every: float = 0.5
) -> tuple[float, int]:
    """Wait until so many runs have finished.

    Returns:
        Most memory (MB, proportional) and most processes of the line seen meanwhile.
    """
    over = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
    deadline, peak, most, looked = time.monotonic() + seconds, 0.0, 0, 0.0
    while instance.get_runs_count(dg.RunsFilter(statuses=over)) < count:
        if time.monotonic() > deadline:
            raise RuntimeError(f"fewer than {count} runs had finished after {seconds:.0f} s")
        if time.monotonic() - looked > 2:
            looked = time.monotonic()
            pids = tree()
            peak, most = max(peak, sum(memory_mb(pid) for pid in pids)), max(most, len(pids))
        time.sleep(every)
    return peak, most


@contextmanager
def fresh_database() -> Iterator[tuple[str, int]]:
    """URL of a new database on the platform's embedded server, and that server's process id."""
    url = database_url(load_settings())
    name = f"bench_{os.getpid()}_{time.monotonic_ns()}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT pg_backend_pid()").fetchone()
        assert row is not None
        postmaster = int(stat(row[0])[1])
    address = sa.make_url(url).set(drivername="postgresql+psycopg2", database=name)
    try:
        yield address.render_as_string(hide_password=False), postmaster
    finally:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))


@contextmanager
def child(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A service, ended with all it has started."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield process
    except BaseException:
        sys.stderr.write(f"{log.name}:\n{log.read_text('utf-8')[-3000:]}\n")
        raise
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def tree() -> list[int]:
    """Every process of the current line but this one, found by its environment."""
    token = f"{TOKEN}={os.environ[TOKEN]}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                if token in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
    return found


def tree_cpu() -> float:
    """CPU seconds of the line's processes, those that have ended and were waited for included."""
    return sum(sum(map(int, stat(pid)[11:15])) for pid in tree()) / TICKS


def postgres_cpu(postmaster: int) -> float:
    """CPU seconds of PostgreSQL: the postmaster with the backends that ended, and those that live."""
    ticks = sum(map(int, stat(postmaster)[11:15]))
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, IndexError):
                fields = stat(int(entry.name))
                if int(fields[1]) == postmaster:
                    ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS


def stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on (proc(5), field 3)."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return ["0"] * 50


def memory_mb(pid: int) -> float:
    """Proportional memory of a process in MB; 0 once it has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


def wait_for(condition: Any, seconds: float, what: str) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} was not ready after {seconds:.0f} s")
        time.sleep(0.05)


def main() -> int:
    """Measure, print as it goes, and write RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--concurrency", type=int, nargs="*", default=list(CONCURRENCY))
    parser.add_argument("--setups", nargs="*", choices=list(SETUPS), default=list(SETUPS))
    parser.add_argument("--dry", action="store_true", help="do not write RESULTS.md")
    asked = parser.parse_args()
    about = f"{report.machine()}. {report.versions('dagster', 'dagster-postgres', 'quayside')}."
    rows: list[dict[str, object]] = []
    original = dict(os.environ)
    for concurrency in asked.concurrency:
        base: float | None = None
        for key in asked.setups:
            measured = measure(SETUPS[key], concurrency, asked.runs)
            os.environ.clear()
            os.environ.update(original)
            base = base or measured.runs_per_minute
            rows.append(_row(SETUPS[key], concurrency, measured, base))
            print(" | ".join(f"{k}: {v}" for k, v in rows[-1].items()), flush=True)
    if not asked.dry:
        body = f"{asked.runs} runs a line. {__doc__}\n\n{report.table(rows)}"
        report.write_section("launcher", "make bench-launcher", about, body)
    return 0


def _row(setup: Setup, concurrency: int, measured: Measured, base: float) -> dict[str, object]:
    return {
        "concurrent": concurrency,
        "launcher": setup.name,
        "runs/min": f"{measured.runs_per_minute:.0f}",
        "× first": f"{measured.runs_per_minute / base:.1f}",
        "CPU s/run, Dagster": f"{measured.client_cpu:.3f}",
        "CPU s/run, PostgreSQL": f"{measured.server_cpu:.3f}",
        "one run: request → start, p50 / p95 s": _percentiles(measured.single),
        "of which dequeued → start": _percentiles(measured.launch),
        "all at once: request → start, p50 / p95 s": _percentiles(measured.burst),
        "peak MB": f"{measured.peak_mb:.0f}",
        "processes": measured.processes,
    }


def _percentiles(seconds: list[float]) -> str:
    cuts = statistics.quantiles(seconds, n=20, method="inclusive")
    return f"{cuts[9]:.2f} / {cuts[18]:.2f}"


if __name__ == "__main__":
    sys.exit(main())
