"""Exchange rates: loading them into ``kycc.fx_rates``, and choosing the currency a batch is converted to.

A rate is units of the base currency for one unit of the currency on one UTC day. A transaction is converted at the rate of
its own day; a day without a rate is never filled from another.
"""

# ruff: noqa: S608 - table and column names are constants; values are bound or quoted by `literal`

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import duckdb

from quayside.foundation.errors import InputError, sentence
from quayside.foundation.lake.sql import literal
from quayside.kycc.ingest.query import Conversion
from quayside.kycc.ingest.source import open_file, shown
from quayside.kycc.tables import FX_RATES

if TYPE_CHECKING:
    from quayside.kycc.ingest.load import LakeLike

COLUMNS: Final = tuple(FX_RATES.columns)
_CODE: Final = "regexp_full_match({}, '[A-Z]{{3}}')"


@dataclass(frozen=True)
class RatesLoaded:
    """What `load_rates` changed: rows of the file, and of those new and corrected ones."""

    read: int
    added: int
    changed: int


def load_rates(lake: LakeLike, path: Path | str) -> RatesLoaded:
    """Load a CSV or Parquet file with columns currency, base_currency, day, rate; known days are corrected.

    Raises:
        InputError: the file cannot be read, or one of its rows is no rate; nothing is loaded then.
    """
    path = Path(path)
    label = shown(path.name, 100)
    reader = {".csv": "read_csv({}, header = true, all_varchar = true)", ".parquet": "read_parquet({})"}.get(
        path.suffix
    )
    if reader is None:
        raise InputError(f"{label} is neither .csv nor .parquet: rates are loaded from one of those.")
    with open_file(path) as file:
        # By descriptor: the file's own name may hold wildcards, which DuckDB would expand.
        relation = reader.format(literal(f"/proc/self/fd/{file.fileno()}"))
        con = lake.connect()
        try:
            _stage_rates(con, relation, label)
            return lake.transaction(_write_rates, con)
        finally:
            con.close()


def _stage_rates(con: duckdb.DuckDBPyConnection, relation: str, label: str) -> None:
    try:
        con.execute(f"""
            CREATE OR REPLACE TEMP TABLE staged_rates AS
            SELECT row_number() OVER () AS line, currency::VARCHAR AS currency, base_currency::VARCHAR AS base_currency,
                   TRY_CAST(day AS DATE) AS day, TRY_CAST(rate AS DECIMAL(18,8)) AS rate
            FROM {relation}
        """)
    except duckdb.Error as error:
        raise InputError(
            f"{label} cannot be read as rates ({sentence(error)[:150]}): it needs the columns {', '.join(COLUMNS)}."
        ) from None
    usable = (
        f"{_CODE.format('currency')} AND {_CODE.format('base_currency')} AND currency <> base_currency AND rate > 0 "
        "AND day BETWEEN DATE '1900-01-01' AND DATE '2100-01-01'"
    )
    wrong = con.execute(f"SELECT min(line) FROM staged_rates WHERE ({usable}) IS NOT TRUE").fetchone()
    if wrong and wrong[0] is not None:
        raise InputError(
            f"{label} row {wrong[0]:,} is no rate: it needs two different codes of three capital letters, a day and a "
            "positive rate; correct it."
        )
    twice = con.execute(
        "SELECT currency, base_currency, day FROM staged_rates GROUP BY ALL HAVING count(DISTINCT rate) > 1 ORDER BY ALL LIMIT 1"
    ).fetchone()
    if twice:
        raise InputError(f"{label} has two rates from {twice[0]} to {twice[1]} on {twice[2]}: keep one.")


def _write_rates(con: duckdb.DuckDBPyConnection) -> RatesLoaded:
    target, keys = FX_RATES.qualified, "currency, base_currency, day"
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE new_rates AS
        SELECT n.*, l.rate IS NOT NULL AS known
        FROM (SELECT DISTINCT {keys}, rate FROM staged_rates) n LEFT JOIN {target} l USING ({keys})
        WHERE l.rate IS DISTINCT FROM n.rate
    """)
    counts = con.execute(
        "SELECT (SELECT count(*) FROM staged_rates), count(*) FILTER (NOT known), count(*) FILTER (known) FROM new_rates"
    ).fetchone()
    loaded = RatesLoaded(*(counts or (0, 0, 0)))
    if loaded.changed:
        con.execute(f"DELETE FROM {target} WHERE ({keys}) IN (SELECT ({keys}) FROM new_rates WHERE known)")
    if loaded.added or loaded.changed:
        con.execute(f"INSERT INTO {target} ({keys}, rate) SELECT {keys}, rate FROM new_rates")
    return loaded


def choose_base(con: duckdb.DuckDBPyConnection, counts: Counter[str], tolerated: float, where: str) -> str:
    """The currency that most transactions are in or have rates to; of several, the most common in the batch.

    So a batch in one currency is left in it, whatever rates there are.

    Args:
        counts: transactions by currency code.
        tolerated: share of transactions that may be left without a way to be converted.

    Raises:
        InputError: too many could not be converted to any one currency.
    """
    total = sum(counts.values())
    convertible = Counter({code: counts[code] for code in sorted(counts)})
    for currency, base in con.execute(
        f"SELECT DISTINCT currency, base_currency FROM {FX_RATES.qualified}"
    ).fetchall():
        convertible[base] += counts[currency]
    best = max(convertible, key=lambda base: (convertible[base], counts[base]))
    if convertible[best] < total * (1 - tolerated):
        names = ", ".join(code for code, _ in counts.most_common(5))
        raise InputError(
            f"{where} is in several currencies ({names}) and there are no rates to bring them into one: load "
            "exchange rates into kycc.fx_rates, or say which currency with base_currency."
        )
    return best


def conversion(con: duckdb.DuckDBPyConnection, base: str, counts: Counter[str]) -> Conversion:
    """How a batch with these currencies is converted to `base`; leaves the rates in temporary table ``rates``."""
    if set(counts) <= {base}:
        return Conversion(base)
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE rates AS SELECT currency, day, max(rate) AS rate FROM {FX_RATES.qualified} "
        "WHERE base_currency = ? GROUP BY ALL",
        [base],
    )
    rated = con.execute("SELECT DISTINCT currency FROM rates ORDER BY 1").fetchall()
    return Conversion(base, several=True, rated=tuple(code for (code,) in rated))


def rates_digest(con: duckdb.DuckDBPyConnection, base: str) -> str:
    """A digest of every rate to `base`: a batch that was converted is loaded anew when they have changed."""
    rows = con.execute(
        f"SELECT currency || ' ' || day || ' ' || rate FROM {FX_RATES.qualified} WHERE base_currency = ? ORDER BY 1",
        [base],
    ).fetchall()
    return hashlib.sha256("\n".join(text for (text,) in rows).encode()).hexdigest()
