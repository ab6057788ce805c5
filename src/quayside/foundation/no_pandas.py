"""Processes of our own do without pandas.

Where it is installed, DuckDB imports it, and with it pyarrow, for the first value it binds, to know its kinds of null: half a
second of processor time, more than most commands take for everything else. Nothing of ours works with pandas.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


class _Refusal:
    """Finds pandas before the finders that know where it is. ``None`` in `sys.modules` would do, but breaks pyarrow."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == "pandas":
            raise ModuleNotFoundError("No module named 'pandas': this process does without.", name=name)
        return None


def without_pandas() -> None:
    """Let every import of pandas fail in this process, as if it were not installed. What has it already keeps it."""
    sys.meta_path.insert(0, _Refusal)
