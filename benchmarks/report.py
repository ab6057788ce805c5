"""Where figures go: one section of RESULTS.md per benchmark, replaced whole, with machine, versions and date."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RESULTS = Path(__file__).with_name("RESULTS.md")
HEADER = """# Results

Every section is written by the command it names, from what that run measured. The machines are small and shared:
compare the figures of one run with each other, not with another run's.
"""


def machine() -> str:
    """One line on what the figures were measured on."""
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores ({cpu}), {memory_gib:.0f} GiB, Linux {platform.release()}, load {os.getloadavg()[0]:.1f} at the start"


def versions(*packages: str) -> str:
    """Versions of Python and of packages, as one line."""
    return ", ".join([f"Python {platform.python_version()}", *(f"{p} {version(p)}" for p in packages)])


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows as a Markdown table; columns are the keys of the first row."""
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + "|".join(["---"] * len(columns)) + "|"]
    lines += ["| " + " | ".join(str(row.get(c, "")) for c in columns) + " |" for row in rows]
    return "\n".join(lines)


def write_section(name: str, command: str, about: str, body: str) -> None:
    """Replace the section `name` of RESULTS.md (or append it)."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    section = f"{start}\n## {name}\n\n`{command}`, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC. {about}\n\n{body.strip()}\n{end}\n"
    text = RESULTS.read_text() if RESULTS.exists() else HEADER
    if start in text:
        before, rest = text.split(start, 1)
        text = before + section + rest.split(end + "\n", 1)[1]
    else:
        text = f"{text.rstrip()}\n\n{section}"
    RESULTS.write_text(text)
