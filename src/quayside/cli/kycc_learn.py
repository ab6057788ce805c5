"""``quayside kycc outcomes … rollback``: what became of the parties, what is learnt from it, which scorecard decides."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quayside.cli.kycc_options import AsOf, BatchId, Json, open_service, utc

if TYPE_CHECKING:
    from quayside.kycc.challenger import Comparison
    from quayside.kycc.labels import LabelResult
    from quayside.kycc.versions import Version

app = typer.Typer(add_completion=False)
versions_app = typer.Typer(help="Scorecard versions: list, show, add, reject, retire.")
app.add_typer(versions_app, name="versions")

Note = Annotated[str, typer.Option(help="Why, for the audit trail.")]
WindowDays = Annotated[
    int,
    typer.Option("--window-days", min=1, help="Days after the moment in which an event makes a party bad."),
]


@app.command()
def outcomes(
    source: Annotated[
        str, typer.Argument(help="JSON file (batch_id, observed_through, outcomes), or lake:SCHEMA.")
    ],
    batch_id: Annotated[
        str | None, typer.Option("--batch-id", help="Left out: the file's own. lake:SCHEMA needs it.")
    ] = None,
    observed_through: Annotated[
        datetime | None,
        typer.Option(
            help="Of lake:SCHEMA without such a column, UTC.", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"]
        ),
    ] = None,
    max_reject_ratio: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the rows that may be quarantined.")
    ] = 0.01,
    replace: Annotated[
        bool, typer.Option("--replace", help="Forget what earlier outcome files of the batch said.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Load what became of the parties of a batch."""
    from quayside.foundation import console

    result = open_service().load_outcomes(
        source,
        batch_id,
        observed_through=utc(observed_through),
        max_reject_ratio=max_reject_ratio,
        replace=replace,
    )
    if as_json:
        console.show_json(result.as_dict())
        return
    for warning in result.warnings:
        typer.echo(f"note: {warning}")
    if result.already_loaded:
        typer.echo(f"These outcomes of batch {result.batch_id} were loaded before, nothing changed.")
        return
    typer.echo(
        f"Batch {result.batch_id}, observed through {result.observed_through:%Y-%m-%d %H:%M:%S} UTC: {result.events:,} events "
        f"and {result.verdicts:,} verdicts, {result.added:,} facts new, {result.rows_quarantined:,} rows quarantined."
    )


@app.command()
def labels(
    batch_id: BatchId = None,
    window_days: WindowDays = 180,
    default_rate: Annotated[
        float, typer.Option(help="Share of bad labels, where they have to be simulated.")
    ] = 0.15,
    as_of: AsOf = None,
    as_json: Json = False,
) -> None:
    """Make the labels of a batch: observed where there are outcomes, simulated where there are none."""
    from quayside.foundation import console

    result = open_service().labels(batch_id, window_days, default_rate, utc(as_of))
    if as_json:
        console.show_json(result.as_dict())
        return
    console.show(label_rows(result))
    if result.circular:
        typer.echo(
            "note: No outcomes are loaded; labels are simulated from scores, and training on them is circular."
        )
    typer.echo(
        f"Batch {result.batch_id} as of {result.as_of:%Y-%m-%d}, window {result.observation_window_days} days: "
        f"{result.added:,} labels new, {result.changed:,} changed, {result.removed:,} removed."
    )


def label_rows(result: LabelResult) -> list[dict[str, Any]]:
    """The table of label counts by source."""
    return [
        {
            "source": source,
            "good": n.good,
            "bad": n.bad,
            "bad rate": "" if n.bad_rate is None else f"{n.bad_rate:.1%}",
            "unlabelled": n.unlabelled,
            "windows over": n.windows_over,
        }
        for source, n in result.counts.items()
    ]


