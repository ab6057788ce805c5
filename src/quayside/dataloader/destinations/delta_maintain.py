"""Upkeep of Delta tables: small files are merged, and files that nothing needs any more are removed.

Those are files that a commit took out of a table longer ago than `keep`, and files that writers left who died before
their commit. A writer's files exist before its commit does, so that none younger than `keep` is removed. Safe beside
loads and readers, as long as no load and no query takes longer than `keep`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from quayside.dataloader.destinations.delta import SIBLINGS
from quayside.dataloader.destinations.delta_files import FILE_BYTES
from quayside.foundation.errors import ServiceUnavailableError
from quayside.foundation.lake.sql import reason
from quayside.foundation.objects import ObjectStore, S3Access

if TYPE_CHECKING:
    from deltalake import DeltaTable

    from quayside.foundation.settings import Settings

DEFAULT_KEEP: Final = timedelta(days=7)


@dataclass
class Upkeep:
    """What was done, by table as ``catalog/schema/table``; with `dry_run` what would have been removed."""

    dry_run: bool
    merged: dict[str, int] = field(default_factory=dict)
    removed: dict[str, list[str]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)


def maintain(settings: Settings, *, keep: timedelta = DEFAULT_KEEP, dry_run: bool = False) -> Upkeep:
    """Look after every Delta table below QUAYSIDE_DELTA_URL. A table that others keep changing is left for the next time.

    Raises:
        ServiceUnavailableError: the tables cannot be read.
    """
    from deltalake import DeltaTable
    from deltalake.exceptions import CommitFailedError, DeltaError

    upkeep = Upkeep(dry_run)
    root = settings.delta_data_path
    options = S3Access.of(settings).options() if root.startswith("s3://") else None
    for name in tables(settings):
        url = f"{root}/{name}"
        try:
            table = DeltaTable(url, storage_options=options)
            if not dry_run:
                merged = table.optimize.compact(target_size=FILE_BYTES)
                upkeep.merged[name] = int(merged["numFilesRemoved"])
            hours = int(keep.total_seconds() // 3600)
            removed = table.vacuum(hours, dry_run=dry_run, enforce_retention_duration=False, full=True)
            removed += _sibling_files(settings, url, table, options, keep, dry_run)
            upkeep.removed[name] = sorted(removed)
        except CommitFailedError:
            upkeep.skipped.append(name)
        except (DeltaError, OSError) as error:
            raise ServiceUnavailableError(f"{url} cannot be looked after: {reason(error)}.") from error
    return upkeep


def tables(settings: Settings) -> list[str]:
    """Every Delta table below QUAYSIDE_DELTA_URL, as ``catalog/schema/table``."""
    store = ObjectStore(settings.delta_data_path, settings)
    parts = (found.key.split("/") for found in store.list())
    return sorted({"/".join(part[:3]) for part in parts if len(part) == 5 and part[3] == "_delta_log"})


def _sibling_files(
    settings: Settings,
    url: str,
    table: DeltaTable,
    options: dict[str, str] | None,
    keep: timedelta,
    dry_run: bool,
) -> list[str]:
    """Remove what neither the table nor a sibling needs of the folder of siblings, which `vacuum` leaves alone."""
    from deltalake import DeltaTable

    store = ObjectStore(url, settings)
    found = list(store.list(SIBLINGS))
    if not found:
        return []
    oldest = datetime.now(UTC) - keep
    needed = set(_named(table)) | _taken_out_since(store, oldest)
    for folder in {file.key.partition("/_delta_log/")[0] for file in found if "/_delta_log/" in file.key}:
        sibling = DeltaTable(f"{url}/{folder}", storage_options=options)
        needed |= {f"{folder}/{path}" for path in _named(sibling)}
    data = [file for file in found if "/_delta_log/" not in file.key]
    removed = [file.key for file in data if file.key not in needed and file.modified_at < oldest]
    if not dry_run:
        for key in removed:
            store.delete(key)
    return removed


def _named(table: DeltaTable) -> list[str]:
    return [str(path) for path in table.get_add_actions(flatten=True).column("path").to_pylist()]


def _taken_out_since(store: ObjectStore, moment: datetime) -> set[str]:
    """Files that commits since then took out of the table; entries of the log are kept for longer than that."""
    paths: set[str] = set()
    for entry in store.list("_delta_log"):
        if entry.key.endswith(".json") and entry.modified_at >= moment:
            actions = map(json.loads, store.get(entry.key).splitlines())
            paths |= {action["remove"]["path"] for action in actions if "remove" in action}
    return paths
