"""Rules for the columns of every source."""

from __future__ import annotations

from collections.abc import Sequence

from quayside.foundation.errors import InputError


def check_columns(source: str, names: Sequence[str]) -> None:
    """Refuse columns that DuckDB, which ignores case in names, could not tell apart.

    Raises:
        InputError: naming them.
    """
    seen: dict[str, str] = {}
    for name in names:
        if not name:
            raise InputError(f"A column of source {source} has no name: give it one with AS in a query.")
        other = seen.get(name.lower())
        seen[name.lower()] = name
        if other is not None:
            same = "appears twice" if other == name else f"and {other!r} differ in upper and lower case alone"
            raise InputError(
                f"Source {source}: column {name!r} {same}, which the lake cannot tell apart: give them other "
                "names with AS in a query."
            )
    if not names:
        raise InputError(f"The table of source {source} has no columns.")
