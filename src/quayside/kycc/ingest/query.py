"""The queries over one raw table: its rows with their values, what is wrong with them, and the rows as stored.

A query has three layers: the raw columns and their text; the values (see `decode`); and, where asked for, whether each
reference points to a row that is there and what an amount is in the base currency.
"""

# ruff: noqa: S608 - table and column names are constants of the contract; values are bound or quoted by `literal`

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

from quayside.foundation.lake.sql import identifier, literal
from quayside.kycc.ingest.contract import Field, TableContract
from quayside.kycc.ingest.decode import Check, Decoded, Note, decode
from quayside.kycc.ingest.source import RawTable
from quayside.kycc.ingest.synonyms import TURNED
from quayside.kycc.tables import MONEY

_CUT: Final = 2_000


@dataclass(frozen=True)
class Conversion:
    """How amounts become amounts in the base currency.

    `rated` are the other currencies that have any rate to it; their rates are in temporary table ``rates``
    (currency, day, rate). With `several` false every row is in the base currency.
    """

    base: str
    several: bool = False
    rated: tuple[str, ...] = ()


@dataclass(frozen=True)
class TableQuery:
    """SQL over one raw table of a batch. `where` is how messages call the table."""

    contract: TableContract
    raw: RawTable
    where: str
    batch_id: str
    conversion: Conversion | None = None

    @cached_property
    def fields(self) -> tuple[Decoded, ...]:
        return tuple(decode(field, self.raw.columns, self.where) for field in self.contract.fields)

    @cached_property
    def _batch(self) -> Decoded:
        return decode(Field("batch_id", "text"), self.raw.columns, self.where)

    @property
    def key(self) -> str:
        """The identifying column of `values`, quoted."""
        return identifier(self.contract.key)

    @property
    def _repeated(self) -> str:
        return self.raw.repeated_keys or "false"

    def values(self) -> str:
        """Every row: ``position``, ``repeated``, and per field ``raw_f``, ``text_f`` and ``f``."""
        decoded = (*self.fields, self._batch)
        inner = ", ".join(f"{d.raw} AS raw_{d.field.name}, {d.text} AS text_{d.field.name}" for d in decoded)
        outer = ", ".join(f'{d.value} AS "{d.field.name}"' for d in self.fields)
        return (
            f"SELECT *, {outer} FROM (SELECT {self.raw.position} AS position, {self._repeated} AS repeated, {inner} "
            f"FROM {self.raw.relation})"
        )

    def judged(self) -> str:
        """`values` with ``found_f`` for every reference and, for transactions, ``rate`` and ``amount_base``."""
        found = [
            f'v."{f.name}" IN (SELECT id FROM ids_{f.refers_to}) AS found_{f.name}'
            for f in self.contract.fields
            if f.refers_to
        ]
        columns = ", ".join(["v.*", *found, *self._converted])
        return f"SELECT {columns} FROM ({self.values()}) v{self._rates}"

    @property
    def checks(self) -> list[Check]:
        """Everything that can be wrong with a row of `judged`."""
        checks = [check for decoded in self.fields for check in decoded.checks]
        checks += [c for c in self._batch.checks if c.reason == "wrong_type"]
        checks.append(
            Check(
                "other_batch",
                f"text_batch_id <> {literal(self.batch_id)}",
                "'batch_id ' || left(text_batch_id, 60)",
            )
        )
        checks.append(Check("repeated_key", "repeated", "'a key stands twice in the row'"))
        checks += [
            Check(
                "dangling_reference",
                f'"{f.name}" IS NOT NULL AND NOT found_{f.name}',
                f'{literal(f"{f.name} names no usable row of {f.refers_to}: ")} || left("{f.name}", 60)',
            )
            for f in self.contract.fields
            if f.refers_to
        ]
        return checks + self._conversion_checks

    @property
    def notes(self) -> list[Note]:
        """What was done to rows and is to be reported."""
        notes = [note for decoded in self.fields for note in decoded.notes]
        if self.contract.name == "relationships":
            notes.append(Note(_TURNED, "relationship named from its other end, ends swapped"))
        return notes

    def stored(self) -> str:
        """The rows as the lake stores them, columns in its order, with ``position`` first."""
        columns = ", ".join(
            f'{self._column(name, type_)} AS "{name}"' for name, type_ in self.contract.table.columns.items()
        )
        converted = ", ".join(["*", *self._converted])
        return f"SELECT position, {columns} FROM (SELECT {converted} FROM ({self.values()}) v{self._rates})"

    def raw_json(self) -> str:
        """SQL of a whole raw row as JSON text, long values cut."""
        return f"json_object({', '.join(f'{literal(n)}, {_as_json(n, t)}' for n, t in self.raw.columns.items())})"

    def _column(self, name: str, type_: str) -> str:
        if name == "batch_id":
            return literal(self.batch_id)
        if name in ("from_party_id", "to_party_id"):
            other = "to_party_id" if name == "from_party_id" else "from_party_id"
            return f'CASE WHEN {_TURNED} THEN "{other}" ELSE "{name}" END'
        return f'"{name}"::{type_}'

    # -- money in the base currency ----------------------------------------------------------------------------------

    @property
    def _converts(self) -> Conversion | None:
        return self.conversion if self.contract.name == "transactions" else None

    @property
    def _rates(self) -> str:
        if self._converts and self._converts.several:
            return ' LEFT JOIN rates x ON x.currency = v."currency" AND x.day = v."ts"::DATE'
        return ""

    @property
    def _converted(self) -> list[str]:
        if not self._converts:
            return []
        if not self._converts.several:
            return ['v."amount" AS amount_base']
        own = f'v."currency" = {literal(self._converts.base)}'
        return [
            f'CASE WHEN {own} THEN v."amount" ELSE TRY_CAST(v."amount" * x.rate AS {MONEY}) END AS amount_base',
            "x.rate",
        ]

    @property
    def _conversion_checks(self) -> list[Check]:
        plan = self._converts
        if not plan:
            return []
        known = ", ".join(literal(code) for code in (plan.base, *plan.rated))
        unknown = Check(
            "unknown_currency",
            f'"currency" NOT IN ({known})',
            f"'no rate from ' || \"currency\" || {literal(f' to {plan.base}')}",
        )
        if not plan.several:
            return [unknown]
        foreign = f'"currency" IN ({known}) AND "currency" <> {literal(plan.base)}'
        day = f'\'no rate from \' || "currency" || {literal(f" to {plan.base} on ")} || "ts"::DATE'
        return [
            unknown,
            Check("missing_fx_rate", f'{foreign} AND "ts" IS NOT NULL AND rate IS NULL', day),
            Check(
                "absurd_amount",
                f'{foreign} AND "amount" IS NOT NULL AND rate IS NOT NULL AND amount_base IS NULL',
                "'amount_base'",
            ),
        ]


_TURNED: Final = f"regexp_replace(lower(trim(text_relationship_type)), '[\\s_-]+', '_', 'g') IN ({', '.join(map(literal, sorted(TURNED)))})"


def _as_json(name: str, type_: str) -> str:
    column = identifier(name)
    if type_ == "JSON":
        numbers = "'NaN', 'nan', '-NaN', 'Infinity', '-Infinity', 'Inf', '-Inf', 'inf', '-inf'"
        return f"CASE WHEN strlen({column}) > {_CUT} THEN to_json(left({column}, {_CUT}) || '…') WHEN {column} IN ({numbers}) THEN to_json({column}) ELSE {column}::JSON END"
    if type_ in ("DOUBLE", "FLOAT"):
        return f"CASE WHEN isfinite({column}) THEN to_json({column}) ELSE to_json({column}::VARCHAR) END"
    if type_ == "VARCHAR":
        return f"to_json(left({column}, {_CUT}))"
    return f"to_json({column})"
