"""Parts of the launcher in an interpreter of their own: without Dagster, whose import takes most of a second."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from quayside.foundation.dagster import launcher

PACKAGE = Path(launcher.__file__).parent

_LOAD = """
import importlib.util, json, os, sys, time
def part(name):
    spec = importlib.util.spec_from_file_location(name, "{package}/" + name + ".py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
"""


def say(code: str, *arguments: str, **popen: object) -> str:
    """What the code prints; ``part(name)`` loads a module of the package that needs the standard library alone."""
    done = subprocess.run(
        [sys.executable, "-c", _LOAD.replace("{package}", str(PACKAGE)) + code, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
        **popen,  # pyright: ignore[reportArgumentType, reportCallIssue] - user, group
    )
    return done.stdout.strip()
