"""Packages called ``custom_*`` beside ours: a fork adds them, and they are found. One that does not load is named, and stops
nothing else."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Final

from quayside.foundation.errors import sentence

PREFIX: Final = "custom_"


@dataclass(frozen=True)
class Found:
    """Modules by name, and why the others do not load."""

    modules: dict[str, ModuleType] = field(default_factory=dict[str, ModuleType])
    problems: dict[str, str] = field(default_factory=dict[str, str])


def discover(package: ModuleType) -> Found:
    """Import every ``custom_*`` of a package, in order of their names."""
    found = Found()
    for name in custom_names(package):
        try:
            found.modules[name] = importlib.import_module(f"{package.__name__}.{name}")
        except (Exception, SystemExit) as error:  # noqa: BLE001 - somebody else's code: whatever it raises is its problem
            found.problems[name] = f"{type(error).__name__}: {sentence(error)}"
    return found


def custom_names(package: ModuleType) -> Iterator[str]:
    """Names of the ``custom_*`` modules and packages in a package; imports none."""
    names = {module.name for module in pkgutil.iter_modules(package.__path__)}
    return iter(sorted(name for name in names if name.startswith(PREFIX)))
