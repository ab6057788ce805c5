"""A scorecard as one SQL expression, in any dialect sqlglot writes.

The expression gives the engine's points exactly; tests hold DuckDB, SQLite and PostgreSQL to that. What it takes:

- Columns are cast to double, cuts are written so that each database reads back the very same double.
- Missing is NULL, and NaN where a database has one. Databases disagree about comparing NaN (PostgreSQL, DuckDB and Spark
  hold it equal to itself and above everything, IEEE 754 unequal to everything), so it is asked for before any comparison.
- Conditions are built to be true or false, never NULL, so that NOT and OR mean what they mean in the engine.

Identifiers are quoted, therefore exact; SQLite takes a quoted name that is no column for a text, so that a missing column
is no error there. A truth value must be stored as a number, since PostgreSQL has no cast from boolean
to double. Text is compared as the column's collation compares it, which is byte by byte in the three databases above. Where
arithmetic in a rule leaves the range of a double, PostgreSQL stops with an error instead of an answer.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from quayside.foundation.errors import InputError
from quayside.kycc.bands import SCORE_MAX, SCORE_MIN
from quayside.kycc.scorecard.card import Characteristic, Scorecard
from quayside.kycc.scorecard.expressions import (
    AllOf,
    AnyOf,
    Arithmetic,
    Comparison,
    Condition,
    Feature,
    Negative,
    Not,
    Number,
    Value,
)

if TYPE_CHECKING:
    from sqlglot import exp

#: Databases that hold NaN equal to NaN. In the others NaN <> NaN, or there is no NaN and the test is never true.
NAN_EQUALS_ITSELF: Final = frozenset(
    {
        "databricks",
        "duckdb",
        "hive",
        "materialize",
        "postgres",
        "redshift",
        "risingwave",
        "snowflake",
        "spark",
        "spark2",
    }
)
#: Databases that cannot store NaN.
WITHOUT_NAN: Final = frozenset({"mysql", "sqlite", "tsql"})

_PART: Final = re.compile(r'[A-Za-z_][A-Za-z0-9_$]*|"(?:[^"]|"")+"')
_TABLE: Final = re.compile(rf"(?:{_PART.pattern})(?:\.(?:{_PART.pattern})){{0,2}}")


def to_sql(
    card: Scorecard, dialect: str, table: str | None = None, *, with_rules: bool = False, pretty: bool = True
) -> str:
    """SQL text of the card.

    Args:
        dialect: a dialect of sqlglot, such as duckdb, postgres, sqlite, snowflake, databricks, bigquery.
        table: name of the table or view with one column per feature, ``schema.table`` if need be.
        with_rules: apply decision rules and the clamp to 300–900.

    Returns:
        Without a table one expression, the raw score or with rules the total score. With a table a query that adds
        ``raw_score``, and with rules ``total_score``, to its columns.

    Raises:
        InputError: sqlglot knows no such dialect, or `table` is no table name.
    """
    from sqlglot import exp

    writer = _Writer(dialect)
    raw = writer.raw_score(card)
    if table is None:
        return (writer.total_score(card, raw) if with_rules else raw).sql(dialect, pretty=pretty, copy=False)
    query = exp.select("*", exp.alias_(raw, "raw_score")).from_(_table(table))
    if with_rules:
        total = writer.total_score(card, exp.column("raw_score"))
        query = exp.select("*", exp.alias_(total, "total_score")).from_(query.subquery("scored"))
    return query.sql(dialect, pretty=pretty, identify=True, copy=False)


def points_to_sql(card: Scorecard, dialect: str) -> dict[str, str]:
    """Each feature of the card and the expression of its points, in card order. Raises as `to_sql` does."""
    writer = _Writer(dialect)
    return {item.feature: writer.points(item).sql(dialect, copy=False) for item in card.characteristics}


def conditions_to_sql(card: Scorecard, dialect: str) -> dict[str, str]:
    """Id of each rule and its condition, true or false but never NULL, in order of application. Raises as `to_sql` does."""
    writer = _Writer(dialect)
    return {rule.id: writer.condition(rule.condition).sql(dialect, copy=False) for rule in card.ordered_rules}


def total_to_sql(card: Scorecard, dialect: str, raw_score: str = "raw_score") -> str:
    """The total score as one expression over the column `raw_score` and the features the rules read. Raises as `to_sql`
    does."""
    from sqlglot import exp

    raw = exp.column(exp.to_identifier(raw_score, quoted=True))
    return _Writer(dialect).total_score(card, raw).sql(dialect, copy=False)


def _table(name: str) -> exp.Table:
    """Up to three parts with dots between, each a plain name or in double quotes."""
    from sqlglot import exp

    if not _TABLE.fullmatch(name):
        raise InputError(f"{name!r} is not a table name.")
    parts = [(part[1:-1].replace('""', '"') if part[0] == '"' else part) for part in _PART.findall(name)]
    return exp.Table(
        **{
            key: exp.to_identifier(part, quoted=True)
            for key, part in zip(("this", "db", "catalog"), reversed(parts), strict=False)
        }
    )


class _Writer:
    """Builds sqlglot expressions for one dialect."""

    def __init__(self, dialect: str) -> None:
        from sqlglot import Dialects

        if dialect not in {known.value for known in Dialects if known.value}:
            raise InputError(
                f"There is no SQL dialect {dialect!r}, name one of sqlglot's, such as duckdb, postgres or sqlite."
            )
        self.dialect = dialect

    def raw_score(self, card: Scorecard) -> exp.Expression:
        from sqlglot import exp

        result: exp.Expression = exp.Literal.number(card.base)
        for item in card.characteristics:
            result = exp.Add(this=result, expression=self.points(item))
        return result

    def points(self, item: Characteristic) -> exp.Expression:
        return self._numeric(item) if item.kind == "numeric" else self._categorical(item)

    def total_score(self, card: Scorecard, raw: exp.Expression) -> exp.Expression:
        from sqlglot import exp

        # Each step mentions the score before it once: a CASE around it would double the text with every rule.
        score: exp.Expression = exp.paren(raw) if card.rules else raw
        for rule in card.ordered_rules:
            if rule.action == "flag":
                continue
            neutral = SCORE_MAX * 100 if rule.action == "cap" else 0
            effect = (
                exp.case()
                .when(self.condition(rule.condition), _whole(rule.amount), copy=False)
                .else_(_whole(neutral), copy=False)
            )
            score = (
                self._lesser(score, effect)
                if rule.action == "cap"
                else exp.Add(this=score, expression=effect)
            )
        return self._greater(_whole(SCORE_MIN), self._lesser(_whole(SCORE_MAX), score))

    def _numeric(self, item: Characteristic) -> exp.Expression:
        from sqlglot import exp

        value = self._feature(item.feature)
        below = exp.LT if item.closed == "left" else exp.LTE
        case = exp.case().when(self._missing(value), _whole(item.missing), copy=False)
        for cut, points in zip(item.cuts, item.points, strict=False):
            case = case.when(
                below(this=value.copy(), expression=self._number(cut)), _whole(points), copy=False
            )
        return case.else_(_whole(item.points[-1]), copy=False)

    def _categorical(self, item: Characteristic) -> exp.Expression:
        from sqlglot import exp

        column = exp.column(exp.to_identifier(item.feature, quoted=True))
        missing = exp.Is(this=column, expression=exp.null())
        case = exp.case().when(missing, _whole(item.missing), copy=False)
        for values, points in zip(item.categories, item.points, strict=True):
            among = exp.In(this=column.copy(), expressions=[self._text(value) for value in values])
            case = case.when(among, _whole(points), copy=False)
        return case.else_(_whole(item.other), copy=False)

    def _text(self, value: str) -> exp.Expression:
        """A string literal that the database reads back as this very text."""
        from sqlglot import exp

        # sqlglot writes these three as escapes, which Spark, MySQL and Snowflake read as the letters a, f and v.
        pieces = re.split("([\a\f\v])", value)
        if len(pieces) == 1:
            return exp.Literal.string(value)
        for at in range(0, len(pieces), 2):
            pieces[at] = exp.Literal.string(pieces[at]).sql(self.dialect)[1:-1]
        return exp.Var(this=f"'{''.join(pieces)}'")

    def condition(self, condition: Condition) -> exp.Expression:
        from sqlglot import exp

        match condition:
            case AllOf(operands):
                return exp.paren(exp.and_(*(self.condition(operand) for operand in operands), copy=False))
            case AnyOf(operands):
                return exp.paren(exp.or_(*(self.condition(operand) for operand in operands), copy=False))
            case Not(operand):
                return exp.Not(this=exp.paren(self.condition(operand), copy=False))
            case Comparison(operator, left, right):
                compare = {
                    "<": exp.LT, "<=": exp.LTE, ">": exp.GT, ">=": exp.GTE, "==": exp.EQ, "!=": exp.NEQ,
                }[operator]  # fmt: skip
                sides = (self._value(left), self._value(right))
                present = [
                    test
                    for side, node in zip(sides, (left, right), strict=True)
                    if not isinstance(node, Number)
                    for test in self._present(side)
                ]
                comparison = compare(this=sides[0].copy(), expression=sides[1].copy())
                return exp.paren(exp.and_(*present, comparison, copy=False))

    def _value(self, value: Value) -> exp.Expression:
        """A double that is NULL or NaN exactly where the engine calls the value missing."""
        from sqlglot import exp

        match value:
            case Number(constant):
                return _double(self._number(constant))
            case Feature(name):
                return self._feature(name)
            case Negative(operand):
                return exp.Neg(this=exp.paren(self._value(operand), copy=False))
            case Arithmetic(operator, left, right):
                a, b = self._value(left), self._value(right)
                if operator == "/":
                    b = exp.Nullif(this=b, expression=_double(_whole(0)))
                make = {"+": exp.Add, "-": exp.Sub, "*": exp.Mul, "/": exp.Div}[operator]
                return exp.paren(make(this=a, expression=b), copy=False)

    def _feature(self, name: str) -> exp.Expression:
        from sqlglot import exp

        return _double(exp.column(exp.to_identifier(name, quoted=True)))

    def _missing(self, value: exp.Expression) -> exp.Expression:
        from sqlglot import exp

        null = exp.Is(this=value.copy(), expression=exp.null())
        if self.dialect in WITHOUT_NAN:
            return null
        if self.dialect in NAN_EQUALS_ITSELF:
            return exp.or_(null, exp.EQ(this=value.copy(), expression=_nan()), copy=False)
        return exp.or_(null, exp.NEQ(this=value.copy(), expression=value.copy()), copy=False)

    def _present(self, value: exp.Expression) -> list[exp.Expression]:
        """Tests that hold together where `value` is not missing."""
        from sqlglot import exp

        not_null = exp.Not(this=exp.Is(this=value.copy(), expression=exp.null()))
        if self.dialect in WITHOUT_NAN:
            return [not_null]
        if self.dialect in NAN_EQUALS_ITSELF:
            return [not_null, exp.NEQ(this=value.copy(), expression=_nan())]
        return [not_null, exp.EQ(this=value.copy(), expression=value.copy())]

    def _number(self, value: float) -> exp.Expression:
        """A literal that the database reads back as this very double."""
        from sqlglot import exp

        if abs(value) < 1e11 and value == round(value, 4):
            text = str(int(value)) if value == int(value) else f"{value:.4f}".rstrip("0")
            return exp.Literal.number(text)
        if self.dialect == "sqlite":
            return _exact_product(value)
        text = repr(value)
        return exp.Literal.number(text if "e" in text else f"{text}e0")

    def _lesser(self, a: exp.Expression, b: exp.Expression) -> exp.Expression:
        from sqlglot import exp

        # by name: sqlglot's own Least drops its second argument when it writes SQLite
        return exp.Anonymous(this="MIN" if self.dialect == "sqlite" else "LEAST", expressions=[a, b])

    def _greater(self, a: exp.Expression, b: exp.Expression) -> exp.Expression:
        from sqlglot import exp

        return exp.Anonymous(this="MAX" if self.dialect == "sqlite" else "GREATEST", expressions=[a, b])


def _whole(value: int) -> exp.Expression:
    from sqlglot import exp

    return exp.Literal.number(value)


def _double(value: exp.Expression) -> exp.Expression:
    from sqlglot import exp

    return exp.Cast(this=value, to=exp.DataType(this=exp.DataType.Type.DOUBLE))


def _nan() -> exp.Expression:
    from sqlglot import exp

    return _double(exp.Literal.string("NaN"))


def _exact_product(value: float) -> exp.Expression:
    """A double as a whole number times or divided by powers of two.

    SQLite reads about one in ten thousand 17-digit literals one unit in the last place off (3.40, measured); whole
    numbers below 2**53 and products with powers of two are exact.
    """
    from sqlglot import exp

    numerator, denominator = value.as_integer_ratio()
    exponent = 1 - denominator.bit_length()
    while numerator % 2 == 0 and abs(numerator) >= 2**53:
        numerator, exponent = numerator // 2, exponent + 1
    result: exp.Expression = exp.Mul(this=_whole(numerator), expression=exp.Literal.number("1.0"))
    while exponent:
        step = min(abs(exponent), 62)
        make = exp.Div if exponent < 0 else exp.Mul
        result = make(this=result, expression=exp.Literal.number(2**step))
        exponent += step if exponent < 0 else -step
    return exp.paren(result, copy=False)
