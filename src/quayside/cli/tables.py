"""``quayside tables``: the rows of configuration that DataLoader loads by, and why each does or does not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

if TYPE_CHECKING:
    from quayside.dataloader.control.client import LakebaseClient

app = typer.Typer(
    help="Tables that load by configuration: list, add, why, run, reset, history; sources and their switch.",
    no_args_is_help=True,
    add_completion=False,
)
sources_app = typer.Typer(help="Source databases and how they are protected.", no_args_is_help=True)
app.add_typer(sources_app, name="sources")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Config = Annotated[
    str, typer.Argument(metavar="CONFIG", help="config_id, control key, or destination (schema.table).")
]
Source = Annotated[str, typer.Argument(metavar="SOURCE", help="db_config_key of a source database.")]

#: Those of the view ``control.table_readiness``.
State = Literal[
    "ready", "queued", "in progress", "not due", "no schedule", "bad schedule", "failed", "under review", "inactive",
    "missing database", "source paused", "outside window", "source limit", "backfill gate", "destination busy",
]  # fmt: skip

_LISTED: Final = ("config", "source", "table", "destination", "strategy", "schedule", "state", "reason")
_HISTORY: Final = (
    "attempt", "outcome", "queued", "seconds", "rows_read", "rows_written", "rows_deleted", "cursor", "run", "message",
)  # fmt: skip


def _client() -> LakebaseClient:
    from quayside.dataloader.control.client import LakebaseClient
    from quayside.foundation.logs import configure
    from quayside.foundation.settings import load_settings

    settings = load_settings()
    configure(settings.log_format)
    return LakebaseClient(settings, patience_seconds=5)


@app.command("list")
def list_(
    state: Annotated[State | None, typer.Option(help="Only rows in this state.")] = None,
    source: Annotated[str | None, typer.Option(help="Only tables of this source database.")] = None,
    as_json: Json = False,
) -> None:
    """List every table with its state and the reason; on standard error, what nobody sees to."""
    from quayside.dataloader.control import records
    from quayside.foundation import console

    with _client() as client:
        if source is not None:
            records.source(client, source)
        rows = [r for r in client.get_control_tables(state) if source in (None, r["db_config_key"])]
        for sentence in client.unattended():
            typer.echo(f"quayside: {sentence}", err=True)
    if as_json:
        console.show_json(rows)
        return
    console.show([_shown(row) for row in rows], _LISTED)


@app.command()
def add(
    source: Annotated[str | None, typer.Option(help="db_config_key of the source database.")] = None,
    table: Annotated[str | None, typer.Option(help="Table at the source.")] = None,
    schema: Annotated[str | None, typer.Option(help="Schema at the source.")] = None,
    catalog: Annotated[str | None, typer.Option(help="Catalog at the source.")] = None,
    query: Annotated[str | None, typer.Option(help="Read-only SQL instead of the whole table.")] = None,
    to: Annotated[
        str | None,
        typer.Option(help="Destination catalog.schema.table. Left out: bronze and the source's names."),
    ] = None,
    strategy: Annotated[str | None, typer.Option(help="full, incremental, append_only, rolling …")] = None,
    cron: Annotated[str | None, typer.Option(help="Five fields. Left out: it loads when asked to.")] = None,
    zone: Annotated[str | None, typer.Option(help="Time zone of the schedule.")] = None,
    key: Annotated[str | None, typer.Option(help="Primary key columns, separated by commas.")] = None,
    cursor: Annotated[str | None, typer.Option(help="Incremental column.")] = None,
    cursor_type: Annotated[str | None, typer.Option(help="timestamp or integer.")] = None,
    priority: Annotated[int | None, typer.Option(help="The higher one goes first.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Any other column as name=value; may be repeated.")
    ] = None,
    inactive: Annotated[bool, typer.Option("--inactive", help="Save it without loading it.")] = False,
    file: Annotated[
        Path | None, typer.Option(help="YAML with sources and tables, as `export` writes them.")
    ] = None,
) -> None:
    """Add a table, or change the one with the same source table and schedule. Adding it again changes nothing."""
    from quayside.foundation.errors import UsageError

    if file is not None:
        import_(file)
        return
    if source is None or table is None:
        raise UsageError("Give --source and --table, or --file.")
    values: dict[str, Any] = {
        "db_config_key": source,
        "source_catalog": catalog,
        "source_schema_name": schema,
        "source_table_name": table,
        "query": query,
        "load_strategy": strategy,
        "load_cron": cron,
        "load_timezone": zone,
        "primary_key_cols": key,
        "incremental_column": cursor,
        "incremental_type": cursor_type,
        "priority": priority,
    }
    if to is not None:
        *front, values["destination_table_name"] = to.split(".")
        if front:
            values["destination_schema_name"] = front.pop()
        if front:
            values["destination_catalog"] = ".".join(front)
    if inactive:
        values["is_active"] = False
    values = {name: value for name, value in values.items() if value is not None} | _pairs(set_ or [])
    with _client() as client:
        config_id, saved = client.save_table(values)
    typer.echo(f"Config {config_id} ({_named(values)}) {_was(saved)}.")


@app.command("set")
def set_columns(
    config: Config,
    pairs: Annotated[
        list[str], typer.Argument(metavar="NAME=VALUE…", help="An empty value means none (null).")
    ],
) -> None:
    """Change columns of a table, such as load_cron='0 6 * * *' or is_active=false."""
    with _client() as client:
        config_id, saved = client.save_table(_pairs(pairs), _find(client, config)["config_id"])
    typer.echo(f"Config {config_id} {_was(saved)}.")


@app.command()
def why(config: Config, as_json: Json = False) -> None:
    """Say why a table is, or is not, loading now."""
    from quayside.foundation import console

    with _client() as client:
        row = _find(client, config)
    if as_json:
        console.show_json(row)
        return
    typer.echo(_told(row))
    if row["last_status"] == "In Progress":
        done, total, phase = row["progress_rows"], row["progress_rows_total"], row["progress_phase"]
        if done is not None or phase:
            typer.echo(
                f"  {phase or 'loading'}: {done or 0:,} rows{f' of {total:,}' if total else ''} by {row['worker']}"
            )
    for name in ("last_dagster_run", "last_databricks_run"):
        if row[name]:
            typer.echo(f"  {name}: {row[name]}")


@app.command()
def run(
    config: Config, full: Annotated[bool, typer.Option("--full", help="One forced full load.")] = False
) -> None:
    """Make a table due now; master_sensor starts it at its next tick."""
    from quayside.foundation.errors import UsageError

    with _client() as client:
        row = _find(client, config)
        if row["last_status"] == "Failed":
            raise UsageError(
                f"Config {row['config_id']} has failed: free it with `quayside tables reset {config}`."
            )
        with client.changes() as con:
            con.execute(
                "UPDATE control.table_control SET next_load_date_time = clock_timestamp(), load_full = load_full OR %s "
                "WHERE config_id = %s",
                (full, row["config_id"]),
            )
        row = client.get_table_details(row["config_id"])
    typer.echo(_told(row))


@app.command()
def reset(
    config: Config,
    reason: Annotated[str, typer.Option(help="Kept as the row's message.")] = "Reset by a person",
) -> None:
    """Free a table whose load failed or that waits for review: due now, with a new budget of retries."""
    with _client() as client:
        config_id = _find(client, config)["config_id"]
        client.reset_for_retry(config_id, reason, forget_failures=True)
        row = client.get_table_details(config_id)
    typer.echo(_told(row))


@app.command()
def stop(
    config: Config,
    reason: Annotated[str, typer.Option(help="Kept as the row's message.")] = "stopped by a person",
) -> None:
    """Tell the load that is queued or running for a table to stop; nothing of it is committed."""
    with _client() as client:
        row = _find(client, config)
        told = client.request_stop(row["config_id"], reason)
    typer.echo(
        f"Config {row['config_id']} was told to stop; it does at its next heartbeat."
        if told
        else f"Config {row['config_id']} is not loading."
    )


@app.command()
def history(
    config: Config,
    limit: Annotated[int, typer.Option(min=1, help="How many attempts, the newest first.")] = 20,
    as_json: Json = False,
) -> None:
    """Show the attempts of a table with their rows, times and outcomes."""
    from quayside.dataloader.control import records
    from quayside.foundation import console

    with _client() as client:
        rows = records.history(client, _find(client, config)["config_id"], limit)
    if as_json:
        console.show_json(rows)
        return
    shown = [
        row
        | {
            "outcome": row["load_status"] or "open",
            "queued": row["load_queued_time"],
            "seconds": row["total_duration"],
            "cursor": row["cursor_after"],
            "run": row["dagster_run"],
            "message": row["log_message"],
        }
        for row in rows
    ]
    console.show(shown, _HISTORY)


@app.command()
def changes(
    config: Config,
    limit: Annotated[int, typer.Option(min=1, help="How many changes, the newest first.")] = 20,
    as_json: Json = False,
) -> None:
    """Show who changed what in a table's configuration."""
    from quayside.dataloader.control import records
    from quayside.foundation import console

    with _client() as client:
        rows = records.changes(client, _find(client, config)["config_id"], limit)
    console.show(rows, ("changed_at", "changed_by", "change_type", "change_source", "fields"), as_json)


