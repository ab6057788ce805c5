"""What a feature definition is. The definitions themselves stand in `kyc`, `transactions` and `network`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Source = Literal["kyc", "transaction", "network"]
Kind = Literal["flag", "count", "number"]

SQL_TYPES: Final[dict[Kind, str]] = {"flag": "TINYINT", "count": "BIGINT", "number": "DOUBLE"}


@dataclass(frozen=True)
class Feature:
    """One feature, defined once: the query, the range check, the documentation and the JSON file derive from it.

    `expression` is SQL over the columns its source prepares (for the network: the name of an algorithm) and yields NULL
    where there is no data; `no_data` is what is stored then, None meaning NULL. `low` and `high` are inclusive, None
    meaning unbounded.
    """

    name: str
    source: Source
    kind: Kind
    unit: str
    low: float | None
    high: float | None
    window: str
    no_data: float | None
    description: str
    expression: str

    @property
    def sql_type(self) -> str:
        return SQL_TYPES[self.kind]

    @property
    def select(self) -> str:
        """The feature as one item of a SELECT list."""
        value = f"CAST({self.expression} AS {self.sql_type})"
        if self.no_data is not None:
            value = f"coalesce({value}, {self.no_data:g})"
        return f'{value} AS "{self.name}"'


def filled(column: str) -> str:
    """1 when a text holds anything but white space (Unicode's), 0 when blank or NULL."""
    return rf"CAST(coalesce(regexp_matches({column}, '[^\x09-\x0d\x1c-\x20\x85\p{{Z}}]'), FALSE) AS INTEGER)"
