"""Rows of configuration: what they may be, and saving them.

The database refuses what must not be, whoever writes it; here the same rules are sentences, all of a row's problems at
once, before anything is written. Saving the same row again changes nothing.
"""

# ruff: noqa: S608 - names are checked against the lists below; values are bound
from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Literal

from quayside.dataloader.control.rows import column_list, column_names
from quayside.dataloader.request import STRATEGIES
from quayside.foundation.errors import InputError, NotFoundError, sentence

Saved = Literal["added", "changed", "unchanged"]

SOURCE_COLUMNS: Final = (
    "db_config_key", "db_type", "db_config_value", "db_kv_scope", "default_target_schema", "max_concurrent_loads",
    "max_connections", "statement_timeout_seconds", "load_windows", "application_name", "is_paused", "paused_reason",
)  # fmt: skip
TABLE_COLUMNS: Final = (
    "is_active", "db_config_key", "source_catalog", "source_schema_name", "source_table_name", "query",
    "destination_catalog", "destination_schema_name", "destination_table_name", "load_strategy", "load_full",
    "load_cron", "load_timezone", "incremental_column", "incremental_type", "incremental_value",
    "incremental_lookback_hours", "rolling_column", "rolling_days", "partition_column", "num_partitions", "lower_bound",
    "upper_bound", "primary_key_cols", "is_delete", "delete_mode", "schema_contract", "priority", "next_load_date_time",
)  # fmt: skip
#: Columns that are not text.
NOT_TEXT: Final = frozenset(
    {"db_config_value", "max_concurrent_loads", "max_connections", "statement_timeout_seconds", "load_windows",
     "is_paused", "is_active", "load_full", "incremental_lookback_hours", "rolling_days", "num_partitions", "is_delete",
     "priority"}
)  # fmt: skip
#: What the control key is made of.
IDENTITY: Final = (
    "db_config_key", "source_catalog", "source_schema_name", "source_table_name", "load_cron", "load_timezone",
)  # fmt: skip
DB_TYPES: Final = (
    "postgresql", "mysql", "mariadb", "mssql", "oracle", "snowflake", "snowflake_pem", "clickhouse", "s3_iceberg",
    "duckdb", "sqlite", "parquet", "csv",
)  # fmt: skip

_CHOICES: Final = {
    "load_strategy": STRATEGIES,
    "incremental_type": ("timestamp", "integer"),
    "delete_mode": ("soft", "hard"),
    "schema_contract": ("evolve", "freeze", "discard_columns"),
}
_DEFAULTS: Final[dict[str, Any]] = {
    "is_active": True,
    "destination_catalog": "bronze",
    "load_strategy": "full",
    "load_timezone": "UTC",
    "delete_mode": "soft",
    "schema_contract": "evolve",
}
_POSITIVE: Final = (
    "rolling_days",
    "num_partitions",
    "max_concurrent_loads",
    "max_connections",
    "statement_timeout_seconds",
)
_DESTINATION: Final = re.compile(r"[A-Za-z0-9_]{1,128}")
_SOURCE_KEY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
#: Sentences for what only the database can see, where its own is not one for people.
_CONSTRAINTS: Final = {
    "table_control_key": "this source table has a row with the same schedule already",
}  # fmt: skip


def table_problems(values: Mapping[str, Any]) -> list[str]:
    """Everything that is wrong with a whole row of table_control; columns left out count as their defaults."""
    from quayside.dataloader.next_due import cron_problem, zone_problem

    row = _DEFAULTS | {name: value for name, value in values.items() if value is not None}
    found = _unknown(values, TABLE_COLUMNS, "table_control")
    if not row.get("source_table_name"):
        found.append("source_table_name is missing")
    for name in ("destination_catalog", "destination_schema_name", "destination_table_name"):
        if (value := row.get(name)) is None:
            found.append(f"{name} is missing")
        elif not _DESTINATION.fullmatch(str(value)):
            found.append(f"{name} {value!r} is not made of letters, digits and _ (at most 128)")
    for name, allowed in _CHOICES.items():
        if name in row and row[name] not in allowed:
            found.append(f"{name} {row[name]!r} is none of {', '.join(allowed)}")
    if row.get("load_cron") is not None and (problem := cron_problem(str(row["load_cron"]))):
        found.append(problem)
    if problem := zone_problem(str(row["load_timezone"])):
        found.append(problem)
    found += _whole_numbers(row, *_POSITIVE, least=1)
    found += _whole_numbers(row, "incremental_lookback_hours", least=0)
    try:
        key = column_names(row.get("primary_key_cols"), strict=True)
    except ValueError as error:
        key = ()
        found.append(f"primary_key_cols cannot be read ({sentence(error)})")
    if "" in key or len(set(key)) != len(key):
        found.append("primary_key_cols has an empty or repeated name")
    if row["is_active"]:
        found += _needs(row, key)
    return found


