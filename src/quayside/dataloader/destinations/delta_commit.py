"""One change of a Delta table: work on a snapshot, its files, and the commit that names them, fenced and counted.

The load's state is a property of the table, set in the commit itself: properties are part of every snapshot and every
checkpoint, so the state is found without reading history and outlives the clean-up of the log. Belongs here: the order
in which a change happens. Does not belong here: which rows change.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Final

from quayside.dataloader.destinations.delta_files import FileSet, relation
from quayside.dataloader.destinations.delta_log import Commit
from quayside.dataloader.destinations.delta_types import delta_schema
from quayside.dataloader.destinations.destination import LoadState, Written
from quayside.dataloader.errors import CountMismatchError
from quayside.foundation.errors import ConflictError

if TYPE_CHECKING:
    import duckdb

    from quayside.dataloader.destinations.delta_log import DataFile, DeltaLog, Snapshot
    from quayside.dataloader.destinations.destination import Fence, StateOf

ATTEMPTS: Final = 10
_FIRST_WAIT_SECONDS: Final = 0.05
_LONGEST_WAIT_SECONDS: Final = 2.0
_STATE: Final = "quayside.state."


@dataclass(frozen=True)
class Place:
    """Which table is changed, for whom, and the connection in which its files are written and read."""

    con: duckdb.DuckDBPyConnection
    log: DeltaLog
    config_id: int
    attempt: int


@dataclass(frozen=True)
class Change:
    """What a piece of work made of a snapshot.

    Attributes:
        columns: column → stored type of the table afterwards.
        remove: files that the table has no more.
        rows: how many rows the written files must hold together.
        add: files that are there already, with their statistics: those of a shadow.
        properties: properties of the table to set, beside the state.
        rebases: the files hold for every snapshot, so that `work` finds them when it is run again.
    """

    operation: str
    columns: Mapping[str, str]
    rows: int
    written: Written
    remove: Sequence[DataFile] = ()
    add: Sequence[DataFile] = ()
    properties: Mapping[str, str] = field(default_factory=dict)
    rebases: bool = False


Work = Callable[["Snapshot | None", FileSet], Change]


def state_of(snapshot: Snapshot | None, config_id: int) -> LoadState | None:
    """The state that the last commit of a configuration left in the table."""
    if snapshot is None or (text := snapshot.properties.get(f"{_STATE}{config_id}")) is None:
        return None
    values = json.loads(text)
    return LoadState(**{**values, "boundary": tuple(values["boundary"])})


def change_table(place: Place, fence: Fence, state: StateOf, work: Work) -> Written:
    """Run `work` on the newest snapshot and commit what it made, with its state; again when another writer was faster.

    `work` writes its files into the `FileSet` it is given. Its files are taken away again unless the commit is
    through; a process that dies leaves files that no commit names.

    Raises:
        FencedError: the attempt was given up.
        CountMismatchError: the files hold another number of rows than the work says.
        ConflictError: other writers won every time.
        ServiceUnavailableError: the table does not answer.
    """
    log = place.log
    files = FileSet(place.con, log)
    discard = True
    try:
        for attempt in range(ATTEMPTS):
            base = log.snapshot()
            change = work(base, files)
            commit = _commit(place, base, change, files, state)
            with fence.hold():
                discard = False  # whatever interrupts the commit: it may be there, and name these files
                done = log.commit(base, commit)
                discard = not done
            if done:
                log.tidy(0 if base is None else base.version + 1)
                return replace(change.written, bytes=files.size)
            if not change.rebases:
                files.discard()
            longest = min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2**attempt)
            time.sleep(random.uniform(longest / 4, longest))  # noqa: S311  jitter, not a secret
    finally:
        if discard:
            files.discard()
    raise ConflictError(
        f"Other writers changed {log.url} {ATTEMPTS} times in a row: try again when they are done."
    )


def _commit(
    place: Place, base: Snapshot | None, change: Change, files: FileSet, state_of_table: StateOf
) -> Commit:
    if files.rows != change.rows:
        raise CountMismatchError(
            f"{change.rows:,} rows were to be written and the files hold {files.rows:,}: nothing was committed."
        )
    gone = {file.path for file in change.remove}
    stay = [file for file in (base.files if base else ()) if file.path not in gone]
    added = [*files.files, *change.add]
    state = state_of_table(relation(place.con, place.log.url, [*stay, *added], change.columns))
    before = base.properties if base else {}
    written = change.written
    return Commit(
        operation=change.operation,
        config_id=place.config_id,
        attempt=place.attempt,
        schema=delta_schema(place.con, change.columns),
        properties={
            **before,
            **change.properties,
            f"{_STATE}{place.config_id}": json.dumps(asdict(state), ensure_ascii=False),
        },
        add=added,
        remove=change.remove,
        figures={
            "numOutputRows": files.rows,
            "numAddedFiles": len(added),
            "numRemovedFiles": len(change.remove),
            "numTargetRowsInserted": written.inserted,
            "numTargetRowsUpdated": written.updated,
            "numTargetRowsDeleted": written.deleted,
        },
    )
