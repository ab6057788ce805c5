"""``quayside db``: PostgreSQL and Valkey, and the schemas in PostgreSQL."""

from __future__ import annotations

import importlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from quayside.foundation.postgres import SchemaSpec
    from quayside.foundation.settings import Settings

app = typer.Typer(help="PostgreSQL and Valkey: start, stop, status, migrate.", no_args_is_help=True)

#: Every schema of the platform. Named, not imported, so that each system's code is loaded only here.
SCHEMAS: Final = (
    "quayside.foundation.migrations:SCHEMA",
    "quayside.kycc.schema:SCHEMA",
    "quayside.dataloader.schema:SCHEMA",
    "quayside.robosystems.schema:SCHEMA",
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def registered_schemas() -> list[SchemaSpec]:
    """The specs named in `SCHEMAS`."""
    names = (name.partition(":") for name in SCHEMAS)
    return [getattr(importlib.import_module(module), attribute) for module, _, attribute in names]


def _settings() -> Settings:
    from quayside.foundation.settings import load_settings

    return load_settings()


@app.command()
def start() -> None:
    """Start the embedded PostgreSQL and Valkey; both also start by themselves when something needs them."""
    from quayside.foundation.postgres import EmbeddedPostgres
    from quayside.foundation.valkey import EmbeddedValkey

    settings = _settings()
    if settings.database_url is None:
        server = EmbeddedPostgres(settings.home)
        _report("PostgreSQL", "was started" if server.start() else "runs already", str(server.socket_folder))
    else:
        _report("PostgreSQL", "is yours (QUAYSIDE_DATABASE_URL): nothing to start")
    if settings.redis_host is None:
        valkey = EmbeddedValkey(settings.home)
        _report("Valkey", "was started" if valkey.start() else "runs already", f"127.0.0.1:{valkey.port}")
    else:
        _report("Valkey", "is yours (REDIS_HOST): nothing to start")


@app.command()
def stop() -> None:
    """Stop the embedded PostgreSQL and Valkey. Sessions are cut, committed data is kept."""
    from quayside.foundation.postgres import EmbeddedPostgres
    from quayside.foundation.valkey import EmbeddedValkey

    home = _settings().home
    _report("PostgreSQL", "is stopped" if EmbeddedPostgres(home).stop() else "was not running")
    _report("Valkey", "is stopped" if EmbeddedValkey(home).stop() else "was not running")


@app.command()
def status(as_json: Json = False) -> None:
    """What runs, where its data is, and how the schemas compare with this version. Starts nothing."""
    from quayside.foundation import console

    settings = _settings()
    services = {"PostgreSQL": _postgres(settings), "Valkey": _valkey(settings)}
    schemas = _schemas(settings) if services["PostgreSQL"]["running"] else []
    if as_json:
        console.show_json(
            {"postgres": services["PostgreSQL"], "valkey": services["Valkey"], "schemas": schemas}
        )
        return
    rows = [
        {"service": service, "property": name.removesuffix("_bytes"), "value": _shown(name, value)}
        for service, found in services.items()
        for name, value in found.items()
        if value is not None
    ]
    console.show(rows)
    if schemas:
        typer.echo()
        console.show(schemas)


@app.command()
def migrate() -> None:
    """Bring every schema to the revision this version needs. On your own server nothing else does."""
    from quayside.foundation.postgres import migrate as migrate_schema

    settings = _settings()
    for spec in registered_schemas():
        before = migrate_schema(settings, spec)
        if before.state == "current":
            _report(f"Schema {spec.name}", f"is at revision {spec.head} already")
        else:
            _report(
                f"Schema {spec.name}", f"went from {before.revision or 'nothing'} to revision {spec.head}"
            )


def _report(subject: str, what: str, where: str | None = None) -> None:
    typer.echo(f"{subject} {what}{f' ({where})' if where else ''}.")


def _postgres(settings: Settings) -> dict[str, Any]:
    from quayside.foundation.errors import QuaysideError
    from quayside.foundation.postgres import EmbeddedPostgres, connect

    if settings.database_url is None:
        found: dict[str, Any] = {"kind": "embedded"} | asdict(EmbeddedPostgres(settings.home).status())
        if not found["running"]:
            return found
    else:
        found = {"kind": "yours"}
    try:
        with connect(settings, autocommit=True) as connection:
            row = connection.execute(
                "SELECT current_setting('server_version'), pg_database_size(current_database())"
            ).fetchone()
    except QuaysideError as error:
        return found | {"running": False, "problem": str(error)}
    assert row is not None
    return found | {"running": True, "version": row[0], "database_bytes": row[1]}


def _valkey(settings: Settings) -> dict[str, Any]:
    from quayside.foundation.errors import QuaysideError
    from quayside.foundation.valkey import EmbeddedValkey, client

    if settings.redis_host is None:
        return {"kind": "embedded"} | asdict(EmbeddedValkey(settings.home).status())
    found: dict[str, Any] = {"kind": "yours", "address": f"{settings.redis_host}:{settings.redis_port}"}
    try:
        info: Any = client(settings).info("server")
    except QuaysideError as error:
        return found | {"running": False, "problem": str(error)}
    return found | {"running": True, "version": info.get("valkey_version") or info.get("redis_version")}


def _schemas(settings: Settings) -> list[dict[str, Any]]:
    from quayside.foundation.postgres import schema_status

    return [asdict(schema_status(settings, spec)) for spec in registered_schemas()]


def _shown(name: str, value: object) -> object:
    return f"{value / 1e6:.1f} MB" if name.endswith("_bytes") and isinstance(value, int) else value
