"""The lake's tables as Spark frames, with the columns and types the features rely on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from quayside.foundation.errors import InputError
from quayside.kycc import tables
from quayside.kycc.spark.dialect import column_type

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from quayside.kycc.tables import Table

READ: Final = (tables.PARTIES, tables.TRANSACTIONS, tables.RELATIONSHIPS)


@dataclass(frozen=True)
class LakeTables:
    """`kycc.parties`, `kycc.transactions` and `kycc.relationships` as the ingest left them, of any number of batches.

    Not the files of a batch before its ingest: validation, synonyms and amounts in base currency are the ingest's work.

    Raises:
        InputError: a column of `quayside.kycc.tables` is absent or of another type.
    """

    parties: DataFrame
    transactions: DataFrame
    relationships: DataFrame

    def __post_init__(self) -> None:
        for table in READ:
            _check(table, self.frames[table.name])

    @classmethod
    def read(
        cls, spark: SparkSession, folder: str, format: Literal["parquet", "delta"] = "parquet"
    ) -> LakeTables:
        """Read what ``quayside lake export`` wrote to a folder or address: ``<folder>/kycc.parties.parquet`` and so on, or
        for Delta ``<folder>/kycc.parties`` (the cluster has to know Delta, as Databricks' do)."""
        ending = ".parquet" if format == "parquet" else ""
        return cls(
            *(
                spark.read.format(format).load(f"{folder.rstrip('/')}/{table.qualified}{ending}")
                for table in READ
            )
        )

    @property
    def frames(self) -> dict[str, DataFrame]:
        """Each frame by the name of its table."""
        return {table.name: getattr(self, table.name) for table in READ}

    @property
    def spark(self) -> SparkSession:
        return self.parties.sparkSession


def _check(table: Table, frame: DataFrame) -> None:
    found = {field.name: field.dataType.simpleString() for field in frame.schema.fields}
    for name, type_ in table.columns.items():
        wanted = column_type(type_)
        if name not in found:
            raise InputError(
                f"The frame of {table.qualified} has no column {name}: give the table as the ingest wrote it, for "
                f"example from `quayside lake export {table.qualified}`."
            )
        if found[name] != wanted:
            raise InputError(
                f"Column {name} of the frame of {table.qualified} is {found[name]} and has to be {wanted}: give the table "
                f"as the ingest wrote it, for example from `quayside lake export {table.qualified}`."
            )