@app.command()
def train(
    batch_id: Annotated[
        list[str] | None, typer.Option("--batch-id", help="May be repeated. Left out: all labelled batches.")
    ] = None,
    window_days: WindowDays = 180,
    min_samples: Annotated[int, typer.Option(min=1)] = 100,
    test_size: Annotated[float, typer.Option(help="Share held out.")] = 0.2,
    as_json: Json = False,
) -> None:
    """Train a model on labelled parties; nothing changes for any score."""
    from quayside.foundation import console
    from quayside.foundation.progress import step

    service = open_service()
    with step("Train"):
        result = service.train(batch_id, window_days, min_samples=min_samples, test_size=test_size)
    if as_json:
        console.show_json(
            {"training_id": result.training_id, "status": result.status, "reason": result.reason}
            | result.details
        )
        return
    if result.reason:
        typer.echo(f"Skipped: {result.reason}")
        return
    model: Any = result.outcome
    if model.circular:
        typer.echo("note: The labels are simulated from scores; the figures below prove nothing.")
    console.show(
        [
            {
                "": name,
                "rows": m.rows,
                "bad": m.bads,
                "AUC": round(m.auc, 4),
                "KS": round(m.ks, 4),
                "Brier": round(m.brier, 4),
            }
            for name, m in (
                ("model, training part", model.training),
                ("model, holdout", model.holdout),
                (f"{model.active_version}, holdout", model.active),
            )
            if m is not None
        ]
    )
    typer.echo(f"Kept as {result.training_id}; next: quayside kycc refine.")


@app.command()
def refine(
    training_id: Annotated[str | None, typer.Argument(help="Left out: the latest training.")] = None,
    blend_factor: Annotated[
        float, typer.Option(min=0, max=1, help="0 the base version's points, 1 the model's.")
    ] = 0.5,
    base_version: Annotated[str, typer.Option("--base")] = "v1",
    as_json: Json = False,
) -> None:
    """Make a draft scorecard from a training and a base version; it is rejected when a gate fails."""
    from quayside.foundation import console
    from quayside.foundation.progress import step

    service = open_service()
    with step("Refine"):
        result = service.refine(training_id, blend_factor, base_version)
    if as_json:
        version = None if result.version is None else result.version.as_dict()
        console.show_json({"status": result.status, "reason": result.reason, "version": version})
        return
    if result.version is None:
        typer.echo(f"Skipped: {result.reason}")
        return
    console.show(gate_rows(result.version))
    before = "was made before and is" if result.known_before else "is"
    typer.echo(
        f"Scorecard {result.version.version} {before} {result.version.status}, from {result.training_id}."
    )


def gate_rows(version: Version) -> list[dict[str, Any]]:
    """The gates of a version as a table."""
    return [
        {"gate": gate["name"], "passed": gate["passed"], "what it says": gate["sentence"]}
        for gate in version.gates
    ]


@app.command()
def shadow(
    batch_id: BatchId = None,
    scorecard_version: Annotated[
        str | None, typer.Option("--scorecard", help="Left out: every draft.")
    ] = None,
    as_of: AsOf = None,
    as_json: Json = False,
) -> None:
    """Score a batch by drafts, in the lake alone: nothing is decided by them."""
    from quayside.foundation import console

    written = open_service().shadow(batch_id, utc(as_of), scorecard_version)
    console.show(
        [
            {"version": name, "parties": w.rows, "new": w.added, "changed": w.changed}
            for name, w in written.items()
        ],
        as_json=as_json,
    )


@app.command()
def compare(
    challenger: Annotated[str, typer.Argument(help="A version, or a card's file.")],
    champion: Annotated[str, typer.Option("--with", help="Left out: the active one.")] = "active",
    batch_id: BatchId = None,
    as_of: AsOf = None,
    window_days: WindowDays = 180,
    as_json: Json = False,
) -> None:
    """Compare two scorecards on the same parties, and by a paired test where outcomes are known."""
    from quayside.foundation import console

    found = open_service().compare(challenger, champion, batch_id, utc(as_of), window_days)
    if as_json:
        console.show_json(found.as_dict())
        return
    console.show(
        [
            {"band": band, found.champion: old, found.challenger: new, "shift": new - old}
            for band, (old, new) in found.bands.items()
        ]
    )
    for line in comparison_lines(found):
        typer.echo(line)