@app.command()
def remove(config: Config) -> None:
    """Delete a table's configuration. Its history and what was loaded stay."""
    from quayside.dataloader.control import records

    with _client() as client:
        row = _find(client, config)
        records.remove(client, row["config_id"])
    typer.echo(f"Config {row['config_id']} ({_destination(row)}) is removed; its history and its table stay.")


@app.command()
def pause(
    source: Source, reason: Annotated[str, typer.Option(help="Shown to whoever asks why.")] = ""
) -> None:
    """Stop everything at a source: nothing is claimed, and what runs is told to stop."""
    _switch(source, True, reason)
    typer.echo(
        f"Source {source} is paused; what runs stops at its next heartbeat. Go on with `quayside tables resume`."
    )


@app.command()
def resume(source: Source) -> None:
    """Let a paused source go on; what was stopped is due again."""
    _switch(source, False, "")
    typer.echo(f"Source {source} goes on.")


def _switch(source: str, paused: bool, reason: str) -> None:
    from quayside.dataloader.control import records

    with _client() as client:
        old = records.source(client, source)
        client.save_source(
            {"db_config_key": source, "db_type": old["db_type"], "is_paused": paused, "paused_reason": reason}
        )


@sources_app.command("list")
def list_sources(as_json: Json = False) -> None:
    """List the source databases, what runs there and how they are protected."""
    from quayside.dataloader.control import records
    from quayside.foundation import console

    with _client() as client:
        rows = records.sources(client)
    columns = (
        "db_config_key",
        "db_type",
        "tables",
        "loading",
        "max_concurrent_loads",
        "load_windows",
        "is_paused",
    )
    console.show(rows, columns, as_json)


