"""A small source for the demonstration: 20 tables of a shop in the platform's PostgreSQL, and their configuration.

Made once; every further call changes some rows, so that the next loads have something to find.
"""

# ruff: noqa: S608 - names are the constants below

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from quayside.foundation.errors import SettingsError

if TYPE_CHECKING:
    from quayside.dataloader.control.client import LakebaseClient
    from quayside.foundation.settings import Settings

SOURCE: Final = "demo_shop"
SCHEMA: Final = "demo_shop"
#: Table → rows. These change, and carry when; the next ones do not.
CHANGING: Final = {
    "orders": 5_000, "order_lines": 12_000, "customers": 2_000, "addresses": 2_500, "payments": 5_000, "shipments": 4_000,
    "returns": 300, "invoices": 5_000, "stock_moves": 8_000, "price_changes": 1_500,
}  # fmt: skip
STEADY: Final = {
    "countries": 240, "currencies": 160, "products": 800, "categories": 60, "suppliers": 120, "warehouses": 12,
    "carriers": 15, "tax_rates": 90, "payment_terms": 20, "employees": 250,
}  # fmt: skip
TABLES: Final = CHANGING | STEADY


def prepare(settings: Settings, client: LakebaseClient) -> list[int]:
    """Make or change the source, configure its tables, and make them due; their config_ids.

    Raises:
        SettingsError: the platform's PostgreSQL wants a password. The demonstration knows no name for that secret.
    """
    from psycopg.conninfo import conninfo_to_dict

    from quayside.dataloader.control.configuration import save_source, save_table
    from quayside.foundation.postgres import connect, database_url

    parts = conninfo_to_dict(database_url(settings))
    if parts.get("password"):
        raise SettingsError(
            "The demonstration's tables need the embedded PostgreSQL: QUAYSIDE_DATABASE_URL has a password, and sources are "
            "configured by the names of secrets alone."
        )
    with connect(settings) as con:
        _make_or_change(con)
    names = {"host": "host", "port": "port", "dbname": "service_name", "user": "user"}
    fields = {field: {"value": str(parts[name])} for name, field in names.items() if parts.get(name)}
    with client.changes("demo") as con:
        save_source(con, {"db_config_key": SOURCE, "db_type": "postgresql", "db_config_value": fields})
        ids = [save_table(con, _configuration(name))[0] for name in TABLES]
        con.execute(
            "UPDATE control.table_control SET next_load_date_time = clock_timestamp(), priority = 1000, "
            "last_status = CASE WHEN last_status = 'Failed' THEN NULL ELSE last_status END, review_required = false "
            "WHERE config_id = ANY(%s)",
            (ids,),
        )
    return ids


def _make_or_change(con: Any) -> None:
    con.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
    found = con.execute(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = %s", (SCHEMA,)
    ).fetchall()
    there = {name for (name,) in found}
    for name, rows in TABLES.items():
        if name not in there:
            con.execute(
                f"CREATE TABLE {SCHEMA}.{name} AS SELECT n AS id, '{name} ' || n AS label, "
                "mod(n * 7919, 100000)::numeric(12, 2) / 100 AS amount, "
                "timestamptz '2026-01-01 00:00:00Z' + n * interval '1 minute' AS changed_at "
                "FROM generate_series(1, %s) n",
                (rows,),
            )
            con.execute(f"ALTER TABLE {SCHEMA}.{name} ADD PRIMARY KEY (id)")
            con.execute(f"CREATE INDEX ON {SCHEMA}.{name} (changed_at)")
        elif name in CHANGING:
            con.execute(
                f"UPDATE {SCHEMA}.{name} SET amount = amount + 1, changed_at = clock_timestamp() WHERE mod(id, 100) = 1"
            )
            con.execute(
                f"INSERT INTO {SCHEMA}.{name} SELECT max(id) + 1, '{name} new', 1, clock_timestamp() FROM {SCHEMA}.{name}"
            )


def _configuration(name: str) -> dict[str, Any]:
    strategy = (
        {
            "load_strategy": "incremental",
            "incremental_column": "changed_at",
            "incremental_type": "timestamp",
            "incremental_lookback_hours": 0,
        }
        if name in CHANGING
        else {"load_strategy": "full"}
    )
    return {
        "db_config_key": SOURCE,
        "source_schema_name": SCHEMA,
        "source_table_name": name,
        "destination_catalog": "bronze",
        "destination_schema_name": "shop",
        "destination_table_name": name,
        "primary_key_cols": "id",
        **strategy,
    }
