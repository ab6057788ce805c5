"""How one field is read from a raw column: SQL for its value, and for everything that can be wrong with it.

Each field becomes three columns of a sub-query: ``raw_f`` (as it came), ``text_f`` (its text, where it came as text)
and ``"f"`` (the value that is stored, NULL when there is none or it cannot be used). Checks speak of those.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field as field_
from typing import Final

from quayside.foundation.errors import InputError
from quayside.foundation.lake.sql import identifier, literal
from quayside.kycc.ingest.contract import AMOUNT_LIMIT, EARLIEST, LATEST, MAX_ID_BYTES, MAX_TEXT_BYTES, Field
from quayside.kycc.ingest.synonyms import CODES, SYNONYMS
from quayside.kycc.tables import MONEY

_ZONE: Final = r"([Zz]|[+-](0\d|1[0-4])(:?\d\d)?)"
_TIME: Final = rf"\d{{4}}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)? ?{_ZONE}?)?"
_NUMBER: Final = r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?|(?i)[+-]?(nan|inf|infinity)"


@dataclass(frozen=True)
class Check:
    """One thing that can be wrong with a row: a reason code, when it is (SQL; NULL means no), and a detail (SQL)."""

    reason: str
    when: str
    detail: str


@dataclass(frozen=True)
class Note:
    """Something done to values that a person should know of: counted rows that fulfil `when` are reported once."""

    when: str
    what: str


@dataclass
class Decoded:
    """One field of one table, read from one source."""

    field: Field
    raw: str
    text: str = "NULL"
    value: str = "NULL"
    checks: list[Check] = field_(default_factory=list)
    notes: list[Note] = field_(default_factory=list)


def decode(spec: Field, columns: dict[str, str], where: str) -> Decoded:
    """How to read `spec` from a table that has `columns` (name → DuckDB type, ``JSON`` for raw JSON text).

    Raises:
        InputError: a required column is missing, or a column has a type that cannot hold the field.
    """
    present = [name for name in (spec.name, *spec.aliases) if name in columns]
    if not present:
        if spec.required:
            raise InputError(f"{where} has no column {spec.name}: every row needs one.")
        return Decoded(spec, "NULL::VARCHAR", value=f"NULL::{_stored(spec)}")
    types = {columns[name] for name in present}
    raw = f"coalesce({', '.join(map(identifier, present))})" if len(present) > 1 else identifier(present[0])
    type_ = types.pop()
    reader = {"money": _money, "time": _time, "flag": _flag}.get(spec.kind, _text)
    decoded = reader(spec, raw, type_) if not types else None
    if decoded is None:
        raise InputError(
            f"{where} has {spec.name} as {type_}, which cannot hold {_expected(spec)}: convert the column."
        )
    name = spec.name
    if spec.required:
        nothing = f'"{name}" IS NULL AND {_absent(name, type_)}'
        decoded.checks.append(Check("missing_value", nothing, literal(name)))
    return decoded


def _stored(spec: Field) -> str:
    return {"money": MONEY, "time": "TIMESTAMPTZ", "flag": "TINYINT"}.get(spec.kind, "VARCHAR")


def _expected(spec: Field) -> str:
    return {"money": "an amount", "time": "a time", "flag": "0 or 1"}.get(spec.kind, "text")


def _absent(name: str, type_: str) -> str:
    """Whether a field without a value had none, rather than an unusable one."""
    if type_ in ("JSON", "VARCHAR"):
        return f"(raw_{name} IS NULL OR {_blank(f'text_{name}')})"
    return f"raw_{name} IS NULL"


def _blank(text: str) -> str:
    """Whether a text is empty or all spaces. CASE, because trimming a hundred million ids costs more than reading them."""
    return f"CASE WHEN starts_with({text}, ' ') THEN trim({text}) = '' ELSE {text} = '' END"


def _quote(name: str, text: str) -> str:
    """SQL of a detail: the field and, quoted and cut, what stood there."""
    return f"{literal(name + ' ')} || chr(39) || replace(left({text}, 60), chr(0), '\\0') || chr(39)"


def _unquoted(raw: str) -> str:
    """The text of a raw JSON string, NULL for any other JSON value."""
    plain = f"{raw}[2:-2]"
    escaped = f"json_extract_string('[' || coalesce({raw}, 'null') || ']', '$[0]')"
    return f"CASE WHEN starts_with({raw}, '\"') THEN CASE WHEN contains({raw}, '\\') THEN {escaped} ELSE {plain} END END"


def _wrong_type(name: str) -> Check:
    return Check("wrong_type", f"raw_{name} IS NOT NULL AND text_{name} IS NULL", _quote(name, f"raw_{name}"))


def _text(spec: Field, raw: str, type_: str) -> Decoded | None:
    name = spec.name
    decoded = Decoded(spec, raw)
    if type_ == "JSON":
        decoded.text = _unquoted(raw)
        decoded.checks.append(_wrong_type(name))
    elif type_ == "VARCHAR" or type_.startswith("ENUM"):
        decoded.text = f"{raw}::VARCHAR"
    else:
        return None
    text = f"text_{name}"
    if spec.kind == "code":
        return _code(decoded, text)
    if spec.kind == "currency":
        decoded.value = (
            f"CASE WHEN length({text}) = 3 AND {text} SIMILAR TO '[A-Z]{{3}}' THEN {text} "
            f"WHEN upper(trim({text})) SIMILAR TO '[A-Z]{{3}}' THEN upper(trim({text})) END"
        )
        unknown = f'"{name}" IS NULL AND NOT {_blank(text)}'
        decoded.checks.append(Check("unknown_currency", unknown, _quote(name, text)))
        decoded.notes.append(
            Note(f'"{name}" <> {text}', f"{name} in another spelling, set to capital letters")
        )
        return decoded
    decoded.value = f"CASE WHEN {_blank(text)} THEN NULL ELSE {text} END" if spec.required else text
    if spec.kind == "reference":  # equal to an id of another row, which was checked there
        return decoded
    limit = MAX_TEXT_BYTES if spec.kind == "text" else MAX_ID_BYTES
    long = f"{literal(name)} || ' of ' || strlen({text}) || ' bytes'"
    decoded.checks.append(Check("text_too_long", f"strlen({text}) > {limit}", long))
    decoded.checks.append(Check("nul_character", f"contains({text}, chr(0))", _quote(name, text)))
    return decoded


def _code(decoded: Decoded, text: str) -> Decoded:
    name = decoded.field.name
    codes = ", ".join(map(literal, CODES[name]))
    words = {code: code for code in CODES[name]} | SYNONYMS[name]
    spelled = f"regexp_replace(lower(trim({text})), '[\\s_-]+', '_', 'g')"
    whens = " ".join(f"WHEN {literal(word)} THEN {literal(code)}" for word, code in words.items())
    decoded.value = f"CASE WHEN {text} IN ({codes}) THEN {text} ELSE CASE {spelled} {whens} END END"
    decoded.checks.append(
        Check("unknown_type", f'"{name}" IS NULL AND NOT {_blank(text)}', _quote(name, text))
    )
    decoded.notes.append(Note(f'"{name}" <> {text}', f"{name} mapped from a synonym or another spelling"))
    return decoded


def _money(spec: Field, raw: str, type_: str) -> Decoded | None:
    name = spec.name
    decoded = Decoded(spec, raw)
    text = f"text_{name}"
    if type_ == MONEY:
        decoded.value = f"CASE WHEN abs(raw_{name}) < {AMOUNT_LIMIT} THEN raw_{name} END"
        decoded.checks.append(_absurd(name, f"abs(raw_{name}) >= {AMOUNT_LIMIT}"))
        return decoded
    if type_ == "JSON":
        # Amounts may be strings: that is how others keep cents exact. A string has to look like a number all the same.
        decoded.text = f"CASE WHEN starts_with({raw}, '\"') THEN {_unquoted(raw)} WHEN {raw}[1] NOT IN ('t', 'f', '{{', '[') THEN {raw} END"
        decoded.checks.append(_wrong_type(name))
        number = f"CASE WHEN starts_with(raw_{name}, '\"') AND NOT regexp_full_match({text}, {literal(_NUMBER)}) THEN NULL ELSE TRY_CAST({text} AS DOUBLE) END"
    elif type_ == "VARCHAR":
        decoded.text = raw
        number = (
            f"CASE WHEN regexp_full_match({text}, {literal(_NUMBER)}) THEN TRY_CAST({text} AS DOUBLE) END"
        )
    elif type_.startswith("DECIMAL") or type_ in _NUMERIC:
        number = f"raw_{name}::DOUBLE"
    else:
        return None
    decoded.value = f"CASE WHEN abs({number}) < {AMOUNT_LIMIT} THEN CAST({number} AS {MONEY}) END"
    if type_ in ("JSON", "VARCHAR"):
        decoded.checks.append(
            Check("not_a_number", f"NOT {_blank(text)} AND ({number}) IS NULL", _quote(name, text))
        )
    finite = f"isfinite({number})"
    decoded.checks.append(
        Check(
            "non_finite_amount",
            f"NOT {finite} AND NOT {_overflow(name, type_)}",
            _quote(name, f"raw_{name}::VARCHAR"),
        )
    )
    decoded.checks.append(
        _absurd(name, f"abs({number}) >= {AMOUNT_LIMIT} AND ({finite} OR {_overflow(name, type_)})")
    )
    decoded.notes.append(
        Note(
            f'"{name}"::DOUBLE <> ({number})',
            f"{name} with more than two decimals, rounded to cents, half away from zero",
        )
    )
    return decoded


_NUMERIC: Final = frozenset(
    {
        *("DOUBLE", "FLOAT", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"),
        *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"),
    }
)


def _absurd(name: str, when: str) -> Check:
    return Check("absurd_amount", when, _quote(name, f"raw_{name}::VARCHAR"))


def _overflow(name: str, type_: str) -> str:
    """Whether an infinite number was written in digits: 1e400 is absurd, Infinity is not finite."""
    return f"regexp_matches(text_{name}, '[0-9]')" if type_ in ("JSON", "VARCHAR") else "false"


def _time(spec: Field, raw: str, type_: str) -> Decoded | None:
    name = spec.name
    decoded = Decoded(spec, raw)
    text = f"text_{name}"
    if type_ in ("JSON", "VARCHAR"):
        decoded.text = _unquoted(raw) if type_ == "JSON" else raw
        parsed = f"CASE WHEN regexp_full_match({text}, {literal(_TIME)}) THEN TRY_CAST(upper({text}) AS TIMESTAMPTZ) END"
        if type_ == "JSON":
            decoded.checks.append(_wrong_type(name))
        detail, given = _quote(name, text), f"NOT {_blank(text)}"
        local = f"contains({text}, ':') AND NOT ends_with({text}, 'Z') AND NOT regexp_matches({text}, ':.*{_ZONE}$')"
        decoded.notes.append(Note(f'"{name}" IS NOT NULL AND {local}', _without_zone(name)))
    elif type_.startswith("TIMESTAMP") or type_ == "DATE":
        parsed, given = f"TRY_CAST(raw_{name} AS TIMESTAMPTZ)", f"raw_{name} IS NOT NULL"
        detail = _quote(name, f"raw_{name}::VARCHAR")
        if type_ not in ("DATE", "TIMESTAMP WITH TIME ZONE"):
            decoded.notes.append(Note(given, _without_zone(name)))
    else:
        return None
    bounds = f">= TIMESTAMPTZ '{EARLIEST} 00:00:00+00' AND {{}} < TIMESTAMPTZ '{LATEST} 00:00:00+00'"
    decoded.value = f"CASE WHEN {parsed} {bounds.format(parsed)} THEN {parsed} END"
    decoded.checks.append(Check("impossible_date", f'{given} AND "{name}" IS NULL', detail))
    return decoded


def _without_zone(name: str) -> str:
    return f"{name} without a zone, taken as UTC"


def _flag(spec: Field, raw: str, type_: str) -> Decoded | None:
    name = spec.name
    decoded = Decoded(spec, raw)
    if type_ == "JSON":
        decoded.text = raw
        decoded.value = f"CASE WHEN raw_{name} IN ('1', 'true') THEN 1::TINYINT WHEN raw_{name} IN ('0', 'false') THEN 0::TINYINT END"
    elif type_ == "BOOLEAN" or type_ in _NUMERIC:
        decoded.value = f"CASE WHEN raw_{name} = 1 THEN 1::TINYINT WHEN raw_{name} = 0 THEN 0::TINYINT END"
    else:
        return None
    decoded.checks.append(
        Check(
            "not_zero_or_one",
            f'raw_{name} IS NOT NULL AND "{name}" IS NULL',
            _quote(name, f"raw_{name}::VARCHAR"),
        )
    )
    return decoded
