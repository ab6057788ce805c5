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

from benchmarks import report

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
    """Print the table and write it to RESULTS.md; exit code 1 when a limit is exceeded."""
    workspace = yaml.safe_load((Path(__file__).parents[1] / "workspace.yaml").read_text("utf-8"))
    modules = [entry["python_module"]["module_name"] for entry in workspace["load_from"]]
    about = f"{report.machine()}. {report.versions('quayside', 'dagster')}. Best of {ROUNDS} processes each."
    wall, cpu = best([str(Path(sys.executable).parent / "quayside"), "--help"])
    base_wall, base_cpu = best([sys.executable, "-c", "import dagster"])
    failed = wall >= LIMIT_HELP_SECONDS
    rows = [
        _row("quayside --help", wall, cpu, f"{LIMIT_HELP_SECONDS} s"),
        _row("import dagster", base_wall, base_cpu),
    ]
    for module in modules:
        wall, cpu = best([sys.executable, "-c", f"import {module}"])
        failed |= cpu / base_cpu >= LIMIT_RATIO
        rows.append(_row(f"import {module}", wall, cpu, f"{LIMIT_RATIO}x", f"{cpu / base_cpu:.2f}x"))
    text = report.table(rows)
    print(text)
    report.write_section("startup", "make bench-startup", about, text)
    return int(failed)


def _row(what: str, wall: float, cpu: float, limit: str = "", ratio: str = "") -> dict[str, str]:
    return {
        "what": what,
        "wall s": f"{wall:.3f}",
        "CPU s": f"{cpu:.3f}",
        "CPU ÷ import dagster": ratio,
        "limit": limit,
    }


if __name__ == "__main__":
    sys.exit(main())
