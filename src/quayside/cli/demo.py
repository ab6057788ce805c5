"""``quayside demo``: the main line on data of its own, from nothing to explained scores."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from quayside.foundation.settings import Settings

app = typer.Typer(help="Generate a batch, run ingest, features and scores on Dagster, show the result.")

BATCH_ID = "DEMO_10K"


@app.command()
def demo(parties: Annotated[int, typer.Option(min=100)] = 10_000) -> None:
    """Generate a batch, run ingest, features and scores on Dagster, show the result."""
    from quayside.cli.kycc import DEFAULT_MOMENT, band_rows, write_with_progress
    from quayside.dataloader.dagster.demo import load_tables
    from quayside.foundation import console
    from quayside.foundation.dagster.instance import open_instance
    from quayside.foundation.logs import configure
    from quayside.foundation.progress import step
    from quayside.foundation.settings import project_root
    from quayside.kycc.dagster.demo import run_line
    from quayside.kycc.generate import generate
    from quayside.kycc.scorecard import render_bars
    from quayside.kycc.scoring import summarise
    from quayside.kycc.service import ScoringService

    started = perf_counter()
    service = ScoringService()
    configure(service.settings.log_format)
    batch_id = BATCH_ID if parties == 10_000 else f"DEMO_{parties}"
    path = project_root() / "data" / f"{batch_id}.json"
    times: list[dict[str, object]] = []
    with step("generate") as timed:
        write_with_progress(
            generate(batch_id, parties, generated_at=DEFAULT_MOMENT.replace(tzinfo=UTC)), path
        )
    times.append({"step": "generate", "seconds": round(timed.seconds, 2), "run": ""})

    with open_instance(service.settings) as instance:
        times.extend(
            {"step": ran.job, "seconds": round(ran.seconds, 2), "run": ran.run_id}
            for ran in run_line(instance, path, batch_id)
        )
        loaded = load_tables(service.settings, instance)

    with service.connection() as con:
        summary = summarise(con, batch_id, "v1")
        worst, best = con.execute(
            "SELECT arg_min(party_id, (total_score, party_id)), arg_max(party_id, (total_score, party_id)) "
            "FROM kycc.scores WHERE batch_id = ? AND scorecard_version = 'v1'",
            [batch_id],
        ).fetchall()[0]
    typer.echo()
    console.show(band_rows(summary))
    typer.echo(
        f"\n{summary.parties:,} parties, mean score {summary.mean:.1f}, from {summary.lowest} to {summary.highest}"
    )
    for name, party in (("worst", worst), ("best", best)):
        _, explanation = service.explain(party, batch_id)
        typer.echo(f"\nThe {name} party, {party}:\n{render_bars(explanation)}")
    typer.echo()
    console.show(times)
    typer.echo(f"All in {perf_counter() - started:.1f} s.")
    typer.echo(
        f"\n{loaded.tables} tables of a small shop were loaded by rows of configuration, in {loaded.runs} runs and "
        f"{loaded.seconds:.1f} s:\n"
        f"  {loaded.rows_read:,} rows read, {loaded.rows_written:,} written; run it again and only changes are read.\n"
        "  what loads         .venv/bin/quayside tables list\n"
        "  what was loaded    .venv/bin/quayside tables history shop.orders"
    )
    _bill(service.settings)
    typer.echo(
        "\nWhere to look next:\n"
        f"  the file           {_shown(path)}\n"
        f"  one party          .venv/bin/quayside kycc explain {best}\n"
        "  the card as SQL    .venv/bin/quayside kycc scorecard sql --dialect postgres\n"
        "  the tables         .venv/bin/quayside lake tables\n"
        f"  the runs           make up, then {service.settings.dagster_webserver_url}/runs\n"
        "  stop the database  make stop"
    )


def _bill(settings: Settings) -> None:
    """Who pays for all this: four lines of the books."""
    from quayside.foundation.postgres import connect, ensure_schema
    from quayside.foundation.progress import step
    from quayside.robosystems.demo import PLANS, bill_demo
    from quayside.robosystems.schema import SCHEMA

    ensure_schema(settings, SCHEMA)
    with step("bill two graphs"), connect(settings, autocommit=True) as con:
        done = bill_demo(settings, con)
    if done is None:
        typer.echo("\nThe books hold customers of yours and were left alone.")
        return
    mine = done.statements[done.payer]
    movements = " ".join(
        f"{'+' if change > 0 else '-'} {abs(change):,.2f} {kind}" for kind, change in mine.totals().items()
    )
    other = next(graph for graph in done.statements if graph != done.payer)
    typer.echo(
        f"\n{len(done.statements)} graph databases of a customer are metered and billed in credits:\n"
        f"  storage            {PLANS['standard']} GB on {done.day:%Y-%m-%d}, the plan includes 10: "
        f"{done.storage[other].normalize():f} credits\n"
        f"  use                {done.parties:,} parties scored: {done.charged.normalize():f} credits\n"
        f"  a statement        {mine.opening:,.2f} {movements} = {mine.closing:,.2f} credits\n"
        f"  all of it          .venv/bin/quayside credits statement {done.payer} --since {done.day:%Y-%m-%d}"
    )


def _shown(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
