"""The registry's queries, written once for DuckDB, as Spark SQL.

sqlglot translates syntax; what it leaves to us is below. The expressions themselves stay within what both engines define
alike: exact decimals and whole numbers, the operations of IEEE 754, comparisons of instants and of bytes. None of them
divides by zero, leaves the range of its type or reads a wall clock, so that neither ANSI mode nor the session's time zone
makes a difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from quayside.kycc.tables import SCHEMA

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from sqlglot import exp

    from quayside.kycc.features.moment import Moment

#: Functions that sqlglot passes through under DuckDB's name: DuckDB → Spark.
_FUNCTIONS: Final = {"EPOCH_US": "UNIX_MICROS"}
#: The only `$name` that is not an instant.
_TEXT_PARAMETER: Final = "batch_id"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def to_spark(query: str) -> str:
    """A query of DuckDB as Spark's, for ``spark.sql(text, args=…, **frames)``.

    Tables of schema ``kycc`` become ``{name}``, which the call fills with frames. `$names` become `:names`; instants are
    bound as microseconds since 1970, because a bound timestamp passes through the driver's own time zone.
    """
    import sqlglot

    tree = sqlglot.parse_one(query, read="duckdb").transform(_literal).transform(_node)
    return tree.sql("spark", copy=False)


def run(spark: SparkSession, query: str, frames: Mapping[str, DataFrame], moment: Moment) -> DataFrame:
    """The frame that a query of the registry gives for this moment; `frames` holds one per table it reads."""
    read = {name: frame for name, frame in frames.items() if f"{SCHEMA}.{name} " in f"{query} "}
    return spark.sql(to_spark(query), args=arguments(moment, query), **read)


def arguments(moment: Moment, query: str) -> dict[str, Any]:
    """Values of the `:names` in `to_spark(query)`."""
    return {
        name: micros(value) if isinstance(value, datetime) else value
        for name, value in moment.parameters(query).items()
    }


def micros(instant: datetime) -> int:
    """Microseconds from 1970 to an instant with a zone."""
    return (instant - _EPOCH) // timedelta(microseconds=1)


def column_type(duckdb_type: str) -> str:
    """DuckDB's type under the name that a Spark schema gives it, such as ``decimal(18,2)``."""
    from sqlglot import exp

    return exp.DataType.build(duckdb_type, dialect="duckdb").sql("spark").lower().replace(" ", "")


def _literal(node: exp.Expression) -> exp.Expression:
    """Braces in texts, before there are any of ours."""
    from sqlglot import exp

    if isinstance(node, exp.Literal) and node.is_string:
        return exp.Literal.string(node.name.replace("{", "{{").replace("}", "}}"))
    return node


def _node(node: exp.Expression) -> exp.Expression:
    from sqlglot import exp

    match node:
        case exp.Anonymous() if node.name.upper() in _FUNCTIONS:
            node.set("this", _FUNCTIONS[node.name.upper()])  # in place: what a new node holds is not visited
        case exp.Table() if node.db == SCHEMA:
            name = exp.Identifier(this=f"{{{node.name}}}", quoted=False)
            return exp.Table(this=name, alias=node.args.get("alias"))
        case exp.CTE():
            node.set("materialized", None)  # Spark decides by itself
        case exp.Parameter() | exp.Placeholder() if node.name != _TEXT_PARAMETER:
            return exp.Anonymous(this="TIMESTAMP_MICROS", expressions=[exp.Placeholder(this=node.name)])
        case _:
            pass
    return node
