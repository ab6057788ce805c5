"""In an environment with nothing of ours: Dagster, dagster-postgres, and the launcher's package on the path."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import venv
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tests.foundation.dagster.launcher.alone import PACKAGE
from tests.foundation.dagster.launcher.bench import make_project

pytestmark = [pytest.mark.integration, pytest.mark.slow]

DEFINITIONS = """
import os
import dagster as dg

@dg.op
def where(context):
    context.log.info(f"session {os.getsid(0)} of process {os.getpid()}")

defs = dg.Definitions(jobs=[dg.GraphDefinition(name="job", node_defs=[where]).to_job(executor_def=dg.in_process_executor)])
"""

CONFIG = """
storage:
  postgres:
    postgres_url: {url}
run_launcher:
  module: quayside.foundation.dagster.launcher
  class: WarmRunLauncher
"""

RUN = """
import json, sys, time
import dagster as dg
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import PythonFileTarget

with dg.DagsterInstance.get() as instance, WorkspaceProcessContext(
    instance, PythonFileTarget(sys.argv[1], "defs", None, "alone")
) as context:
    workspace = context.create_request_context()
    [repository] = workspace.code_locations[0].get_repositories().values()
    job = repository.get_full_job("job")
    plan = workspace.get_execution_plan(job, {}, step_keys_to_execute=None, known_state=None)
    run = instance.create_run(
        job_name="job", run_id=None, run_config={}, status=dg.DagsterRunStatus.NOT_STARTED, tags={},
        root_run_id=None, parent_run_id=None, step_keys_to_execute=None,
        execution_plan_snapshot=plan.execution_plan_snapshot, job_snapshot=job.job_snapshot,
        parent_job_snapshot=None, asset_selection=None, asset_check_selection=None, resolved_op_selection=None,
        op_selection=None, remote_job_origin=job.get_remote_origin(), job_code_origin=job.get_python_origin(),
        asset_graph=repository.asset_graph,
    )
    instance.launch_run(run.run_id, workspace)
    deadline = time.monotonic() + 240
    while not instance.get_run_by_id(run.run_id).is_finished and time.monotonic() < deadline:
        time.sleep(0.05)
    instance.run_launcher.join()
    texts = [entry.user_message or entry.dagster_event.message or "" for entry in instance.all_logs(run.run_id)]
    with open(sys.argv[2], "w") as file:
        json.dump([instance.get_run_by_id(run.run_id).status.value, *texts], file)
"""


def needed(*names: str) -> dict[str, metadata.Distribution]:
    """Distributions these names need, themselves included, as their metadata say, from this environment."""
    found: dict[str, metadata.Distribution] = {}
    open_ = [(name, "") for name in names]
    seen = set(open_)
    while open_:
        name, extra = open_.pop()
        distribution = found.setdefault(canonicalize_name(name), metadata.distribution(name))
        for requirement in map(Requirement, distribution.requires or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                more = {(requirement.name, each) for each in ("", *requirement.extras)} - seen
                seen |= more
                open_ += more
    return found


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that finds Dagster, dagster-postgres and what these need; nothing else.

    What is installed here is linked there: compiled already, and no package index is asked.
    """
    folder = tmp_path_factory.mktemp("alone") / "venv"
    venv.create(folder, symlinks=True)
    [there] = folder.glob("lib/python*/site-packages")
    for distribution in needed("dagster", "dagster-postgres").values():
        here = Path(str(distribution.locate_file("")))
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            if not (there / top).exists():
                (there / top).symlink_to(here / top)
    return folder / "bin/python"


def test_with_dagster_and_dagster_postgres_alone(python: Path, postgres_url: str, tmp_path: Path):
    # The launcher's package alone, under its name; the packages above it are empty here.
    package = tmp_path / "path" / "quayside/foundation/dagster/launcher"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    for above in (package.parent, package.parents[1], package.parents[2]):
        (above / "__init__.py").touch()
    project = make_project(tmp_path / "project")
    (project / "defs.py").write_text(DEFINITIONS)
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text(CONFIG.format(url=postgres_url))
    environment = os.environ | {
        "DAGSTER_HOME": str(home),
        "PYTHONPATH": str(tmp_path / "path"),
        "XDG_RUNTIME_DIR": str(home),
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(
        [str(python), "-c", RUN, str(project / "defs.py"), str(tmp_path / "said.json")],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    status, *texts = json.loads((tmp_path / "said.json").read_text())
    assert status == "SUCCESS", done.stderr
    [started] = [text for text in texts if "forked from a warm server" in text]
    pid = re.search(r"pid: (\d+)", started)
    assert pid is not None
    assert f"session {pid.group(1)} of process {pid.group(1)}" in texts


def test_nothing_else_is_installed_there(python: Path):
    code = "import importlib.metadata as m; print(*(d.name.lower().replace('_', '-') for d in m.distributions()))"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True)
    names = set(done.stdout.split())
    assert {"dagster", "dagster-postgres", "psycopg2-binary"} <= names
    assert not names & {"quayside", "psycopg", "duckdb", "numpy", "pydantic-settings"}
