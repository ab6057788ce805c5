"""`make bench-kycc`: what each stage of KYCC costs, at each size, apart; and scoring beside other libraries.

Every stage runs in a process of its own on a platform of its own (an embedded server in a temporary folder), so that
peak memory is that stage's. Times are after imports.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import report, scoring

SIZES = {"1k": 1_000, "10k": 10_000, "100k": 100_000, "1M": 1_000_000}
JSON_SIZES = ("1k", "10k", "100k")
MOMENT = datetime(2026, 6, 30, tzinfo=UTC)


def stage(name: str, **arguments: Any) -> dict[str, Any]:
    """Run one stage in a fresh process; its result with ``seconds`` and ``peak_mb``."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.kycc", "--stage", name, "--arguments", json.dumps(arguments)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def run_stage(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """In the child: import what the stage needs, then time it."""
    import resource
    from time import perf_counter

    work = STAGES[name](**arguments)
    started = perf_counter()
    result = work()
    seconds = perf_counter() - started
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "peak_mb": peak_mb, **(result or {})}


def _generate(out: str, parties: int, batch_id: str) -> Callable[[], dict[str, Any] | None]:
    import pyarrow.parquet  # noqa: F401  imported before the clock starts

    from quayside.kycc.generate import generate, write_json, write_parquet

    write = write_json if out.endswith(".json") else write_parquet
    return lambda: write(generate(batch_id, parties, generated_at=MOMENT), out) and None


def _service() -> Any:
    import duckdb  # noqa: F401  imported before the clock starts
    import numpy as np  # noqa: F401
    import polars  # noqa: F401
    import psycopg  # noqa: F401
    import pyarrow as pa  # noqa: F401
    import pyarrow.csv  # noqa: F401
    import scipy.sparse.csgraph  # noqa: F401

    import quayside.kycc.features
    import quayside.kycc.ingest
    import quayside.kycc.scorecard
    import quayside.kycc.scoring  # noqa: F401
    from quayside.kycc.service import ScoringService

    service = ScoringService()
    with service.connection():  # the server runs and the tables exist before the clock starts
        return service


def _ingest(source: str) -> Callable[[], dict[str, Any]]:
    service = _service()

    def work() -> dict[str, Any]:
        result = service.ingest(source)
        return {"transactions": result.rows_kept["transactions"]}

    return work


def _features(batch_id: str) -> Callable[[], None]:
    service = _service()
    return lambda: service.extract(batch_id) and None


def _score(batch_id: str) -> Callable[[], dict[str, Any]]:
    service = _service()

    def work() -> dict[str, Any]:
        summary = service.score(batch_id).summary
        return {"mean": summary.mean, "parties": summary.parties}

    return work


STAGES: dict[str, Callable[..., Callable[[], dict[str, Any] | None]]] = {
    "generate": _generate,
    "ingest": _ingest,
    "features": _features,
    "score": _score,
}


def line(size: str, form: str, source: Path, batch_id: str) -> dict[str, Any]:
    """Generate (unless it is there), ingest, features, score of one batch on the current platform: a table row."""
    parties = SIZES[size]
    row: dict[str, Any] = {"parties": size, "from": form}
    generated = (
        stage("generate", out=str(source), parties=parties, batch_id=batch_id)
        if not source.exists()
        else None
    )
    stages = {
        "ingest": stage("ingest", source=str(source)),
        "features": stage("features", batch_id=batch_id),
        "score": stage("score", batch_id=batch_id),
    }
    row["transactions"] = f"{stages['ingest']['transactions']:,}"
    row["generate s"] = f"{generated['seconds']:.2f}" if generated else "–"
    for name, measured in stages.items():
        row[f"{name} s"] = f"{measured['seconds']:.2f}"
    row["file to scores s"] = f"{sum(m['seconds'] for m in stages.values()):.2f}"
    row["peak MB (gen / ing / feat / score)"] = " / ".join(
        f"{m['peak_mb']:.0f}" if m else "–" for m in (generated, *stages.values())
    )
    print("  ".join(f"{k}: {v}" for k, v in row.items()), flush=True)
    return row


class Platform:
    """A platform of its own in a temporary folder, used by the stages through the environment."""

    def __enter__(self) -> Platform:
        self.folder = Path(tempfile.mkdtemp(prefix="quayside-bench-"))
        self.folder.chmod(0o711)  # as root, the database server's own user has to pass
        os.environ["QUAYSIDE_HOME"] = str(self.folder / "home")
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(
            [str(Path(sys.executable).with_name("quayside")), "db", "stop"], check=True, stdout=sys.stderr
        )
        shutil.rmtree(self.folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="1k,10k,100k,1M", help="comma separated")
    parser.add_argument("--without-scoring", action="store_true")
    parser.add_argument("--stage")
    parser.add_argument("--arguments", default="{}")
    chosen = parser.parse_args()
    if chosen.stage:
        print(json.dumps(run_stage(chosen.stage, json.loads(chosen.arguments))))
        return

    about = (
        f"{report.machine()}. "
        f"{report.versions('quayside', 'duckdb', 'numpy', 'polars', 'optbinning', 'toad', 'scorecardpy')}."
    )
    sizes = chosen.sizes.split(",")
    stages: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="quayside-bench-data-") as folder:
        data = Path(folder)
        with Platform():
            held = [again(data, "nothing")]
        for size in sizes:
            for form in ("JSON", "Parquet") if size in JSON_SIZES else ("Parquet",):
                with Platform():
                    source = data / (f"{size}.json" if form == "JSON" else size)
                    stages.append(line(size, form, source, f"BENCH_{size}"))
                    if (size, form) == (sizes[-1], "Parquet"):
                        held.append(again(data, f"{size} parties"))
        report.write_section("kycc-stages", "make bench-kycc", about, STAGES_TEXT + report.table(stages))
        report.write_section("kycc-history", "make bench-kycc", about, HISTORY_TEXT + report.table(held))
    if not chosen.without_scoring:
        report.write_section("kycc-scoring", "make bench-kycc", about, scoring.section())


def again(data: Path, holds: str) -> dict[str, Any]:
    """One batch of 10,000 parties, loaded three times under new names into the current platform: a table row."""
    runs: dict[str, list[float]] = {"ingest": [], "features": [], "score": []}
    for i in range(3):
        batch_id = f"AGAIN_{i}"
        source = data / batch_id
        if not source.exists():
            stage("generate", out=str(source), parties=10_000, batch_id=batch_id)
        runs["ingest"].append(stage("ingest", source=str(source))["seconds"])
        runs["features"].append(stage("features", batch_id=batch_id)["seconds"])
        runs["score"].append(stage("score", batch_id=batch_id)["seconds"])
    row = (
        {"platform holds": holds}
        | {f"{name} s": f"{median(values):.2f}" for name, values in runs.items()}
        | {"all s": f"{median(map(sum, zip(*runs.values(), strict=True))):.2f}"}
    )
    print(row, flush=True)
    return row


STAGES_TEXT = """Each stage in a process of its own on an empty platform, after imports. Seconds of wall time; peak
resident memory of the stage's process (the PostgreSQL server is apart).

"""
HISTORY_TEXT = """A batch of 10,000 parties from Parquet, three times under new names: into an empty platform, and into
the one that holds the largest batch of this run. Medians.

"""

if __name__ == "__main__":
    main()
