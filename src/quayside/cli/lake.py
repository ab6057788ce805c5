"""``quayside lake``: look into the lake, hand its tables on, keep it in order."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from quayside.foundation.lake import Lake

app = typer.Typer(help="The lake: tables, snapshots, query, export, publish, maintain.", no_args_is_help=True)

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Table = Annotated[str, typer.Argument(help="schema.table")]
AtSnapshot = Annotated[int | None, typer.Option("--snapshot", help="Snapshot id. Left out: the current one.")]


def duration(text: str) -> timedelta:
    """``7d``, ``12h``, ``30m``, ``45s``, ``2w``; a number alone is days.

    Raises:
        UsageError: it is none of these.
    """
    from quayside.foundation.errors import UsageError

    match = re.fullmatch(r"(\d{1,6})\s*([smhdw]?)", text.strip())
    if match is None:
        raise UsageError(f"{text!r} is not a duration: give e.g. 7d, 12h or 30m.")
    return timedelta(**{_UNITS[match[2] or "d"]: int(match[1])})


def _lake() -> Lake:
    from quayside.foundation.lake import Lake
    from quayside.foundation.settings import load_settings

    return Lake(load_settings())


@app.command()
def tables(as_json: Json = False) -> None:
    """List the tables with their rows, files and last change."""
    from quayside.foundation import console
    from quayside.foundation.lake import catalog

    with closing(_lake().connect(read_only=True)) as con:
        rows = [asdict(state) for state in catalog.tables(con)]
    console.show(rows, as_json=as_json)


@app.command()
def snapshots(
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = 20,
    as_json: Json = False,
) -> None:
    """List the snapshots that can still be read, the newest first."""
    from quayside.foundation import console
    from quayside.foundation.lake import catalog

    with closing(_lake().connect(read_only=True)) as con:
        rows = [asdict(snapshot) for snapshot in catalog.snapshots(con, limit)]
    console.show(rows, as_json=as_json)


@app.command()
def query(
    sql: Annotated[str, typer.Argument(help="One SELECT; nothing else is run.")],
    limit: Annotated[int, typer.Option(min=0, help="Rows shown in the table; 0 shows all.")] = 100,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, all rows.")] = False,
) -> None:
    """Run one SELECT on the lake, read-only for certain. --json and --csv print all rows."""
    from itertools import islice

    from quayside.foundation import console
    from quayside.foundation.errors import UsageError
    from quayside.foundation.lake.query import run_query

    if as_json and as_csv:
        raise UsageError("--json and --csv exclude each other: give one.")
    with run_query(_lake(), sql) as result:
        if as_csv:
            _print_csv(result.columns, result.rows)
            return
        names = _unique(result.columns)
        rows: list[dict[str, Any]] = [
            dict(zip(names, row, strict=True))
            for row in islice(result.rows, None if as_json or not limit else limit)
        ]
        console.show(rows, names, as_json=as_json)
        if not as_json and limit and next(result.rows, None) is not None:
            typer.echo(f"The first {limit} rows; --limit 0 shows all.", err=True)


@app.command()
def export(
    table: Table,
    format_: Annotated[str, typer.Option("--format", help="parquet (one file) or delta.")] = "parquet",
    to: Annotated[
        str | None,
        typer.Option(help="File, folder or s3://bucket/name. Left out: exports/ in QUAYSIDE_HOME."),
    ] = None,
    snapshot: AtSnapshot = None,
    as_json: Json = False,
) -> None:
    """Write one table at one snapshot as Parquet or Delta, replacing the last export as a whole."""
    from quayside.foundation import console
    from quayside.foundation.errors import UsageError
    from quayside.foundation.lake.export import export_table

    if format_ not in ("parquet", "delta"):
        raise UsageError(f"{format_!r} is not a format: give parquet or delta.")
    done = export_table(_lake(), table, format=format_, target=to, snapshot_id=snapshot)
    if as_json:
        console.show_json(asdict(done))
    else:
        typer.echo(f"{done.rows} rows of {done.table} at snapshot {done.snapshot_id} are in {done.target}.")


@app.command()
def publish(
    table: Table,
    to: Annotated[
        str | None, typer.Option(help="schema.table in PostgreSQL. Left out: the same name.")
    ] = None,
    snapshot: AtSnapshot = None,
    as_json: Json = False,
) -> None:
    """Copy one table into PostgreSQL, replacing the last publication in one transaction."""
    from quayside.foundation import console
    from quayside.foundation.lake.publish import publish_table

    done = publish_table(_lake(), table, target=to, snapshot_id=snapshot)
    if as_json:
        console.show_json(asdict(done))
    else:
        typer.echo(
            f"{done.rows} rows of {done.table} at snapshot {done.snapshot_id} are in PostgreSQL as {done.target}."
        )


@app.command()
def maintain(
    keep: Annotated[str, typer.Option(help="How long snapshots stay readable, e.g. 7d or 12h.")] = "7d",
    grace: Annotated[str, typer.Option(help="Files younger than this are never removed.")] = "1d",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be expired and removed.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Merge small files, expire old snapshots, remove files nothing needs. Safe beside readers and writers."""
    from quayside.foundation import console
    from quayside.foundation.lake.maintain import maintain as run

    done = run(_lake(), keep=duration(keep), grace=duration(grace), dry_run=dry_run)
    if as_json:
        console.show_json(asdict(done))
        return
    would = "would be " if dry_run else ""
    for table, files in done.merged.items():
        typer.echo(f"{table}: {files} small files merged")
    for table, files in done.rewritten.items():
        typer.echo(f"{table}: {files} files rewritten without their deleted rows")
    for table in done.skipped:
        typer.echo(f"{table}: left for the next time, others keep changing it")
    typer.echo(f"{done.expired_snapshots} snapshots {would}expired")
    typer.echo(f"{len(done.removed_files)} files of expired snapshots {would}removed")
    typer.echo(f"{len(done.removed_orphans)} orphaned files {would}removed")
    if done.held_back_since is not None:
        typer.echo(
            f"Nothing younger than {done.cutoff:%Y-%m-%d %H:%M:%S} was removed: a transaction is open in the "
            f"database since {done.held_back_since:%Y-%m-%d %H:%M:%S}."
        )


def _unique(names: list[str]) -> list[str]:
    """Column names with a number behind those that come again, so that a row can be a mapping."""
    seen: dict[str, int] = {}
    unique: list[str] = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        unique.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return unique


def _print_csv(columns: list[str], rows: Any) -> None:
    import csv
    import sys

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
