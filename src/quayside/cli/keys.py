"""``quayside credits keys``: API keys of customers."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated

import typer

app = typer.Typer(help="API keys: new, list, revoke, cleanup.", no_args_is_help=True, add_completion=False)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def new(
    customer_id: Annotated[str, typer.Argument(help="Whose key it is.")],
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
    expires: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%dT%H:%M", "%Y-%m-%d"], help="UTC; left out: in a year."),
    ] = None,
) -> None:
    """Make a key. It is printed once, alone on standard output, and can never be shown again."""
    from datetime import UTC

    from quayside.cli.provision import open_database
    from quayside.robosystems.keys import ApiKeys, hashing_secret

    with open_database() as (settings, con):
        until = None if expires is None else expires.replace(tzinfo=UTC)
        made = ApiKeys(con, hashing_secret(settings)).create(customer_id, name=name, expires_at=until)
    typer.echo(f"Key {made.key.key_id}, good until {made.key.expires_at:%Y-%m-%d %H:%M} UTC:", err=True)
    typer.echo(made.secret.get_secret_value())


@app.command(name="list")
def list_keys(
    customer_id: Annotated[str | None, typer.Argument(help="Left out: of all customers.")] = None,
    as_json: Json = False,
) -> None:
    """Keys with expiry and last use; nothing secret is shown."""
    from pydantic import SecretStr

    from quayside.cli.provision import open_database
    from quayside.foundation import console
    from quayside.robosystems.keys import ApiKeys

    with open_database() as (_, con):
        rows = [asdict(key) for key in ApiKeys(con, SecretStr("")).list(customer_id)]
    (console.show_json if as_json else console.show)(rows)


@app.command()
def revoke(key_id: Annotated[str, typer.Argument(help="Id of the key, as `list` shows it.")]) -> None:
    """Deactivate a key at once, wherever it is cached."""
    from pydantic import SecretStr

    from quayside.cli.provision import open_database
    from quayside.robosystems.keys import ApiKeys

    with open_database() as (_, con):
        key = ApiKeys(con, SecretStr("")).revoke(key_id)
    typer.echo(f"Key {key.key_id} is inactive since {key.deactivated_at:%Y-%m-%d %H:%M:%S} UTC.")


@app.command()
def cleanup(
    grace_days: Annotated[
        int, typer.Option(min=0, max=36_500, help="How long an inactive key is kept.")
    ] = 30,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
) -> None:
    """Deactivate expired keys, delete those that have long been inactive."""
    from datetime import timedelta

    from quayside.cli.provision import open_database
    from quayside.robosystems.keys import cleanup as clean

    with open_database() as (_, con):
        done = clean(con, grace=timedelta(days=grace_days), dry_run=dry_run)
    would = "would be " if dry_run else ""
    typer.echo(f"{len(done.deactivated)} keys {would}deactivated, {len(done.deleted)} {would}deleted.")
