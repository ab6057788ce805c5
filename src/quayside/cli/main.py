"""Entry point. Sub-commands are imported only when called, so that ``quayside --help`` stays instant.

Every `QuaysideError`, and every refusal of arguments, ends as one sentence on standard error and its exit code; a stack
trace is never shown unless ``QUAYSIDE_DEBUG=1``.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

#: name → (module:attribute of a typer application, one line of help)
COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "up": ("quayside.cli.up:app", "Start webserver and daemon with every code location (port 3000)."),
    "demo": ("quayside.cli.demo:app", "Generate a batch, run ingest, features and scores on Dagster."),
    "doctor": ("quayside.cli.doctor:app", "Print every setting, where it comes from, and what answers."),
    "db": ("quayside.cli.db:app", "PostgreSQL and Valkey: start, stop, status, migrate."),
    "lake": ("quayside.cli.lake:app", "The lake: tables, snapshots, query, export, publish, maintain."),
    "tables": ("quayside.cli.tables:app", "Tables that load by configuration: list, add, why, run, reset."),
    "kycc": ("quayside.cli.kycc:app", "Score trade counterparties: generate, ingest, score, explain."),
    "credits": ("quayside.cli.credits:app", "Credits of graphs: balance, statement, grant, bill, health."),
    "adapters": ("quayside.cli.adapters:app", "Adapters of outside services: list, new."),
}


class Overview(click.Group):
    """The top level: names and one line of each command, none of which it has to import."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=Overview, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="quayside", prog_name="quayside")
def overview() -> None:
    """Quayside: a data platform for lending and trade finance, on Dagster."""


def run(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    from quayside.foundation.errors import QuaysideError
    from quayside.foundation.no_pandas import without_pandas

    if arguments is None:  # a process of our own
        without_pandas()
    try:
        sys.exit(_run(list(sys.argv[1:] if arguments is None else arguments)))
    except QuaysideError as error:
        if os.environ.get("QUAYSIDE_DEBUG") == "1":
            raise
        click.echo(f"quayside: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _run(arguments: list[str]) -> int:
    """Run a command; its exit code. What refuses arguments is said here, for all commands alike."""
    try:
        if not arguments or arguments[0] not in COMMANDS:
            return _code(overview.main(args=arguments, prog_name="quayside", standalone_mode=False))
        name, *rest = arguments
        module, _, attribute = COMMANDS[name][0].partition(":")
        app = getattr(importlib.import_module(module), attribute)
        app.pretty_exceptions_enable = False  # they print the values of variables
        return _code(app(args=rest, prog_name=f"quayside {name}", standalone_mode=False))
    except (click.Abort, KeyboardInterrupt):
        return 130  # as a shell says of Ctrl-C
    except Exception as error:
        # Typer has exceptions of its own that are the same as click's; what both can do is tell their message.
        if not hasattr(error, "format_message"):
            raise
        return _refused(error, arguments)


def _code(result: object) -> int:
    """What a command ended with, where it said so."""
    return result if isinstance(result, int) else 0


def _refused(error: Any, arguments: list[str]) -> int:
    """Say in one sentence what is wrong with the arguments, and what explains them."""
    known = " ".join(["quayside", *(name for name in arguments[:1] if name in COMMANDS)])
    command = error.ctx.command_path if getattr(error, "ctx", None) else known
    if type(error).__name__ == "NoArgsIsHelpError":  # no refusal: it has shown the help, or brings it
        click.echo(error.message, err=True, nl=bool(error.message))
    else:
        wrong = " ".join(error.format_message().split()).rstrip(".").replace(": Value error, ", ": ")
        click.echo(f"quayside: {wrong}; see `{command} --help`.", err=True)
    return error.exit_code
