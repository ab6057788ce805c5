"""``quayside adapters``: which there are, which custom ones do not load, and a new one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Adapters of RoboSystems: list, new.", no_args_is_help=True, add_completion=False)

OURS = ("plaid", "quickbooks", "sec")


@app.command(name="list")
def list_adapters(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Every adapter, and what is wrong with custom ones that do not load (then it exits with 1)."""
    from quayside.foundation import console
    from quayside.robosystems import adapters
    from quayside.robosystems.adapters.discovery import discover
    from quayside.robosystems.dagster import assets

    rows = [{"adapter": name, "part": "client and processor", "state": "shipped"} for name in OURS]
    broken = False
    for package, part in ((adapters, "client and processor"), (assets, "assets")):
        found = discover(package)
        rows += [{"adapter": name, "part": part, "state": "loads"} for name in found.modules]
        rows += [
            {"adapter": name, "part": part, "state": f"does not load: {why}"}
            for name, why in found.problems.items()
        ]
        broken = broken or bool(found.problems)
    if as_json:
        console.show_json(rows)
    else:
        console.show(rows)
    if broken:
        raise typer.Exit(1)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Small letters, digits and _, as in open_banking.")],
    root: Annotated[Path | None, typer.Option(help="The checkout. Left out: the one this runs from.")] = None,
) -> None:
    """Make a custom adapter: client, processor, asset and a passing test, in files of its own."""
    from quayside.foundation.settings import project_root
    from quayside.robosystems.adapters.scaffold import scaffold

    place = root or project_root()
    made = scaffold(name, place)
    for path in made:
        typer.echo(f"made {path.relative_to(place)}")
    typer.echo(f"Try it: python -m pytest -q {made[-1].relative_to(place)}")
