"""`make bench-learning`: what learning costs: 1,000 parties from the file to a refined card, and 100,000 from labels on.

Each line is one process on a platform of its own (an embedded server in a temporary folder), after imports, so that peak memory
is that line's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks import report
from benchmarks.kycc import MOMENT, Platform, _service

BATCH = "BENCH_LEARNING"
STEPS = ("ingest", "features", "score", "outcomes", "labels", "train", "refine")


def work(source: str, outcomes: str, first: str) -> dict[str, Any]:
    """All steps in this process; the clock starts at step `first`. Times in seconds, peak memory in MB."""
    import resource

    import quayside.kycc.labels
    import quayside.kycc.outcomes
    import quayside.kycc.refinement
    import quayside.kycc.training
    import quayside.kycc.versions  # noqa: F401  imported before the clock starts

    service = _service()
    verbs = {
        "ingest": lambda: service.ingest(source),
        "features": lambda: service.extract(BATCH),
        "score": lambda: service.score(BATCH),
        "outcomes": lambda: service.load_outcomes(outcomes),
        "labels": lambda: service.labels(BATCH),
        "train": service.train,
        "refine": service.refine,
    }
    seconds: dict[str, float] = {}
    results: dict[str, Any] = {}
    with service.kept_open():
        for name in STEPS[STEPS.index(first) :]:
            started = perf_counter()
            results[name] = verbs[name]()
            seconds[name] = perf_counter() - started
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "peak_mb": peak_mb, "status": results["refine"].status}


def measure(source: Path, outcomes: Path, first: str) -> dict[str, Any]:
    """`work` in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.learning", "--work", str(source), str(outcomes), first],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def row(what: str, parties: int, form: str, measured: dict[str, Any]) -> dict[str, object]:
    """One line of the table."""
    seconds: dict[str, float] = measured["seconds"]
    line: dict[str, object] = {"what": what, "parties": f"{parties:,}", "from": form}
    line |= {f"{name} s": f"{seconds[name]:.2f}" if name in seconds else "–" for name in STEPS}
    line |= {"all s": f"{sum(seconds.values()):.2f}", "peak MB": f"{measured['peak_mb']:.0f}"}
    line["result"] = measured["status"]
    print("  ".join(f"{k}: {v}" for k, v in line.items()), flush=True)
    return line


def main() -> None:
    from quayside.kycc.generate import generate, write_json, write_outcomes, write_parquet

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", nargs=3, metavar=("SOURCE", "OUTCOMES", "FIRST"))
    parser.add_argument("--rounds", type=int, default=3, help="of the small line; the median is kept")
    asked = parser.parse_args()
    if asked.work:
        print(json.dumps(work(*asked.work)))
        return
    about = f"{report.machine()}. {report.versions('quayside', 'duckdb', 'numpy', 'scipy')}."
    rows = []
    with tempfile.TemporaryDirectory(prefix="quayside-bench-data-") as folder:
        data = Path(folder)
        small, large = (generate(BATCH, parties, generated_at=MOMENT) for parties in (1_000, 100_000))
        for batch, name in ((small, "small"), (large, "large")):
            write_outcomes(batch, data / f"{name}_outcomes.json")
        write_json(small, data / "small.json")
        write_parquet(small, data / "small")
        write_parquet(large, data / "large")
        for form, source in (("JSON", "small.json"), ("Parquet", "small")):
            rounds = []
            for _ in range(asked.rounds):
                with Platform():
                    rounds.append(measure(data / source, data / "small_outcomes.json", "ingest"))
            rounds.sort(key=lambda r: sum(r["seconds"].values()))
            rows.append(row("file to refined card", 1_000, form, rounds[len(rounds) // 2]))
        with Platform():
            for verb, argument in (("ingest", str(data / "large")), ("features", BATCH), ("score", BATCH)):
                before(verb, argument)
            rows.append(
                row(
                    "outcomes to refined card",
                    100_000,
                    "Parquet",
                    measure(data / "large", data / "large_outcomes.json", "outcomes"),
                )
            )
    text = f"{__doc__}\n\n{report.table(rows)}"
    report.write_section("kycc-learning", "make bench-learning", about, text)


def before(verb: str, argument: str) -> None:
    """A step that is not timed, in a process of its own."""
    from benchmarks.kycc import stage

    stage(verb, **({"source": argument} if verb == "ingest" else {"batch_id": argument}))


if __name__ == "__main__":
    main()