def comparison_lines(found: Comparison) -> list[str]:
    """What the comparison says, in sentences."""
    lines = [
        f"On {found.parties:,} parties of batch {found.batch_id}, {found.challenger} gives {found.mean_shift:+.1f} points in the "
        f"mean against {found.champion}; rank correlation {found.rank_correlation:.3f}, {found.decisions_changed:,} decisions "
        "differ."
    ]
    if (test := found.test) is not None:
        verdict = (
            "ranks better"
            if test.low > 0
            else "ranks worse"
            if test.high < 0
            else "ranks no differently, beyond chance"
        )
        lines.append(
            f"{found.challenger} {verdict}: AUC {test.challenger_auc:.4f} against {test.champion_auc:.4f}, difference "
            f"{test.difference:+.4f}, 95 % interval {test.low:+.4f} to {test.high:+.4f}, p = {test.p_value:.3g} (DeLong, paired)."
        )
    return [*lines, found.test_note]


@app.command()
def activate(
    version: Annotated[str, typer.Argument(help="A draft, or a version that was active before.")],
    note: Note = "",
    as_json: Json = False,
) -> None:
    """Make a version the one that decides; the one before it is retired."""
    _show(open_service().versions.activate(version, note=note), as_json)


@app.command()
def rollback(note: Note = "", as_json: Json = False) -> None:
    """Return to the version that was active before the present one."""
    _show(open_service().versions.roll_back(note=note), as_json)


@versions_app.callback(invoke_without_command=True)
def versions(context: typer.Context, as_json: Json = False) -> None:
    """List the scorecard versions, newest first."""
    from quayside.foundation import console

    if context.invoked_subcommand is not None:
        return
    found = open_service().versions.list()
    if as_json:
        console.show_json([version.as_dict() for version in found])
        return
    console.show(
        [
            {
                "version": v.version,
                "status": v.status,
                "base": v.base_version,
                "blend": v.blend_factor,
                "gates": f"{sum(gate['passed'] for gate in v.gates)}/{len(v.gates)}" if v.gates else "",
                "created": v.created_at,
                "by": v.created_by,
                "activated by": v.activated_by,
                "note": v.note,
            }
            for v in found
        ]
    )


@versions_app.command("show")
def versions_show(version: Annotated[str, typer.Argument()] = "active", as_json: Json = False) -> None:
    """Show where a version came from and what its gates said."""
    _show(open_service().versions.get(version), as_json, gates=True)


@versions_app.command("add")
def versions_add(
    file: Annotated[Path, typer.Argument(help="A card a person wrote: .yaml or .json.")],
    note: Note = "",
    as_json: Json = False,
) -> None:
    """Keep a card a person wrote as a draft."""
    from quayside.kycc.scorecard import load_scorecard

    _show(open_service().versions.add(load_scorecard(file), note=note), as_json)


@versions_app.command("reject")
def versions_reject(version: str, note: Note, as_json: Json = False) -> None:
    """Refuse a draft for good."""
    _show(open_service().versions.reject(version, note=note), as_json)


@versions_app.command("retire")
def versions_retire(version: str, note: Note = "", as_json: Json = False) -> None:
    """Put a draft aside."""
    _show(open_service().versions.retire(version, note=note), as_json)


def _show(version: Version, as_json: bool, *, gates: bool = False) -> None:
    from quayside.foundation import console

    if as_json:
        console.show_json(version.as_dict())
        return
    if gates and version.gates:
        console.show(gate_rows(version))
    if version.details.get("circular"):
        typer.echo("note: It was trained on labels simulated from scores, which prove nothing about it.")
    made = (
        f"refined from {version.base_version} with {version.model_id}"
        if version.model_id
        else "written by a person"
    )
    typer.echo(f"Scorecard {version.version} is {version.status}; {made}, by {version.created_by}.")
    if version.requested_by:
        typer.echo(
            f"{version.requested_by} asks for its activation; a second person has to run the same command."
        )
