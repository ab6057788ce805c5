"""Features and scores on Spark, for batches past one machine: from the definitions that DuckDB runs, to the same values.

`LakeTables` is the input, `extract` gives the frame of features, `score` that of scores. Spark itself is the extra
``spark``, or what the cluster brings; nothing here imports it before it is used. See docs/kycc/spark.md.
"""

from quayside.kycc.spark.features import extract
from quayside.kycc.spark.scores import score
from quayside.kycc.spark.tables import LakeTables

__all__ = ["LakeTables", "extract", "score"]