def _needs(row: Mapping[str, Any], key: tuple[str, ...]) -> Iterator[str]:
    """What the strategy of an active row needs and is not there."""
    strategy = row["load_strategy"]
    if not row.get("db_config_key"):
        yield "db_config_key is missing: an active row needs its source database"
    if strategy in ("incremental", "append_only", "chunked_backfill"):
        for name in ("incremental_column", "incremental_type"):
            if not row.get(name):
                yield f"{name} is missing, which {strategy} needs"
    if strategy == "rolling" and not row.get("rolling_column"):
        yield "rolling_column is missing, which rolling needs"
    if not key and strategy in ("incremental", "rolling", "chunked_backfill", "scd2"):
        yield f"primary_key_cols is missing, which {strategy} needs"
    if not key and row.get("is_delete"):
        yield "primary_key_cols is missing, which is_delete needs"


def source_problems(values: Mapping[str, Any]) -> list[str]:
    """Everything that is wrong with a whole row of table_control_dbconfig."""
    found = _unknown(values, SOURCE_COLUMNS, "table_control_dbconfig")
    key = values.get("db_config_key")
    if not key or not _SOURCE_KEY.fullmatch(str(key)):
        found.append(f"db_config_key {key!r} is not made of letters, digits, _ . and - (at most 100)")
    if values.get("db_type") not in DB_TYPES:
        found.append(f"db_type {values.get('db_type')!r} is none of {', '.join(DB_TYPES)}")
    fields = values.get("db_config_value")
    if fields is None or not isinstance(fields, Mapping):
        found += [] if fields is None else ["db_config_value is not an object of connection fields"]
    else:
        found += _field_problems(fields)
    found += _whole_numbers(values, *_POSITIVE, least=1)
    return found


def _is_field(value: Any) -> bool:
    """The name of a secret, a number, or ``{"value": …}`` for a value that is none (``sources/fields.py``)."""
    if isinstance(value, Mapping):
        return value.keys() == {"value"} and not isinstance(value["value"], Mapping | list)
    return isinstance(value, str | int | float | bool)


def _field_problems(fields: Mapping[str, Any]) -> Iterator[str]:
    """Which fields a type has is the source's to say; that no secret is stored is said here."""
    from quayside.dataloader.sources.fields import SECRET_FIELDS

    for name, value in fields.items():
        if name in SECRET_FIELDS and not isinstance(value, str):
            yield f"{name} has to be the name of a secret, not the secret"
        elif not isinstance(value, str | int | float | bool) and not (
            isinstance(value, Mapping) and value.keys() == {"value"}
        ):
            yield f'{name} is neither the name of a secret nor {{"value": …}}'


def save_source(con: Any, values: Mapping[str, Any]) -> Saved:
    """Add a source, or change the columns given of the one with this key."""
    key = values.get("db_config_key")
    old = con.execute(
        "SELECT * FROM control.table_control_dbconfig WHERE db_config_key = %s FOR UPDATE", (key,)
    ).fetchone()
    before = {} if old is None else {name: old[name] for name in SOURCE_COLUMNS}
    _refuse(f"Source {key!r}", source_problems(before | dict(values)))
    return _save(con, "table_control_dbconfig", "db_config_key", old, dict(values), f"Source {key!r}")[1]


