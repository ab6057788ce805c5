"""`make bench-refinement`: refined cards on generated batches with observed outcomes, and what training costs.

For each of 20 seeds a card is refined on one batch and ranks the outcomes of another, of other parties, that nothing was
fitted to. Time and memory of training and refinement are taken in a process of their own, after imports.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from statistics import mean
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tests.kycc.training.observed import labelled_batch

from benchmarks import report
from quayside.kycc.refinement import refine
from quayside.kycc.scorecard import Scorecard, evaluate, load_scorecard
from quayside.kycc.training import TrainedModel, split, train
from quayside.kycc.training.metrics import auc

SEEDS = 20
BLENDS = (0.0, 0.5, 1.0)
UNSEEN_PARTIES = 5_000
#: How much worse than v1 a refined card may rank on any seed.
WORST = -0.01


def ranking(card: Scorecard, table: pa.Table) -> float:
    """AUC of the card's total scores."""
    scores = evaluate(card, {name: table[name] for name in card.required_features}).total_score
    return auc(table["label"].to_numpy(), -scores)


def rows_of_size(parties: int, tables: list[pa.Table], unseen: list[pa.Table]) -> list[dict[str, str]]:
    """A table row per blend factor: ranking of unseen outcomes over all seeds, and what the gates said."""
    base = load_scorecard("v1")
    gain: dict[float, list[float]] = {factor: [] for factor in BLENDS}
    failed: dict[float, list[tuple[str, ...]]] = {factor: [] for factor in BLENDS}
    before = []
    for table, other in zip(tables, unseen, strict=True):
        model = train(table, active=base)
        assert isinstance(model, TrainedModel)
        before.append(ranking(base, other))
        for factor in BLENDS:
            made = refine(base, model, factor, split(table, model.config))
            gain[factor].append(ranking(made.card, other) - before[-1])
            failed[factor].append(made.failed)
    rows = []
    for factor in BLENDS:
        names = Counter(name for gates in failed[factor] for name in gates)
        rows.append(
            {
                "parties": f"{parties:,}",
                "blend": f"{factor:g}",
                "AUC v1": f"{mean(before):.4f}",
                "gain, mean": f"{mean(gain[factor]):+.4f}",
                "gain, worst seed": f"{min(gain[factor]):+.4f}",
                "drafts": f"{sum(not gates for gates in failed[factor])} of {len(tables)}",
                "gates failed": ", ".join(f"{name} {count}×" for name, count in names.items()) or "none",
            }
        )
        print(rows[-1], flush=True)
        if min(gain[factor]) < WORST:
            raise SystemExit(f"Blend {factor:g} ranks worse than v1 by more than {-WORST} on a seed.")
    return rows


def cost(path: str) -> dict[str, Any]:
    """In the child: train and refine on a Parquet file of labelled rows, twice; the second is without first calls."""
    base, table = load_scorecard("v1"), pq.read_table(path)
    before = peak_mb()
    seconds = []
    for _ in range(2):
        started = perf_counter()
        model = train(table, active=base)
        trained = perf_counter()
        assert isinstance(model, TrainedModel)
        refine(base, model, 0.5, split(table, model.config))
        seconds.append((trained - started, perf_counter() - trained))
    return {
        "first": sum(seconds[0]),
        "train": seconds[1][0],
        "refine": seconds[1][1],
        "peak_mb": peak_mb(),
        "before_mb": before,
    }


def peak_mb() -> float:
    """Peak resident memory of this program alone; what getrusage says includes the parent's at the moment of the fork."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:", 1)[1].split(maxsplit=1)[0]) / 1024


def cost_row(table: pa.Table) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labelled.parquet"
        pq.write_table(table, path)
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.refinement", "--cost", str(path)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    found = json.loads(done.stdout)
    row = {
        "parties": f"{table.num_rows:,}",
        "train s": f"{found['train']:.2f}",
        "refine s": f"{found['refine']:.3f}",
        "both, first call s": f"{found['first']:.2f}",
        "peak MB": f"{found['peak_mb']:.0f}",
        "of which before": f"{found['before_mb']:.0f}",
    }
    print(row, flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cost", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.cost:
        print(json.dumps(cost(chosen.cost)))
        return
    about = f"{report.machine()}. {report.versions('quayside', 'numpy', 'pyarrow', 'duckdb')}."
    unseen = [labelled_batch(1_000 + seed, UNSEEN_PARTIES) for seed in range(SEEDS)]
    small = [labelled_batch(seed, 1_000) for seed in range(SEEDS)]
    large = [labelled_batch(seed, 5_000) for seed in range(SEEDS)]
    quality = rows_of_size(1_000, small, unseen) + rows_of_size(5_000, large, unseen)
    costs = [cost_row(small[0]), cost_row(large[0]), cost_row(_many(large))]
    body = "\n\n".join((TEXT, report.table(quality), COSTS, report.table(costs)))
    report.write_section("kycc-refinement", "make bench-refinement", about, body)


def _many(tables: list[pa.Table]) -> pa.Table:
    """All batches as one table, in the order of a labelled table."""
    table = pa.concat_tables(tables)
    assert len(np.unique(table["party_id"].to_numpy())) == table.num_rows
    return table.sort_by([("as_of", "ascending"), ("batch_id", "ascending"), ("party_id", "ascending")])


TEXT = f"""Batches of the balanced mix, about 19 % bad; {SEEDS} seeds. v1 is refined on one batch (a fifth of it held out for the gates);
AUC is that of the total scores on another batch of {UNSEEN_PARTIES:,} parties nothing was fitted to."""
COSTS = "Training (with five-fold cross-validation and all figures) and refinement, in memory, after imports, single process:"

if __name__ == "__main__":
    main()
