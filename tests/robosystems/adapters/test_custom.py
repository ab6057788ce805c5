"""What forks add: found, kept apart when it is broken, and never in the way of a later upstream."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import dagster as dg
import pytest

from quayside.foundation.errors import UsageError
from quayside.foundation.settings import project_root
from quayside.robosystems import adapters
from quayside.robosystems.adapters.discovery import discover
from quayside.robosystems.adapters.scaffold import scaffold
from quayside.robosystems.dagster.assets.discovery import with_custom
from quayside.robosystems.dagster.resources import GraphResource

pytestmark = pytest.mark.unit

GOOD = """
import dagster as dg
from quayside.robosystems.dagster.resources import GraphResource

@dg.asset
def of_the_fork(graph: GraphResource): ...

@dg.job
def job_of_the_fork(): ...
"""
BROKEN = {
    "custom_syntax": ("def (", "SyntaxError"),
    "custom_import": (
        "import no_such_module_anywhere",
        "ModuleNotFoundError: No module named 'no_such_module_anywhere'",
    ),
    "custom_raises": ("raise RuntimeError('no API key')", "RuntimeError: no API key"),
    "custom_exits": ("raise SystemExit(3)", "SystemExit: 3"),
    "custom_clash": ("import dagster as dg\n@dg.asset\ndef ours(): ...", "ours"),
    "custom_needs": (
        "import dagster as dg\n@dg.asset(required_resource_keys={'nowhere'})\ndef n(): ...",
        "nowhere",
    ),
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A package in the place of ours, with one module that works and six that do not."""
    folder = tmp_path / "package_of_tests"
    folder.mkdir()
    for name, text in {"__init__": "", "other": "raise AssertionError", "custom_good": GOOD}.items():
        (folder / f"{name}.py").write_text(text)
    for name, (text, _) in BROKEN.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    import package_of_tests  # pyright: ignore[reportMissingImports]

    yield package_of_tests
    for name in set(sys.modules) - before:
        if name.startswith("package_of_tests"):
            del sys.modules[name]


@dg.asset
def ours() -> None:
    pass


def test_what_is_broken_is_named_and_takes_nothing_down(
    package: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    """The location of spec section 6: found by themselves, a broken one reported by name."""
    base = dg.Definitions(assets=[ours], resources={"graph": GraphResource()})
    found = with_custom(base, package)
    dg.Definitions.validate_loadable(found)
    specs = {spec.key.to_user_string(): spec for spec in found.resolve_all_asset_specs()}
    assert set(specs) == {"ours", "of_the_fork", *(f"broken/{name}" for name in BROKEN)}
    assert found.resolve_job_def("job_of_the_fork").name == "job_of_the_fork"
    for name, (_, why) in BROKEN.items():
        description = specs[f"broken/{name}"].description or ""
        assert f"package_of_tests.{name} does not load" in description
        assert why in description
        assert f"package_of_tests.{name} is left out" in caplog.text


def test_without_custom_modules_nothing_is_changed() -> None:
    base = dg.Definitions(assets=[ours])
    assert with_custom(base) is base
    assert discover(adapters).problems == {}


@pytest.mark.parametrize("name", ["", "Big", "a-b", "../up", "class", "1st", "a__b", "x" * 41])
def test_names_that_cannot_be_an_adapters(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be an adapter's name"):
        scaffold(name, tmp_path)


def test_scaffolding_writes_into_a_checkout_and_over_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no checkout"):
        scaffold("a", tmp_path)
    (tmp_path / "src/quayside/robosystems").mkdir(parents=True)
    made = scaffold("custom_a", tmp_path)
    assert len(made) == 5
    made[-1].write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        scaffold("a", tmp_path)
    assert made[-1].read_text() == "mine"


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@pytest.mark.slow
def test_the_how_to_as_written_in_a_fork_that_merges_a_later_upstream(tmp_path: Path) -> None:
    """Every command of the README, in a clone with real git, while upstream changes every file beside the fork's."""
    blocks = re.findall(
        r"```bash\n(.*?)```", (Path(adapters.__file__).parent / "README.md").read_text(), re.DOTALL
    )
    assert len(blocks) == 2
    upstream, fork = tmp_path / "upstream", tmp_path / "fork"
    unwanted = shutil.ignore_patterns("__pycache__")
    shutil.copytree(project_root() / "src", upstream / "src", ignore=unwanted)
    for name in (
        ".gitignore",
        "pyproject.toml",
        "workspace.yaml",
        "tests/conftest.py",
        "tests/scheduling.py",
        "tests/__init__.py",
    ):
        (upstream / name).parent.mkdir(exist_ok=True)
        shutil.copy(project_root() / name, upstream / name)
    git(tmp_path, "init", "-q", "-b", "main", str(upstream))
    for key, value in {
        "user.name": "test",
        "user.email": "test@example.org",
        "commit.gpgsign": "false",
    }.items():
        git(upstream, "config", key, value)
    git(upstream, "add", ".")
    git(upstream, "commit", "-q", "-m", "first")
    git(tmp_path, "clone", "-q", "--origin", "upstream", str(upstream), str(fork))
    for key, value in {
        "user.name": "fork",
        "user.email": "fork@example.org",
        "commit.gpgsign": "false",
    }.items():
        git(fork, "config", key, value)
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    for command, code in {
        "quayside": '-c "from quayside.cli.main import run; run()" "$@"',
        "python": '"$@"',
    }.items():
        (bin_folder / command).write_text(f'#!/bin/sh\nexec "{sys.executable}" {code}\n')
        (bin_folder / command).chmod(0o755)
    environment = os.environ | {
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "PYTHONPATH": f"{fork / 'src'}:{fork}",
        "QUAYSIDE_HOME": str(tmp_path / "home"),
        "PYTEST_ADDOPTS": "-p no:cacheprovider",
    }

    def as_written(block: str) -> str:
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", block],
            cwd=fork,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    first = as_written(blocks[0])
    assert "2 passed" in first
    assert re.search(r"custom_open_banking\s+assets\s+loads", first)
    assert git(fork, "status", "--porcelain") == ""

    for place in ("adapters", "dagster/assets", "dagster"):
        for path in (upstream / "src/quayside/robosystems" / place).glob("*.*"):
            path.write_text(path.read_text() + "\n# upstream went on\n", "utf-8")
    (upstream / "src/quayside/robosystems/adapters/upstreams_own.py").write_text('"""New."""\n')
    git(upstream, "add", ".")
    git(upstream, "commit", "-q", "-m", "later")
    assert re.search(r"custom_open_banking\s+assets\s+loads", as_written(blocks[1]))
    assert "upstream went on" in (fork / "src/quayside/robosystems/dagster/definitions.py").read_text()
    loaded = subprocess.run(
        [
            sys.executable,
            "-c",
            "import quayside; print(quayside.__file__)\nfrom quayside.robosystems.dagster import defs\n"
            "print(sorted(s.key.to_user_string() for s in defs.resolve_all_asset_specs()))",
        ],
        cwd=fork,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert str(fork) in loaded.stdout, loaded.stderr
    assert "'open_banking'" in loaded.stdout
    assert "broken" not in loaded.stdout
