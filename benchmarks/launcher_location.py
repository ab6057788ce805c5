"""The code location of `benchmarks.launcher`: one job with one op that does nothing."""

import dagster as dg


@dg.op
def nothing() -> None:
    """The least a run can do."""


@dg.job(executor_def=dg.in_process_executor)
def trivial() -> None:
    """One op."""
    nothing()


defs = dg.Definitions(jobs=[trivial])
