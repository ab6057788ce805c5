"""``python -m quayside.foundation.dagster.launcher``: the fork servers of this user on this host, as a table."""

from __future__ import annotations

import sys

from quayside.foundation.dagster.launcher import protocol
from quayside.foundation.dagster.launcher.servers import runtime_folder

_HEADINGS = ("location", "pid", "going", "served", "idle s", "MB", "warden MB")


def main() -> int:
    """Print one line per server that answers; the argument is a ``base_folder`` other than the default one."""
    folder = runtime_folder(sys.argv[1] if len(sys.argv) > 1 else None)
    rows: list[tuple[str, ...]] = [_HEADINGS]
    for path in sorted(folder.glob("*.sock")):
        try:
            found = protocol.request(str(path), {"what": "status"}, seconds=5)
        except protocol.NoServerError:
            continue
        figures = (found["pid"], len(found["runs"]), found["served"], found["idle_seconds"])
        memory = (found["memory"]["proportional"], found["warden_memory"]["proportional"])
        rows.append((found["location"], *map(str, figures), *(f"{mb:.0f}" for mb in memory)))
    if len(rows) == 1:
        sys.stdout.write(f"No fork server of this user answers in {folder}.\n")
        return 0
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(f"{line.rstrip()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