def save_table(con: Any, values: Mapping[str, Any], config_id: int | None = None) -> tuple[int, Saved]:
    """Add a row, or change the columns given of the one with this id or else with the same control key."""
    values = dict(values)
    if isinstance(values.get("primary_key_cols"), list | tuple):
        values["primary_key_cols"] = column_list([str(name) for name in values["primary_key_cols"]])
    old = _existing(con, values, config_id)
    if old is None:
        values = _prefilled(con, values)
    before = {} if old is None else {name: old[name] for name in TABLE_COLUMNS}
    what = f"Table {values.get('source_table_name')!r}" if old is None else f"Config {old['config_id']}"
    row = before | values
    _refuse(what, table_problems(row) + _unknown_source(con, row.get("db_config_key")))
    return _save(con, "table_control", "config_id", old, values, what)


def _unknown_source(con: Any, key: str | None) -> list[str]:
    known = con.execute(
        "SELECT 1 FROM control.table_control_dbconfig WHERE db_config_key = %s", (key,)
    ).fetchone()
    if key is None or known:
        return []
    return [f"there is no source database {key!r}: add it with `quayside tables sources add`"]


def _existing(con: Any, values: Mapping[str, Any], config_id: int | None) -> dict[str, Any] | None:
    if config_id is not None:
        row = con.execute(
            "SELECT * FROM control.table_control WHERE config_id = %s FOR UPDATE", (config_id,)
        ).fetchone()
        if row is None:
            raise NotFoundError(
                f"The control database has no config {config_id}: see `quayside tables list`."
            )
        return row
    identity = [values.get(name) or _DEFAULTS.get(name) for name in IDENTITY]
    return con.execute(
        "SELECT * FROM control.table_control WHERE control_key = control.key_of(%s, %s, %s, %s, %s, %s) FOR UPDATE",
        identity,
    ).fetchone()


def _prefilled(con: Any, values: dict[str, Any]) -> dict[str, Any]:
    """A new row with what is left out taken from its source."""
    source = con.execute(
        "SELECT default_target_schema FROM control.table_control_dbconfig WHERE db_config_key = %s",
        (values.get("db_config_key"),),
    ).fetchone()
    if values.get("destination_schema_name") is None:
        schema = source["default_target_schema"] if source else None
        values["destination_schema_name"] = schema or values.get("source_schema_name")
    if values.get("destination_table_name") is None:
        values["destination_table_name"] = values.get("source_table_name")
    return {"is_active": True} | values


def _save(
    con: Any, table: str, key: str, old: Mapping[str, Any] | None, values: dict[str, Any], what: str
) -> tuple[Any, Saved]:
    values = {name: json.dumps(v) if isinstance(v, dict | list) else v for name, v in values.items()}
    if old is None:
        names = [name for name, value in values.items() if value is not None]
        columns, holders = ", ".join(names), ", ".join(f"%({name})s" for name in names)
        with _explained(what):
            row = con.execute(
                f"INSERT INTO control.{table} ({columns}) VALUES ({holders}) RETURNING {key}", values
            ).fetchone()
        return row[key], "added"
    changed = {name: value for name, value in values.items() if not _same(old[name], value)}
    if not changed:
        return old[key], "unchanged"
    columns = ", ".join(f"{name} = %({name})s" for name in changed)
    with _explained(what):
        con.execute(
            f"UPDATE control.{table} SET {columns} WHERE {key} = %(_key)s", changed | {"_key": old[key]}
        )
    return old[key], "changed"


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, dict | list) and isinstance(new, str):
        return old == json.loads(new)
    return old == new


@contextmanager
def _explained(what: str) -> Iterator[None]:
    import psycopg

    try:
        yield
    except (psycopg.IntegrityError, psycopg.DataError) as error:
        text = error.diag.message_primary or sentence(error)
        reason = _CONSTRAINTS.get(error.diag.constraint_name or "", text)
        raise InputError(f"{what} is not saved: {reason}.") from None


def _refuse(what: str, problems: list[str]) -> None:
    if problems:
        raise InputError(f"{what} is not saved: {'; '.join(problems)}.")


def _unknown(values: Mapping[str, Any], columns: tuple[str, ...], table: str) -> list[str]:
    return [f"{name} is not a column of {table} that is configured" for name in values if name not in columns]


def _whole_numbers(row: Mapping[str, Any], *names: str, least: int) -> list[str]:
    return [
        f"{name} {row[name]!r} is not a whole number of at least {least}"
        for name in names
        if row.get(name) is not None
        and (isinstance(row[name], bool) or not isinstance(row[name], int) or row[name] < least)
    ]
