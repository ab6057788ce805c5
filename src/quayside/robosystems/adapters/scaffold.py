"""A new custom adapter: client, processor, asset and a test that passes, in files of its own."""

from __future__ import annotations

import keyword
import re
from importlib.resources import files
from pathlib import Path
from typing import Final

from quayside.foundation.errors import UsageError

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
_PACKAGE: Final = "src/quayside/robosystems"


def scaffold(name: str, root: Path) -> list[Path]:
    """Write a custom adapter into a checkout at `root`; the files it made. It changes none that is there.

    Raises:
        UsageError: the name cannot be one, the folder is no checkout, or a file is there already.
    """
    name = name.removeprefix("custom_")
    if _NAME.fullmatch(name) is None or keyword.iskeyword(name) or len(name) > 40:
        raise UsageError(
            f"{name!r} cannot be an adapter's name: give small letters, digits and _, as in 'open_banking'."
        )
    if not (root / _PACKAGE).is_dir():
        raise UsageError(f"{root} is no checkout of Quayside: give one with --root.")
    package = f"{_PACKAGE}/adapters/custom_{name}"
    targets = {
        "__init__.py": f"{package}/__init__.py",
        "client.py": f"{package}/client.py",
        "processor.py": f"{package}/processor.py",
        "asset.py": f"{_PACKAGE}/dagster/assets/custom_{name}.py",
        "test.py": f"tests/robosystems/adapters/test_custom_{name}.py",
    }
    if existing := [target for target in targets.values() if (root / target).exists()]:
        raise UsageError(f"{existing[0]} is there already: choose another name, or remove it.")
    words = {
        "name": name,
        "camel": "".join(part.capitalize() for part in name.split("_")),
        "upper": name.upper(),
        "title": name.replace("_", " ").capitalize(),
    }
    templates = files("quayside.robosystems.adapters") / "template"
    made: list[Path] = []
    for template, target in targets.items():
        path = root / target
        path.parent.mkdir(parents=True, exist_ok=True)
        text = (templates / f"{template}.txt").read_text("utf-8").format_map(words)
        path.write_text(text, "utf-8")
        made.append(path)
    return made
