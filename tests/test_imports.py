"""Who may import whom, and what importing may cost: rules of the house, held to the source itself."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from quayside.foundation.settings import project_root

pytestmark = pytest.mark.unit

SOURCE = project_root() / "src" / "quayside"
SYSTEMS = frozenset({"kycc", "dataloader", "analytics", "robosystems"})
DAGSTER = frozenset({"dagster", "dagster_postgres", "dagster_shared", "dagster_webserver", "dagster_graphql"})
#: Seconds or hundreds of megabytes: only inside functions. Each of these is what the budgets of the two start-up
#: targets would be spent on (`make bench-startup` measures the times themselves).
HEAVY = frozenset(
    {"polars", "pandas", "scipy", "sklearn", "pyarrow", "duckdb", "numpy", "sqlalchemy", "alembic", "sqlglot",
     "deltalake", "obstore", "networkx", "psycopg", "psycopg2", "redis", "slack_sdk", "dagster_postgres"}
)  # fmt: skip
#: Beyond those, what the command line must not load before it knows its command.
HEAVY_FOR_HELP = HEAVY | {"dagster", "typer", "rich", "pydantic", "pydantic_settings", "yaml", "jinja2"}


@dataclass(frozen=True)
class Import:
    """``module`` imported by the file of ``importer``; ``lazy`` when inside a function, ``typing`` when never run."""

    importer: str
    module: str
    lazy: bool
    typing: bool


def imports_of(importer: str, package: str, text: str) -> Iterator[Import]:
    """Every import statement of a module, relative ones resolved."""

    def visit(node: ast.AST, lazy: bool, typing: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(importer, alias.name, lazy, typing)
            elif isinstance(child, ast.ImportFrom):
                base = (
                    ".".join(package.split(".")[: len(package.split(".")) - child.level + 1])
                    if child.level
                    else ""
                )
                module = ".".join(part for part in (base, child.module) if part)
                for alias in child.names:  # `from quayside import kycc` names a module too
                    yield Import(importer, f"{module}.{alias.name}", lazy, typing)
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                yield from visit(child, lazy, True)
            else:
                function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from visit(child, lazy or function, typing)

    yield from visit(ast.parse(text), False, False)


def all_imports() -> list[Import]:
    found: list[Import] = []
    for path in sorted(SOURCE.rglob("*.py")):
        parts = ("quayside", *path.relative_to(SOURCE).with_suffix("").parts)
        package = parts[:-1]
        name = package if parts[-1] == "__init__" else parts
        found += imports_of(".".join(name), ".".join(package), path.read_text("utf-8"))
    return found


def dagster_outside_its_rooms(imports: list[Import]) -> list[str]:
    return [
        f"{i.importer} imports {i.module}"
        for i in imports
        if i.module.split(".")[0] in DAGSTER and "dagster" not in i.importer.split(".")
    ]


def across_systems(imports: list[Import]) -> list[str]:
    wrong = []
    for i in imports:
        target = i.module.split(".")
        if target[0] != "quayside" or len(target) < 2:
            continue
        source = i.importer.split(".")[1] if "." in i.importer else ""
        if (
            (source in SYSTEMS and target[1] in SYSTEMS - {source})
            or (source == "foundation" and target[1] in SYSTEMS | {"cli"})
            or (source in SYSTEMS and target[1] == "cli")
        ):
            wrong.append(f"{i.importer} imports {i.module}")
    return wrong


def test_dagster_stays_in_rooms_called_dagster():
    assert dagster_outside_its_rooms(all_imports()) == []


def test_systems_do_not_import_one_another_and_foundation_knows_none():
    assert across_systems(all_imports()) == []


@pytest.mark.parametrize(
    "importer, package, text, rule",
    [
        (
            "quayside.kycc.scoring",
            "quayside.kycc",
            "def f():\n  import dagster as dg",
            dagster_outside_its_rooms,
        ),
        (
            "quayside.kycc.scoring",
            "quayside.kycc",
            "from dagster_postgres import x",
            dagster_outside_its_rooms,
        ),
        ("quayside.kycc.scoring", "quayside.kycc", "from quayside import analytics", across_systems),
        ("quayside.kycc.scoring", "quayside.kycc", "from ..analytics import x", across_systems),
        ("quayside.kycc.scoring", "quayside.kycc", "import quayside.cli.up", across_systems),
        (
            "quayside.foundation.lake.x",
            "quayside.foundation.lake",
            "if 1:\n from ...kycc import y",
            across_systems,
        ),
        (
            "quayside.foundation.a",
            "quayside.foundation",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n import quayside.kycc",
            across_systems,
        ),
    ],
)
def test_the_rules_see_what_breaks_them(importer: str, package: str, text: str, rule):
    assert len(rule(list(imports_of(importer, package, text)))) == 1


def locations() -> list[str]:
    entries = yaml.safe_load((project_root() / "workspace.yaml").read_text())["load_from"]
    return [entry["python_module"]["module_name"] for entry in entries]


#: Imports a module, after another one that may do as it likes, where every connection, process and written file is an
#: error; prints what it loaded.
ISOLATED = """
import json, sys

def guard(event, args):
    written = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
    if written or event in ("socket.connect", "socket.bind", "subprocess.Popen", "os.posix_spawn", "os.fork", "os.mkdir"):
        raise AssertionError(f"importing must not do this: {event} {args[0]}")

__import__(sys.argv[2])
before = set(sys.modules)
sys.addaudithook(guard)
__import__(sys.argv[1])
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def loaded_by(module: str, home: Path, after: str = "sys", **variables: str) -> set[str]:
    """Top-level names of what importing ``module`` loads beyond ``after``, in a process that may touch nothing."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("QUAYSIDE", "DAGSTER"))
    }
    done = subprocess.run(
        [sys.executable, "-c", ISOLATED, module, after],
        env=environment | {"QUAYSIDE_HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"} | variables,
        capture_output=True,
        text=True,
        cwd=project_root(),
    )
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


@pytest.mark.parametrize("module", locations())
def test_importing_a_location_touches_nothing_and_loads_nothing_heavy(module: str, tmp_path: Path):
    home = tmp_path / "not" / "there"
    # Settings that could not be used: reading them would fail, so would connecting anywhere.
    loaded = loaded_by(module, home, after="dagster", REDIS_PORT="wrong", QUAYSIDE_DATABASE_URL="wrong")
    assert loaded & HEAVY == set()
    assert not home.parent.exists()


def test_help_loads_next_to_nothing(tmp_path: Path):
    assert loaded_by("quayside.cli.main", tmp_path / "none") & HEAVY_FOR_HELP == set()


@pytest.mark.parametrize(
    "statement",
    [
        "open('x', 'w')",
        "import socket; socket.create_connection(('127.0.0.1', 1))",
        "import os; os.mkdir('x')",
    ],
)
def test_the_guard_sees_what_breaks_it(statement: str, tmp_path: Path):
    (tmp_path / "naughty.py").write_text(statement)
    with pytest.raises(AssertionError, match="importing must not do this"):
        loaded_by("naughty", tmp_path / "none", PYTHONPATH=str(tmp_path))
