"""The launcher is for any Dagster project: what it imports, and how it is configured."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
from tests.foundation.dagster.launcher.alone import PACKAGE

from quayside.foundation.dagster.launcher import WarmRunLauncher

pytestmark = pytest.mark.unit
OWN = "quayside.foundation.dagster.launcher"


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.stem)
def test_it_imports_dagster_and_the_standard_library_alone(path: Path):
    allowed = sys.stdlib_module_names | {"dagster", "dagster_shared"}
    foreign = {
        name
        for name in imported(path)
        if name != OWN and not name.startswith(f"{OWN}.") and name.partition(".")[0] not in allowed
    }
    assert not foreign


@pytest.mark.parametrize("name", ["protocol", "processes", "openness", "sources"])
def test_these_need_the_standard_library_alone(name: str):
    others = {
        module for module in imported(PACKAGE / f"{name}.py") if module.startswith(("dagster", "quayside"))
    }
    assert not others


def test_three_lines_configure_it():
    """Every option has a default, and the defaults are options."""
    from dagster._config import process_config, resolve_to_config_type

    done = process_config(resolve_to_config_type(WarmRunLauncher.config_type()), {})
    assert done.success, done.errors
    launcher = WarmRunLauncher.from_config_value(None, done.value)
    assert launcher._options.idle_seconds == 600
    never = WarmRunLauncher.from_config_value(None, {**done.value, "idle_minutes": None})
    assert never._options.idle_seconds == float("inf")
    never.dispose()
