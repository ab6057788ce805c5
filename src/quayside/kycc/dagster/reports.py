"""Writes the pages of `quayside.kycc.report` where people find them: ``reports/`` in QUAYSIDE_HOME."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from quayside.kycc.service import ScoringService
    from quayside.kycc.training import Skipped, TrainedModel
    from quayside.kycc.versions import Version


def write_scoring_page(service: ScoringService, batch_id: str, version: str) -> Path:
    """The page of a batch scored by that version; one file per batch and version, replaced by the next scoring."""
    from quayside.kycc.report import scoring_page, scoring_report

    with service.connection() as con:
        report = scoring_report(con, service.versions.card(version), batch_id, datetime.now(UTC))
    return _write(service, f"scores/{batch_id}.{version}.html", scoring_page(report))


def write_skipped_page(service: ScoringService, training_id: str, skipped: Skipped) -> Path:
    """The page of a training that did not take place."""
    from quayside.kycc.report import skipped_report, training_page

    report = skipped_report(skipped, service.versions.card(), datetime.now(UTC))
    return _write(service, f"trainings/{training_id}.html", training_page(report))


def write_training_page(service: ScoringService, version: Version, model: TrainedModel) -> Path | None:
    """The page of a training and the version made from it, on the rows it was trained with.

    Returns:
        None when labels or features have changed since: the page written then is the one that is true.
    """
    from quayside.kycc.refinement import BinComparison, Refinement
    from quayside.kycc.refinement.gates import Gate
    from quayside.kycc.report import training_page, training_report
    from quayside.kycc.training import split

    table = service.labelled(version.details["observation_window_days"], model.data.batches)
    parts = split(table.drop_columns("score"), model.config)
    if parts.fingerprint != model.data.fingerprint or version.base_version is None:
        return None
    refinement = Refinement(
        version.card,
        "rejected" if version.status == "rejected" else "draft",
        tuple(Gate(**gate) for gate in version.gates),
        version.blend_factor or 0.0,
        version.base_version,
        tuple(BinComparison(**row) for row in version.details["comparison"]),
    )
    base = service.versions.card(version.base_version)
    report = training_report(model, refinement, base, parts, datetime.now(UTC))
    return _write(service, f"trainings/{version.model_id}.{version.version}.html", training_page(report))


def _write(service: ScoringService, name: str, page: str) -> Path:
    """A page appears whole or not at all."""
    import os

    from quayside.foundation.processes import private_folder

    path = service.settings.home / "reports" / name
    private_folder(path.parent)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_text(page, "utf-8")
    return new.replace(path)