@sources_app.command("add")
def add_source(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Name of the source, such as sales_prod.")],
    db_type: Annotated[str, typer.Option("--type", help="postgresql, mysql, mssql, oracle, sqlite, csv …")],
    field: Annotated[
        list[str] | None,
        typer.Option(help="Connection field as name=NAME_OF_SECRET; may be repeated."),
    ] = None,
    scope: Annotated[
        str | None, typer.Option(help="Where the names of secrets are looked up: env, file …")
    ] = None,
    schema: Annotated[str | None, typer.Option(help="Destination schema of new tables.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other column as name=value, such as max_concurrent_loads=2."),
    ] = None,
) -> None:
    """Add a source database, or change it. It holds names of secrets, never secrets."""
    from quayside.dataloader.control import records
    from quayside.dataloader.sources.fields import field_problems
    from quayside.dataloader.sources.registry import source_module

    values: dict[str, Any] = {
        "db_config_key": key,
        "db_type": db_type,
        "db_kv_scope": scope,
        "default_target_schema": schema,
    }
    values = {name: value for name, value in values.items() if value is not None}
    if field:
        values["db_config_value"] = {name: str(value) for name, value in _split(field)}
    with _client() as client:
        saved = client.save_source(values | _pairs(set_ or []))
        fields = records.source(client, key)["db_config_value"]
    typer.echo(f"Source {key} {_was(saved)}.")
    known = source_module(db_type).FIELDS
    if wrong := field_problems(known, fields):
        names = ", ".join(field.name for field in known)
        typer.echo(
            f"quayside: Nothing can be loaded from source {key} yet: {'; '.join(wrong)}. Its fields are {names}.",
            err=True,
        )


