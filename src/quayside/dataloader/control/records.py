"""What people look up and carry over: one row by whatever they call it, history, changes, sources; YAML in and out."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from quayside.dataloader.control import configuration
from quayside.dataloader.control.configuration import SOURCE_COLUMNS, TABLE_COLUMNS
from quayside.foundation.errors import InputError, NotFoundError, UsageError

if TYPE_CHECKING:
    from quayside.dataloader.control.client import LakebaseClient

Row = dict[str, Any]

#: Moved on by loads or switched while things run: not carried from one control database to another.
_OF_LOADS = frozenset({"incremental_value", "next_load_date_time", "load_full", "is_paused", "paused_reason"})


def find(client: LakebaseClient, name: str) -> Row:
    """The row that somebody calls by its config_id, control key (or its first 8 characters) or destination.

    Raises:
        NotFoundError: no row is called so.
        UsageError: several are.
    """
    if name.isdecimal():
        return client.get_table_details(int(name))
    statement = """
        SELECT config_id FROM control.table_control
        WHERE (length(%(name)s) >= 8 AND control_key LIKE %(name)s || '%%')
            OR lower(concat_ws('.', destination_catalog, destination_schema_name, destination_table_name)) = lower(%(name)s)
            OR lower(concat_ws('.', destination_schema_name, destination_table_name)) = lower(%(name)s)
        ORDER BY config_id
    """
    found = [row["config_id"] for row in client.ask(statement, {"name": name})]
    if not found:
        raise NotFoundError(f"The control database has no table called {name!r}: see `quayside tables list`.")
    if len(found) > 1:
        raise UsageError(f"{name!r} may be config {', '.join(map(str, found))}: give the number.")
    return client.get_table_details(found[0])


def history(client: LakebaseClient, config_id: int, limit: int) -> list[Row]:
    """Attempts of a row, the newest first."""
    return client.ask(
        "SELECT * FROM control.historical_metadata WHERE config_id = %(id)s ORDER BY attempt DESC LIMIT %(limit)s",
        {"id": config_id, "limit": limit},
    )


def changes(client: LakebaseClient, config_id: int, limit: int) -> list[Row]:
    """Changes of a row's configuration, the newest first; ``fields`` says what became of each."""
    rows = client.ask(
        "SELECT * FROM control.table_control_history WHERE config_id = %(id)s ORDER BY history_id DESC LIMIT %(limit)s",
        {"id": config_id, "limit": limit},
    )
    for row in rows:
        old, new = row["old_values"] or {}, row["new_values"] or {}
        row["fields"] = (
            ", ".join(f"{name}: {old.get(name)} → {new.get(name)}" for name in row["changed_fields"])
            if row["change_type"] == "UPDATE"
            else ""
        )
    return rows


def source(client: LakebaseClient, key: str) -> Row:
    """One source database.

    Raises:
        NotFoundError: there is none of that name.
    """
    for row in sources(client):
        if row["db_config_key"] == key:
            return row
    raise NotFoundError(f"There is no source database {key!r}: see `quayside tables sources list`.")


def sources(client: LakebaseClient) -> list[Row]:
    """Every source database with how many tables it has and how many of them load now."""
    return client.ask(
        """
        SELECT d.*, count(c.config_id) AS tables,
            count(*) FILTER (WHERE c.last_status IN ('Queued', 'In Progress')) AS loading
        FROM control.table_control_dbconfig d LEFT JOIN control.table_control c USING (db_config_key)
        GROUP BY d.db_config_key ORDER BY d.db_config_key
        """,
        {},
    )


def remove(client: LakebaseClient, config_id: int) -> None:
    """Delete a row that nothing runs for.

    Raises:
        UsageError: it is loading.
    """
    with client.changes("delete") as con:
        done = con.execute(
            "DELETE FROM control.table_control WHERE config_id = %s "
            "AND (last_status IS NULL OR last_status NOT IN ('Queued', 'In Progress'))",
            (config_id,),
        )
        if done.rowcount == 0:
            raise UsageError(
                f"Config {config_id} is loading: stop it first with `quayside tables stop {config_id}`."
            )


def export(client: LakebaseClient) -> dict[str, list[Row]]:
    """All configuration, without what is as by default and what loads move on by themselves."""
    tables = client.ask("SELECT * FROM control.table_control ORDER BY config_id", {})
    return {
        "sources": [_plain(row, SOURCE_COLUMNS) for row in sources(client)],
        "tables": [_plain(row, TABLE_COLUMNS) for row in tables],
    }


def restore(client: LakebaseClient, content: Any) -> dict[str, int]:
    """Save what `export` gave, all or nothing; how many rows were added, changed and unchanged.

    Raises:
        InputError: it is not such content, or a row is wrong.
    """
    if not isinstance(content, dict) or content.keys() - {"sources", "tables"}:
        raise InputError("The file has to hold two lists, sources and tables.")
    lists = [content.get(name) or [] for name in ("sources", "tables")]
    if not all(isinstance(rows, list) and all(isinstance(row, dict) for row in rows) for rows in lists):
        raise InputError("sources and tables have to be lists of objects.")
    counts: Counter[str] = Counter({"added": 0, "changed": 0, "unchanged": 0})
    with client.changes("import") as con:
        for row in lists[0]:
            counts[configuration.save_source(con, row)] += 1
        for row in lists[1]:
            counts[configuration.save_table(con, row)[1]] += 1
    return dict(counts)


def _plain(row: Row, columns: tuple[str, ...]) -> Row:
    return {
        name: row[name]
        for name in columns
        if name == "is_active" or (name not in _OF_LOADS and row[name] not in (None, "", {}, False))
    }
