"""What starting costs: ``quayside --help``, and importing each code location beside ``import dagster`` alone.

    make bench-startup

Each line is the best of several processes, in wall and in CPU seconds. The ratio is of CPU seconds, which other work on
the machine disturbs least. What keeps these low is held by ``tests/test_imports.py``.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import yaml

ROUNDS = 7
LIMIT_HELP_SECONDS = 0.3
LIMIT_RATIO = 1.8


def best(command: list[str]) -> tuple[float, float]:
    """Least wall seconds and least CPU seconds of `ROUNDS` runs, after one that fills the caches."""
    # Without cached bytecode every process compiles all it imports, which nobody who installed this has.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    walls, cpus = [], []
    for _ in range(ROUNDS + 1):
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        walls.append(time.perf_counter() - started)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpus.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(walls[1:]), min(cpus[1:])


def main() -> int:
    """Print the table; exit code 1 when a limit is exceeded."""
    workspace = yaml.safe_load((Path(__file__).parents[1] / "workspace.yaml").read_text("utf-8"))
    modules = [entry["python_module"]["module_name"] for entry in workspace["load_from"]]
    quayside = str(Path(sys.executable).parent / "quayside")
    wall, cpu = best([quayside, "--help"])
    failed = wall >= LIMIT_HELP_SECONDS
    print(f"{'quayside --help':<48} {wall:6.3f} s  {cpu:6.3f} CPU s   limit {LIMIT_HELP_SECONDS} s")
    base_wall, base_cpu = best([sys.executable, "-c", "import dagster"])
    print(f"{'import dagster':<48} {base_wall:6.3f} s  {base_cpu:6.3f} CPU s")
    for module in modules:
        wall, cpu = best([sys.executable, "-c", f"import {module}"])
        ratio = cpu / base_cpu
        failed |= ratio >= LIMIT_RATIO
        print(
            f"{'import ' + module:<48} {wall:6.3f} s  {cpu:6.3f} CPU s   {ratio:.2f}x, limit {LIMIT_RATIO}x"
        )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