@app.command()
def export(
    out: Annotated[Path | None, typer.Option(help="File to write. Left out: standard output.")] = None,
) -> None:
    """Write all sources and tables as YAML; what loads changed about themselves is left out."""
    import yaml

    from quayside.dataloader.control import records

    with _client() as client:
        text = yaml.safe_dump(records.export(client), sort_keys=False, allow_unicode=True)
    if out is None:
        typer.echo(text, nl=False)
    else:
        out.write_text(text, "utf-8")
        typer.echo(f"{out} is written.")


@app.command("import")
def import_(file: Annotated[Path, typer.Argument(help="YAML as `export` writes it.")]) -> None:
    """Save the sources and tables of a file: all of them, or with one that is wrong none."""
    import yaml

    from quayside.dataloader.control import records
    from quayside.foundation.errors import InputError, sentence

    try:
        content = yaml.safe_load(file.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is not YAML: {sentence(error)}.") from None
    with _client() as client:
        counts = records.restore(client, content)
    typer.echo(", ".join(f"{what} {count}" for what, count in counts.items()) + ".")


@app.command()
def maintain(
    keep: Annotated[
        str, typer.Option(help="Files taken out of a table, or left by dead writers, are removed after this.")
    ] = "7d",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed.")] = False,
    as_json: Json = False,
) -> None:
    """Merge small files of the Delta tables and remove files that nothing needs. The lake has its own `maintain`."""
    from dataclasses import asdict

    from quayside.cli.lake import duration
    from quayside.dataloader.destinations import delta_maintain
    from quayside.foundation import console
    from quayside.foundation.settings import load_settings

    done = delta_maintain.maintain(load_settings(), keep=duration(keep), dry_run=dry_run)
    if as_json:
        console.show_json(asdict(done))
        return
    for table, files in done.removed.items():
        merged = done.merged.get(table, 0)
        typer.echo(
            f"{table}: {merged} small files merged, {len(files)} {'would be ' if dry_run else ''}removed"
        )
    for table in done.skipped:
        typer.echo(f"{table}: left for the next time, others keep changing it")
    if not done.removed and not done.skipped:
        typer.echo("(none)")


def _find(client: LakebaseClient, config: str) -> dict[str, Any]:
    from quayside.dataloader.control import records

    return records.find(client, config)


def _split(pairs: list[str]) -> list[tuple[str, str]]:
    from quayside.foundation.errors import UsageError

    found = []
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"{pair!r} is not name=value.")
        found.append((name.strip(), value))
    return found


def _pairs(pairs: list[str]) -> dict[str, Any]:
    """Values as YAML reads them where a column is not text; an empty one is null."""
    import yaml

    from quayside.dataloader.control.configuration import NOT_TEXT

    return {
        name: None if value == "" else yaml.safe_load(value) if name in NOT_TEXT else value
        for name, value in _split(pairs)
    }


def _told(row: dict[str, Any]) -> str:
    """The readiness sentence; a message that is part of it may end in a full stop of its own."""
    return f"Config {row['config_id']} ({_destination(row)}) is {row['state']}: {row['reason'].rstrip('.')}."


def _was(saved: str) -> str:
    return {"added": "is added", "changed": "is changed", "unchanged": "is as it was"}[saved]


def _destination(row: dict[str, Any]) -> str:
    return ".".join(row[f"destination_{part}"] for part in ("catalog", "schema_name", "table_name"))


def _named(values: dict[str, Any]) -> str:
    parts = (values.get(name) for name in ("db_config_key", "source_schema_name", "source_table_name"))
    return ".".join(part for part in parts if part)


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    names = (row["source_catalog"], row["source_schema_name"], row["source_table_name"])
    return row | {
        "config": row["config_id"],
        "source": row["db_config_key"],
        "table": ".".join(name for name in names if name),
        "destination": _destination(row),
        "strategy": row["load_strategy"],
        "schedule": f"{row['load_cron']} {row['load_timezone']}" if row["load_cron"] else None,
    }
