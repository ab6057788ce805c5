"""Backups of graph databases in the object store.

A backup is a database file and, written after it, its manifest: without one there is no backup, so one that was cut off
is never restored. Restoring checks size, checksum and tables before the graph's own file is replaced.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from quayside.foundation.errors import CheckFailedError, InputError, NotFoundError
from quayside.robosystems.graphs.errors import GraphCorruptError
from quayside.robosystems.graphs.names import checked
from quayside.robosystems.storage import BACKUPS_PREFIX

if TYPE_CHECKING:
    from quayside.foundation.objects import ObjectStore
    from quayside.robosystems.graphs.store import GraphStore


@dataclass(frozen=True)
class Backup:
    """What a manifest says. `counts`: rows by table; `engine`: the version of LadybugDB that wrote the file."""

    graph_id: str
    backup_id: str
    created_at: str
    size_bytes: int
    sha256: str
    counts: Mapping[str, int]
    engine: str

    @property
    def key(self) -> str:
        """Where the database file is."""
        return f"{BACKUPS_PREFIX}/{self.graph_id}/{self.backup_id}.lbug"

    @classmethod
    def parse(cls, key: str, content: bytes) -> Self:
        """From a manifest. Raises: InputError: it is none."""
        try:
            return cls(**json.loads(content))
        except (ValueError, TypeError):
            raise InputError(f"{key} is not the manifest of a backup.") from None


def back_up(
    graphs: GraphStore, objects: ObjectStore, graph_id: str, *, backup_id: str | None = None
) -> Backup:
    """Store a graph as it is at this moment; writers and readers go on meanwhile.

    With the id of a backup that exists, that one is returned.

    Raises:
        NotFoundError: there is no such graph.
        GraphCorruptError: its file is no usable database.
    """
    import ladybug

    now = datetime.now(UTC)
    wanted = checked(backup_id or f"{now:%Y%m%dt%H%M%Sz}-{secrets.token_hex(3)}")
    if backup_id is not None and objects.exists(_manifest(checked(graph_id), wanted)):
        return get_backup(objects, graph_id, wanted)
    with _scratch(graphs) as folder:
        file = folder / "graph.lbug"
        graphs.snapshot(graph_id, file)
        with graphs.opened(graph_id, file) as session:  # what cannot be read is no backup
            counts = session.counts()
        backup = Backup(
            graph_id,
            wanted,
            now.isoformat(),
            file.stat().st_size,
            _sha256(file),
            counts,
            str(ladybug.__version__),
        )
        objects.put(backup.key, file)
    objects.put(_manifest(graph_id, wanted), json.dumps(asdict(backup), indent=1).encode())
    return backup


def backups(objects: ObjectStore, graph_id: str) -> list[Backup]:
    """The backups of a graph, oldest first."""
    found = [o.key for o in objects.list(f"{BACKUPS_PREFIX}/{checked(graph_id)}") if o.key.endswith(".json")]
    return sorted(
        (Backup.parse(key, objects.get(key)) for key in found), key=lambda b: (b.created_at, b.backup_id)
    )


def get_backup(objects: ObjectStore, graph_id: str, backup_id: str | None = None) -> Backup:
    """One backup by its id, by default the last. Raises: NotFoundError: there is none."""
    if backup_id is not None:
        key = _manifest(checked(graph_id), checked(backup_id))
        return Backup.parse(key, objects.get(key))
    found = backups(objects, graph_id)
    if not found:
        raise NotFoundError(f"There is no backup of graph {graph_id} in {objects.url}.")
    return found[-1]


def restore(
    graphs: GraphStore,
    objects: ObjectStore,
    graph_id: str,
    *,
    backup_id: str | None = None,
    into: str | None = None,
) -> Backup:
    """Put a backup (default: the last) in the place of its graph, or into another one.

    The graph stays as it is until the backup was found to be whole.

    Raises:
        NotFoundError: there is no such backup.
        CheckFailedError: what is stored is not what was backed up.
        GraphBusyError: another process writes to the graph.
    """
    backup = get_backup(objects, graph_id, backup_id)
    with _scratch(graphs) as folder:
        file = folder / "graph.lbug"
        with file.open("wb") as written:
            objects.download(backup.key, written)
        size, digest = file.stat().st_size, _sha256(file)
        if (size, digest) != (backup.size_bytes, backup.sha256):
            raise CheckFailedError(
                f"Backup {backup.backup_id} of graph {graph_id} is damaged: {backup.key} has {size:,} bytes with checksum "
                f"{digest[:12]}…, and was stored with {backup.size_bytes:,} and {backup.sha256[:12]}…. Restore another one."
            )
        try:
            with graphs.opened(graph_id, file) as session:
                counts = session.counts()
        except GraphCorruptError as error:
            raise CheckFailedError(
                f"Backup {backup.backup_id} was made by LadybugDB {backup.engine} and does not open: {error}"
            ) from None
        if counts != dict(backup.counts):
            raise CheckFailedError(
                f"Backup {backup.backup_id} holds {counts} and should hold {dict(backup.counts)}: restore another one."
            )
        graphs.replace(into or graph_id, file)
    return backup


def delete_backup(objects: ObjectStore, graph_id: str, backup_id: str) -> None:
    """Remove a backup; it is no error when there is none."""
    prefix = f"{BACKUPS_PREFIX}/{checked(graph_id)}/{checked(backup_id)}"
    objects.delete(f"{prefix}.json")
    objects.delete(f"{prefix}.lbug")


def _manifest(graph_id: str, backup_id: str) -> str:
    return f"{BACKUPS_PREFIX}/{graph_id}/{backup_id}.json"


@contextmanager
def _scratch(graphs: GraphStore) -> Iterator[Path]:
    """A folder beside the graphs, so that copies can share blocks with them."""
    place = graphs.folder / ".scratch"
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place) as folder:
        yield Path(folder)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest: Any = hashlib.file_digest(file, "sha256")
    return digest.hexdigest()
