"""``quayside kycc watch | report | notices``: has the population moved, the page of a batch, letters to those refused."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quayside.cli.kycc_options import Json, open_service

app = typer.Typer(add_completion=False)

BatchId = Annotated[str | None, typer.Option("--batch-id", help="Left out: the last batch that has scores.")]
Reference = Annotated[
    str | None, typer.Option(help="Batch to compare with. Left out: the one scored before it.")
]
Card = Annotated[str, typer.Option("--scorecard", help="Version whose scores are meant.")]


@app.command()
def watch(
    batch_id: BatchId = None,
    reference: Reference = None,
    scorecard: Card = "active",
    as_json: Json = False,
) -> None:
    """Compare a scored batch with the one before it: score, features, points, bands, coverage."""
    from quayside.foundation import console
    from quayside.kycc.monitoring import watch as compare

    service = open_service()
    with service.connection() as con:
        batch = service.resolve("scores", batch_id, None, con)
        found = compare(con, service.versions.card(scorecard), batch.batch_id, reference)
    if as_json:
        console.show_json(
            {
                name: {"passed": check.passed, "problems": check.problems, "figures": check.figures}
                for name, check in found.items()
            }
        )
        return
    for name, check in found.items():
        against = check.figures["reference_batch"]
        typer.echo(f"{name}: {'holds' if check.passed else 'PROBLEM'} ({batch.batch_id} against {against})")
        for problem in check.problems:
            typer.echo(f"  {problem}")


@app.command()
def report(
    out: Annotated[Path, typer.Option(help="The HTML file to write.")],
    batch_id: BatchId = None,
    reference: Reference = None,
    scorecard: Card = "active",
) -> None:
    """Write the page of a scored batch: one self-contained HTML file."""
    from datetime import UTC, datetime

    from quayside.kycc.report import scoring_page, scoring_report
    from quayside.kycc.report.scoring import verdict

    service = open_service()
    with service.connection() as con:
        batch = service.resolve("scores", batch_id, None, con)
        card = service.versions.card(scorecard)
        content = scoring_report(con, card, batch.batch_id, datetime.now(UTC), reference)
    out.write_text(scoring_page(content), "utf-8")
    typer.echo(f"{out}: {verdict(content)}")


@app.command()
def notices(
    batch_id: BatchId = None,
    scorecard: Card = "active",
    texts: Annotated[
        Path | None, typer.Option(help="YAML file with the words. Left out: the shipped English ones.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a notice with the principal reasons for each party that was refused."""
    from dataclasses import asdict

    from quayside.foundation import console
    from quayside.kycc.adverse_action import load_texts
    from quayside.kycc.adverse_action import notices as write
    from quayside.kycc.scoring import read_features

    words = load_texts(texts)
    service = open_service()
    with service.connection() as con:
        card = service.versions.card(scorecard)
        batch = service.resolve("scores", batch_id, None, con)
        table = read_features(con, batch.batch_id, batch.as_of, card)
    found = write(card, table, batch.as_of, words)
    if as_json:
        console.show_json([asdict(notice) for notice in found])
        return
    for notice in found:
        typer.echo(f"{notice.party_id}\n{notice.text}\n")
