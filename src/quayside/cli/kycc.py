"""``quayside kycc``: the line from a file to explained scores, without Dagster."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from quayside.cli import kycc_learn, kycc_watch
from quayside.cli.kycc_options import AsOf, BatchId, Json, open_service, utc

app = typer.Typer(
    help="Score trade counterparties: generate, ingest, features, score, explain; learn better scorecards.",
    no_args_is_help=True,
    add_completion=False,
)
scorecard_app = typer.Typer(help="The scorecard as data and as SQL.", no_args_is_help=True)
app.add_typer(scorecard_app, name="scorecard")
app.add_typer(kycc_learn.app)
app.add_typer(kycc_watch.app)

#: Moment of generated batches unless one is given: fixed, so that the same command gives the same bytes any day.
DEFAULT_MOMENT = datetime(2026, 6, 30)  # noqa: DTZ001 - typer parses moments without a zone; they are UTC


@app.command()
def generate(
    out: Annotated[Path, typer.Option(help="A .json file, or a folder for Parquet.")] = Path(
        "data/synthetic_profiles.json"
    ),
    parties: Annotated[int, typer.Option(min=1)] = 1000,
    batch_id: Annotated[str, typer.Option()] = "BATCH_001",
    mix: Annotated[str, typer.Option(help="balanced, risky or safe.")] = "balanced",
    seed: Annotated[int, typer.Option()] = 42,
    generated_at: Annotated[
        datetime, typer.Option(help="The batch's moment, UTC.", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"])
    ] = DEFAULT_MOMENT,
    currencies: Annotated[str, typer.Option(help="Comma separated, the base currency first.")] = "USD",
) -> None:
    """Write a synthetic batch, and its outcomes beside it; the same arguments give the same bytes."""
    from quayside.kycc.generate import generate as draw
    from quayside.kycc.generate import write_fx_rates, write_outcomes

    moment, several = generated_at.replace(tzinfo=UTC), currencies.split(",")
    batch = draw(batch_id, parties, generated_at=moment, mix=mix, seed=seed, currencies=several)
    write_with_progress(batch, out)
    beside = out.parent / f"{batch_id}_outcomes.json" if out.suffix == ".json" else out / "outcomes.json"
    typer.echo(f"{write_outcomes(batch, beside)}: what became of the parties afterwards")
    if len(several) > 1:
        rates = beside.with_name(beside.name.replace("outcomes.json", "fx_rates.csv"))
        typer.echo(f"{write_fx_rates(batch, rates)}: rates; load them with quayside kycc rates")
    typer.echo(f"{out}: batch {batch_id}, {parties:,} parties as of {moment:%Y-%m-%d}")


def write_with_progress(batch: Any, out: Path) -> None:
    """Write a generated batch as one JSON file or, where the name does not end in .json, as a folder of Parquet files."""
    from quayside.foundation.progress import progress
    from quayside.kycc.generate import write_json, write_parquet

    write = write_json if out.suffix == ".json" else write_parquet
    with progress("Generate", total=batch.spec.parties, unit="parties") as bar:
        write(batch, out, on_progress=lambda done, _total: bar.advance(done - bar.done))


@app.command()
def ingest(
    source: Annotated[str, typer.Argument(help="JSON file, folder of Parquet files, or lake:SCHEMA.")],
    batch_id: BatchId = None,
    max_reject_ratio: Annotated[
        float, typer.Option(min=0, max=1, help="Share of a table that may be quarantined.")
    ] = 0.01,
    replace: Annotated[
        bool, typer.Option("--replace", help="Remove rows of the batch that this file no longer has.")
    ] = False,
    base_currency: Annotated[
        str | None, typer.Option(help="Amounts are converted to it. Left out: what most transactions are in.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Load one batch into the lake; rows that cannot be used are quarantined with their reason."""
    from quayside.foundation import console
    from quayside.foundation.progress import step

    service = open_service()
    with step(f"Ingest {source}"):
        result = service.ingest(
            source, batch_id, max_reject_ratio=max_reject_ratio, replace=replace, base_currency=base_currency
        )
    if as_json:
        console.show_json(result.as_dict())
        return
    console.show([{"table": table, **counts} for table, counts in result.counts().items()])
    for warning in result.warnings:
        typer.echo(f"note: {warning}")
    state = "was loaded before, nothing changed" if result.already_loaded else "is loaded"
    typer.echo(f"Batch {result.batch_id} {state}; features default to {result.as_of:%Y-%m-%d %H:%M:%S} UTC.")


@app.command()
def rates(
    file: Annotated[Path, typer.Argument(help="CSV or Parquet: currency, base_currency, day, rate.")],
) -> None:
    """Load exchange rates; known days are corrected."""
    from quayside.kycc.fx import load_rates

    loaded = load_rates(open_service().lake, file)
    typer.echo(f"{loaded.read} rates read, {loaded.added} new, {loaded.changed} corrected.")


@app.command()
def features(batch_id: BatchId = None, as_of: AsOf = None, as_json: Json = False) -> None:
    """Compute the features of a batch as of a moment."""
    from quayside.foundation import console
    from quayside.foundation.progress import step

    service = open_service()
    with step("Features"):
        results = service.extract(batch_id, utc(as_of))
    rows: list[dict[str, Any]] = [
        {"feature": name, "present": f"{d.present:.1%}", "min": d.minimum, "mean": d.mean, "max": d.maximum}
        for group in ("kyc", "transaction", "network")
        for name, d in results[group].distributions.items()
    ]
    console.show(rows, as_json=as_json)


