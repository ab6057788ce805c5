"""``quayside doctor``: every setting with its origin, and what answers. Starts nothing and changes nothing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import click

if TYPE_CHECKING:
    from quayside.foundation.settings import Settings

MIN_FREE_GB: Final = 2.0
PYTHON: Final = ((3, 11), (3, 13))
#: Distribution of each DuckDB extension the lake loads.
EXTENSIONS: Final = ("ducklake", "postgres-scanner", "httpfs")

State = Literal["ok", "later", "failed"]


@dataclass(frozen=True)
class Check:
    """What one check found. ``later``: nothing is wrong, but it comes into being only on first use."""

    check: str
    state: State
    detail: str


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def app(as_json: bool) -> None:
    """Print every setting, where it comes from, and what answers; secrets are masked.

    Exit code 1 when something that is needed has failed. The embedded servers are not started by asking.
    """
    from quayside.foundation import console
    from quayside.foundation.settings import load_settings

    settings = load_settings()
    rows = setting_rows(settings)
    checks = run_checks(settings)
    if as_json:
        console.show_json({"settings": rows, "checks": [asdict(check) for check in checks]})
    else:
        console.show(rows)
        click.echo()
        console.show([asdict(check) for check in checks])
    sys.exit(1 if any(check.state == "failed" for check in checks) else 0)


def setting_rows(settings: Settings) -> list[dict[str, Any]]:
    """Variable, value and origin of every setting, in the order of the table. No secret is among the values."""
    from pydantic import SecretStr

    from quayside.foundation.secrets import MASK, redact, remember_all

    remember_all(settings)
    # What a setting that was not given comes to.
    otherwise = {
        "database_url": "embedded",
        "redis_host": "embedded",
        "lake_url": settings.lake_data_path,
        "dagster_home": settings.dagster_home_path,
    }
    rows: list[dict[str, Any]] = []
    for field, variable in settings.variables().items():
        value = getattr(settings, field)
        if value is None:
            value = otherwise.get(field)
        if field == "database_url" and isinstance(value, SecretStr):
            value = _without_password(value.get_secret_value())  # which server it is, is no secret
        elif isinstance(value, SecretStr):
            value = MASK
        elif value is not None and not isinstance(value, int):
            value = redact(str(value))
        rows.append({"variable": variable, "value": value, "origin": settings.origin(field)})
    return rows


def _without_password(url: str) -> str:
    from urllib.parse import urlsplit

    from quayside.foundation.secrets import MASK, redact

    try:
        parts = urlsplit(url)
        user = (
            f"{parts.username}:{MASK}@" if parts.password else f"{parts.username}@" if parts.username else ""
        )
        host = parts.netloc.rpartition("@")[2]
    except ValueError:  # not even a URL: then nothing of it can be told apart from a password
        return MASK
    query = redact(f"?{parts.query}") if parts.query else ""
    return f"{parts.scheme}://{user}{host}{parts.path}{query}"


def run_checks(settings: Settings) -> list[Check]:
    """Every check, in the order in which one needs the other."""
    checks = [
        _check("python", _python),
        _check("home", lambda: _home(settings)),
        _check("disk", lambda: _disk(settings)),
    ]
    postgres = _check("postgresql", lambda: _postgres(settings))
    checks += [postgres]
    for name, work in (("schemas", _schemas), ("lake", _lake), ("dagster storage", _dagster)):
        own_server = name == "dagster storage" and settings.dagster_postgres_host is not None
        if postgres.state == "ok" or own_server:
            checks.append(_check(name, lambda work=work: work(settings)))
        elif postgres.state == "later":
            checks.append(Check(name, "later", "made in PostgreSQL on first use"))
        else:
            checks.append(Check(name, "failed", "needs PostgreSQL, which does not answer"))
    return [*checks, _check("duckdb", _duckdb), _check("valkey", lambda: _valkey(settings))]


def _check(name: str, work: Callable[[], tuple[State, str]]) -> Check:
    from quayside.foundation.errors import QuaysideError
    from quayside.foundation.secrets import redact

    try:
        state, detail = work()
    except QuaysideError as error:
        state, detail = "failed", str(error)
    return Check(name, state, redact(detail))


def _python() -> tuple[State, str]:
    lowest, highest = (".".join(map(str, version)) for version in PYTHON)
    fits = PYTHON[0] <= sys.version_info[:2] <= PYTHON[1]
    found = ".".join(map(str, sys.version_info[:3]))
    return ("ok", found) if fits else ("failed", f"{found}; Quayside runs on {lowest} to {highest}")


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _home(settings: Settings) -> tuple[State, str]:
    folder = _existing(settings.home)
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        return "failed", f"{folder} is not a folder this user can write to; set QUAYSIDE_HOME"
    return (
        ("ok", str(settings.home))
        if folder == settings.home
        else ("later", f"{settings.home} is made on first use")
    )


def _disk(settings: Settings) -> tuple[State, str]:
    free_gb = shutil.disk_usage(_existing(settings.home)).free / 1e9
    return (
        "ok" if free_gb >= MIN_FREE_GB else "failed",
        f"{free_gb:.1f} GB free; at least {MIN_FREE_GB:g} are needed",
    )


def _postgres(settings: Settings) -> tuple[State, str]:
    from quayside.foundation.postgres import EmbeddedPostgres, connect, is_embedded

    if is_embedded(settings) and not EmbeddedPostgres(settings.home).status().running:
        return "later", "embedded, not running; starts by itself on first use"
    with connect(settings, autocommit=True) as connection:
        version = connection.execute("SHOW server_version").fetchone()
    kind = "embedded" if is_embedded(settings) else "yours (QUAYSIDE_DATABASE_URL)"
    return "ok", f"{kind}, version {version[0] if version else 'unknown'}"


def _schemas(settings: Settings) -> tuple[State, str]:
    from quayside.cli.db import registered_schemas
    from quayside.foundation.postgres import is_embedded, schema_status

    found = [schema_status(settings, spec) for spec in registered_schemas()]
    detail = ", ".join(f"{status.name} {status.revision or 'missing'} ({status.state})" for status in found)
    if any(status.state == "newer" for status in found):
        return "failed", f"{detail}; this Quayside is older than the database, update it"
    if all(status.state == "current" for status in found):
        return "ok", detail
    if is_embedded(settings):
        return "later", f"{detail}; brought up to date on first use"
    return "failed", f"{detail}; run `quayside db migrate`"


def _lake(settings: Settings) -> tuple[State, str]:
    from quayside.foundation.postgres import connect

    path = settings.lake_data_path
    if not path.startswith("s3://") and not os.access(_existing(Path(path)), os.W_OK | os.X_OK):
        return "failed", f"this user cannot write to {path}; set QUAYSIDE_LAKE_URL"
    with connect(settings, autocommit=True) as connection:
        catalog = connection.execute("SELECT to_regclass('lake.ducklake_metadata')").fetchone()
    if catalog is None or catalog[0] is None:
        return "later", f"{path}; its catalog is made on first use"

    import duckdb

    from quayside.foundation.lake import Lake

    try:
        with Lake(settings).connect(read_only=True) as con:
            row = con.execute("SELECT count(*) FROM duckdb_tables() WHERE database_name = 'lake'").fetchone()
    except duckdb.Error as error:
        return "failed", f"the catalog is there but does not attach: {str(error).splitlines()[0]}"
    return "ok", f"{path}, {row[0] if row else 0} tables"


def _dagster(settings: Settings) -> tuple[State, str]:
    import sqlalchemy as sa

    from quayside.foundation.dagster.storage import has_tables, pooled_engine, storage_url

    url = storage_url(settings)
    where = sa.make_url(url).set(query={}).render_as_string(hide_password=True)
    if not has_tables(url):
        return "later", f"{where}; its tables are made on first use"
    with pooled_engine(url).connect() as connection:
        runs = connection.execute(sa.text("SELECT count(*) FROM runs")).scalar_one()
    return "ok", f"{where}, {runs} runs"


def _duckdb() -> tuple[State, str]:
    version = importlib.metadata.version("duckdb")
    wrong = []
    for name in EXTENSIONS:
        try:
            found = importlib.metadata.version(f"duckdb-extension-{name}")
        except importlib.metadata.PackageNotFoundError:
            found = "none"
        if found != version:
            wrong.append(f"{name} {found}")
    if wrong:
        return (
            "failed",
            f"{version}, but extensions for another version: {', '.join(wrong)}; install requirements.lock",
        )
    return "ok", f"{version} with {', '.join(EXTENSIONS)}"


def _valkey(settings: Settings) -> tuple[State, str]:
    from quayside.foundation.valkey import EmbeddedValkey, client

    if settings.redis_host is None:
        status = EmbeddedValkey(settings.home).status()
        if not status.running:
            return "later", "embedded, not running; starts by itself on first use"
        return "ok", f"embedded, version {status.version}"
    info: Any = client(settings).info("server")
    version = info.get("valkey_version") or info.get("redis_version")
    return "ok", f"yours ({settings.redis_host}:{settings.redis_port}), version {version}"
