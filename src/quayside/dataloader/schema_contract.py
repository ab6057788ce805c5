"""What a change of the source's columns does to the table: added, widened, refused or left out, by the row's contract.

``evolve`` takes new columns and wider types; ``freeze`` refuses any change; ``discard_columns`` leaves new columns out.
A column that is gone at the source stays, null in new rows. A table that is replaced as a whole takes the source's columns
as they are. Every change is told in a sentence. Belongs here: the decision. Does not belong here: the statements.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from quayside.dataloader.errors import SchemaContractError
from quayside.foundation.lake.sql import identifier

if TYPE_CHECKING:
    from quayside.dataloader.request import SchemaContract
    from quayside.dataloader.sources.source import Column

_BITS: Final = {"TINYINT": 8, "SMALLINT": 16, "INTEGER": 32, "BIGINT": 64, "HUGEINT": 128}
_UNSIGNED_BITS: Final = {"UTINYINT": 8, "USMALLINT": 16, "UINTEGER": 32, "UBIGINT": 64}
_DIGITS: Final = {
    "TINYINT": 3, "SMALLINT": 5, "INTEGER": 10, "BIGINT": 19,
    "UTINYINT": 3, "USMALLINT": 5, "UINTEGER": 10, "UBIGINT": 20,
}  # fmt: skip
_LARGEST_DECIMAL: Final = 38


@dataclass(frozen=True)
class SchemaPlan:
    """Columns of one load.

    Attributes:
        columns: stored column → type of the whole table afterwards, in order.
        expressions: stored column → SQL over a row of the source, for those the source gives.
        changes: sentences.
    """

    columns: dict[str, str]
    expressions: dict[str, str]
    changes: list[str] = field(default_factory=list)

    def select(self, relation: str, extra: Mapping[str, str] | None = None) -> str:
        """SELECT of the expressions, and of `extra` ones after them, FROM a relation of the source."""
        parts = [
            f"{sql} AS {identifier(name)}" for name, sql in {**self.expressions, **(extra or {})}.items()
        ]
        return f"SELECT {', '.join(parts)} FROM {relation}"  # noqa: S608  quoted

    def name_of(self, column: str) -> str:
        """The stored name of a column given in whatever case."""
        return next((c for c in self.columns if c.lower() == column.lower()), column)


def plan(
    table: str,
    source: Sequence[Column],
    stored: Mapping[str, str] | None,
    contract: SchemaContract,
    stored_type: Callable[[str], str],
    *,
    own: Mapping[str, str],
    replaced: bool,
    forced: bool = False,
    replaceable: bool = True,
) -> SchemaPlan:
    """Decide the columns of a load.

    Args:
        table: how messages call it.
        stored: columns of the table, None where there is none.
        own: columns that DataLoader adds to the source's.
        replaced: the load replaces the table; `forced` because somebody asked for it, which no contract forbids.
        replaceable: whether such a load would replace it.

    Raises:
        SchemaContractError: the contract forbids what changed, or no type holds the old and the new values, or two
            names differ only in case.
    """
    _check_names(table, source, own)
    wanted = {column.name: stored_type(column.type) for column in source}
    if stored is None or (replaced and forced):
        changes = [] if stored is None else _differences(_without(stored, own), wanted)
        return _whole(wanted, source, own, changes)
    theirs = _without(stored, own)
    if contract == "freeze" and (changes := _differences(theirs, wanted)):
        raise SchemaContractError(
            f"The columns of {table} changed at the source and its schema_contract is freeze: {'; '.join(changes)}. "
            "Set load_full to take them once, or schema_contract to evolve."
        )
    if replaced and contract == "evolve":
        return _whole(wanted, source, own, _differences(theirs, wanted))
    way_out = "set load_full to replace the table, or cast" if replaceable else "cast"
    return _merged(table, source, wanted, theirs, {**stored, **own}, contract, way_out)


def _merged(
    table: str,
    source: Sequence[Column],
    wanted: Mapping[str, str],
    theirs: Mapping[str, str],
    columns: dict[str, str],
    contract: SchemaContract,
    way_out: str,
) -> SchemaPlan:
    names = {name.lower(): name for name in theirs}
    expressions: dict[str, str] = {}
    changes: list[str] = []
    for column in source:
        type_ = wanted[column.name]
        name = names.pop(column.name.lower(), None)
        if name is None:
            if contract == "discard_columns":
                changes.append(f"left out new column {identifier(column.name)} ({type_})")
                continue
            name = column.name
            columns[name] = type_
            changes.append(f"added column {identifier(name)} ({type_})")
        elif columns[name] != type_:
            wider = widened(columns[name], type_)
            if wider is None or (wider != columns[name] and contract != "evolve"):
                raise SchemaContractError(
                    f"Column {identifier(name)} of {table} was {columns[name]} and is {type_} at the source now, which "
                    f"{'no type holds both' if wider is None else 'its schema_contract forbids'}: {way_out} "
                    "the column in the row's query."
                )
            if wider != columns[name]:
                changes.append(f"widened column {identifier(name)} from {columns[name]} to {wider}")
                columns[name] = wider
        expressions[name] = _cast(column, columns[name])
    changes += [
        f"column {identifier(name)} is gone at the source: null in new rows" for name in names.values()
    ]
    return SchemaPlan(columns, expressions, changes)


def _whole(
    wanted: Mapping[str, str], source: Sequence[Column], own: Mapping[str, str], changes: list[str]
) -> SchemaPlan:
    expressions = {column.name: _cast(column, wanted[column.name]) for column in source}
    return SchemaPlan({**wanted, **own}, expressions, changes)


def _cast(column: Column, type_: str) -> str:
    name = identifier(column.name)
    return name if column.type == type_ else f"CAST({name} AS {type_})"


def _without(stored: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    return {name: type_ for name, type_ in stored.items() if name not in own}


def _differences(stored: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    before = {name.lower(): type_ for name, type_ in stored.items()}
    after = {name.lower() for name in wanted}
    return [
        *(
            f"added column {identifier(name)} ({type_})"
            for name, type_ in wanted.items()
            if name.lower() not in before
        ),
        *(
            f"column {identifier(name)} changed from {before[name.lower()]} to {type_}"
            for name, type_ in wanted.items()
            if before.get(name.lower(), type_) != type_
        ),
        *(f"dropped column {identifier(name)}" for name in stored if name.lower() not in after),
    ]


def _check_names(table: str, source: Sequence[Column], own: Mapping[str, str]) -> None:
    seen: dict[str, str] = {name.lower(): f"{identifier(name)} (which DataLoader adds)" for name in own}
    for column in source:
        if other := seen.get(column.name.lower()):
            raise SchemaContractError(
                f"Columns {other} and {identifier(column.name)} of {table} have the same name but for case, which the "
                "lake cannot hold: rename or leave out one in the row's query."
            )
        seen[column.name.lower()] = identifier(column.name)


def widened(old: str, new: str) -> str | None:
    """The narrowest type that holds every value of both exactly; None when there is none.

    >>> widened("INTEGER", "BIGINT"), widened("DECIMAL(10,2)", "DECIMAL(8,4)"), widened("VARCHAR", "INTEGER")
    ('BIGINT', 'DECIMAL(12,4)', None)
    """
    if old == new:
        return old
    if (integer := _integer(old, new)) is not None:
        return integer
    if (decimal := _decimal(old, new)) is not None:
        return decimal
    pair = {old, new}
    if pair == {"DATE", "TIMESTAMP"}:
        return "TIMESTAMP"
    exact = {"FLOAT", "DOUBLE", "TINYINT", "SMALLINT", "INTEGER"}  # a double holds these exactly
    return "DOUBLE" if pair <= exact and "DOUBLE" in pair else None


def _integer(old: str, new: str) -> str | None:
    needed = 0
    for type_ in (old, new):
        if type_ in _BITS:
            needed = max(needed, _BITS[type_])
        elif type_ in _UNSIGNED_BITS:
            both = old in _UNSIGNED_BITS and new in _UNSIGNED_BITS
            needed = max(needed, _UNSIGNED_BITS[type_] * (1 if both else 2))
        else:
            return None
    of = _UNSIGNED_BITS if old in _UNSIGNED_BITS and new in _UNSIGNED_BITS else _BITS
    return next((name for name, bits in of.items() if bits >= needed), None)


def _decimal(old: str, new: str) -> str | None:
    before, after = _precision(old), _precision(new)
    if before is None or after is None:
        return None
    scale = max(before[1], after[1])
    digits = max(before[0] - before[1], after[0] - after[1]) + scale
    return f"DECIMAL({digits},{scale})" if digits <= _LARGEST_DECIMAL else None


def _precision(type_: str) -> tuple[int, int] | None:
    if match := re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", type_):
        return int(match[1]), int(match[2])
    return (_DIGITS[type_], 0) if type_ in _DIGITS else None