@app.command()
def score(
    batch_id: BatchId = None,
    as_of: AsOf = None,
    scorecard_version: Annotated[
        str, typer.Option("--scorecard", help="A version, or active for the one that is.")
    ] = "v1",
    as_json: Json = False,
) -> None:
    """Score a batch; its features are computed first where they are missing."""
    from quayside.foundation import console
    from quayside.foundation.progress import step

    service = open_service()
    moment = utc(as_of)
    with service.connection() as con:
        batch = service.resolve("loaded", batch_id, moment, con)
        ready = service.has_features(batch, con)
    if not ready:
        with step("Features"):
            service.extract(batch.batch_id, batch.as_of)
    with step("Score"):
        result = service.score(batch.batch_id, batch.as_of, scorecard_version)
    if as_json:
        console.show_json(
            {
                "batch_id": result.batch.batch_id,
                "as_of": result.batch.as_of,
                "scorecard_version": result.version,
            }
            | result.summary.as_dict()
        )
        return
    console.show(band_rows(result.summary))
    typer.echo(
        f"{result.summary.parties:,} parties of batch {result.batch.batch_id} scored by {result.version} as of "
        f"{result.batch.as_of:%Y-%m-%d}, mean {result.summary.mean:.1f}; {result.written.added} new, "
        f"{result.written.changed} changed."
    )


def band_rows(summary: Any) -> list[dict[str, Any]]:
    """The band table of a scored batch, with the share drawn as a bar."""
    from quayside.kycc.bands import BANDS

    floors = dict(BANDS)
    return [
        {
            "band": band,
            "from": floors[band],  # pyright: ignore[reportArgumentType]
            "parties": n,
            "share": f"{n / summary.parties:.1%}",
            "": "█" * round(40 * n / summary.parties),
        }
        for band, n in summary.bands.items()
    ]


@app.command()
def explain(
    party: Annotated[str, typer.Argument(help="A party_id.")],
    batch_id: BatchId = None,
    scorecard_version: Annotated[str | None, typer.Option("--scorecard")] = None,
    as_json: Json = False,
) -> None:
    """Show how one party's score came about: the points bar by bar, the rules, the reasons."""
    from quayside.foundation import console
    from quayside.kycc.scorecard import render_bars

    row, explanation = open_service().explain(party, batch_id, scorecard_version)
    if as_json:
        console.show_json({"score": row, "explanation": explanation.as_dict()})
        return
    typer.echo(
        f"{party}  batch {row['batch_id']}  as of {row['as_of']:%Y-%m-%d}  scorecard {row['scorecard_version']}"
    )
    typer.echo(render_bars(explanation))


@app.command()
def batches(as_json: Json = False) -> None:
    """List the batches: when loaded, how large, which steps they have."""
    from quayside.foundation import console

    console.show(open_service().batches(), as_json=as_json)


@app.command()
def quarantine(
    batch_id: BatchId = None, limit: Annotated[int, typer.Option(min=1)] = 20, as_json: Json = False
) -> None:
    """List rows that were not loaded, each with its reason."""
    from quayside.foundation import console

    console.show(open_service().quarantine(batch_id, limit), as_json=as_json)


def _card(version: str) -> Any:
    """A shipped card or a file without asking any service, else one of the platform's versions."""
    from quayside.kycc.scorecard import load_scorecard, packaged_versions

    shipped = version in packaged_versions() or version.endswith((".yaml", ".yml", ".json"))
    return load_scorecard(version) if shipped else open_service().versions.card(version)


@scorecard_app.command("show")
def scorecard_show(
    version: Annotated[str, typer.Argument(help="Version, active, or a YAML/JSON file.")] = "v1",
    as_json: Json = False,
) -> None:
    """Show a card: characteristics, bins and points."""
    from quayside.foundation import console

    card = _card(version)
    if as_json:
        console.show_json(card.to_dict())
        return
    console.show(
        [
            {
                "feature": item.feature if code == 0 else "",
                "bin": item.code_label(code),
                "points": points,
                "of": item.max_points if code == 0 else None,
            }
            for item in card.characteristics
            for code, points in enumerate(item.points_by_code)
        ]
    )
    for rule in card.ordered_rules:
        typer.echo(f"rule {rule.id}: {rule.when} → {rule.text}")


@scorecard_app.command("sql")
def scorecard_sql(
    version: Annotated[str, typer.Argument(help="Version, active, or a YAML/JSON file.")] = "v1",
    dialect: Annotated[
        str, typer.Option(help="Any dialect sqlglot writes: duckdb, postgres, sqlite, snowflake …")
    ] = "duckdb",
    table: Annotated[
        str | None, typer.Option(help="Write a SELECT from this table; left out: the expression alone.")
    ] = None,
    with_rules: Annotated[
        bool, typer.Option("--with-rules", help="Rules and clamp as well: the total score.")
    ] = False,
) -> None:
    """Print the card as one SQL expression that gives the engine's points exactly."""
    from quayside.kycc.scorecard.sql import to_sql

    typer.echo(to_sql(_card(version), dialect, table=table, with_rules=with_rules))
