"""The harness as a command: see the package."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

from tests.faults.dataloader import staged
from tests.faults.dataloader.run import BOUND_SECONDS, run
from tests.faults.dataloader.workload import TABLES


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.dataloader",
        description="Kill DataLoader at random moments, then compare.",
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tables", help="names, separated by commas; all by default")
    parser.add_argument(
        "--bound", type=float, default=BOUND_SECONDS, help="seconds after which a row counts as left behind"
    )
    parser.add_argument("--report", type=Path, help="also write the report here")
    parser.add_argument(
        "--staged", action="store_true", help="only the staged interleavings, with every guard in place"
    )
    parser.add_argument(
        "--without",
        action="append",
        choices=[*staged.GUARDS, "all"],
        help="only the staged interleaving of this guard, taken out: it has to fail",
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything that was started is ended
    if options.staged or options.without:
        report = staged.run(options.without or [], with_guards=options.staged)
    else:
        names = options.tables.split(",") if options.tables else [t.name for t in TABLES]
        report = run(options.seed, options.kills, tuple(t for t in TABLES if t.name in names), options.bound)
    text = json.dumps(report, indent=2, default=str)
    print(text)
    if options.report:
        options.report.write_text(text + "\n", "utf-8")
    return 1 if report["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
