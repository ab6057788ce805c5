"""Files that arrive in a folder: which are new and complete, found with a cursor that stays small.

A file's change time (ctime) is set by the kernel at every write, rename and replacement and by nothing else, so a file
is looked at once per change: files are taken in the order of their change times, and the cursor is the last one taken.
A file is complete when

- nothing about it has changed for `SETTLE_SECONDS`, and
- it ends as JSON does, in ``}`` or ``]``; one that does not is waited for, at most `PATIENCE_SECONDS`, and then handed on
  all the same, so that a run says what is wrong with it.

What is waited for stands in the cursor, at most `MAX_WAITING` names. One look takes at most `MAX_ARRIVALS` files and starts
no further one after `BUDGET_SECONDS`; the next look goes on from there.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from quayside.foundation.errors import InputError, NotFoundError

SETTLE_SECONDS: Final = 10
PATIENCE_SECONDS: Final = 600
MAX_ARRIVALS: Final = 100
MAX_WAITING: Final = 100
#: A third of what a sensor has.
BUDGET_SECONDS: Final = 20.0
#: Of a larger file size, change time and both ends stand for its content: reading it would take a sensor's whole time.
MAX_HASHED_BYTES: Final = 4_000_000_000
_END_BYTES: Final = 4096
_OUTCOMES: Final = "_outcomes"


@dataclass(frozen=True, order=True)
class File:
    """A file as a listing found it."""

    changed_ns: int
    name: str
    path: Path = field(compare=False)

    @property
    def stem(self) -> str:
        return self.name.removesuffix(".json")

    @property
    def batch_id(self) -> str:
        """The batch it is of: its name without ``.json``, and without ``_outcomes`` where it holds those."""
        return self.stem.removesuffix(_OUTCOMES) if self.has_outcomes else self.stem

    @property
    def has_outcomes(self) -> bool:
        return self.stem.endswith(_OUTCOMES) and self.stem != _OUTCOMES


@dataclass(frozen=True)
class Arrival:
    """A complete file, a digest of its content, and the outcomes that came with a batch."""

    file: File
    digest: str
    outcomes: Arrival | None = None

    @property
    def key(self) -> str:
        """Equal for equal content."""
        return f"{self.digest}+{self.outcomes.digest}" if self.outcomes else self.digest


@dataclass
class Cursor:
    """Last file taken, and the change times of those that are waited for."""

    after: tuple[int, str] = (0, "")
    waiting: dict[str, int] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str | None) -> Cursor:
        """From `to_json`; nothing, or what is none, is the beginning: run keys keep old files from running again."""
        try:
            data = json.loads(text or "")
            changed, name = data["after"]
            waiting = {str(key): int(value) for key, value in data["waiting"].items()}
            return cls((int(changed), str(name)), waiting)
        except (ValueError, TypeError, KeyError, AttributeError):
            return cls()

    def to_json(self) -> str:
        return json.dumps({"after": self.after, "waiting": self.waiting})


@dataclass(frozen=True)
class Look:
    """What one look at the folder found.

    Attributes:
        files: JSON files in it.
        left: of them, those that changed a moment ago, are waited for, or were too many for this look.
    """

    arrivals: list[Arrival]
    cursor: Cursor
    files: int
    left: int


def look(
    folder: Path, cursor: Cursor, now_ns: int, busy: Callable[[str], bool] = lambda batch_id: False
) -> Look:
    """Files that are new since the cursor, each change of a file once.

    Outcomes come after the file of their batch: with it when both are new, else once no run of the batch is left.

    Args:
        busy: whether a run of that batch has yet to end.

    Raises:
        NotFoundError: there is no such folder.
        InputError: the folder cannot be listed.
    """
    files = _in_order(listing(folder))
    if cursor.after[0] > now_ns:  # the clock was set back
        cursor = Cursor()
    # A change of a file that was waited for is a new one.
    waited = [f for f in files if cursor.waiting.get(f.name) == f.changed_ns]
    fresh = [f for f in files if (f.changed_ns, f.name) > cursor.after]
    found = Cursor(cursor.after, {f.name: f.changed_ns for f in waited})
    arrivals: dict[str, Arrival] = {}
    taken = 0
    deadline = time.monotonic() + BUDGET_SECONDS
    for file in (*waited, *fresh):
        age_seconds = (now_ns - file.changed_ns) / 1e9
        full = len(arrivals) >= MAX_ARRIVALS or time.monotonic() > deadline
        if full or age_seconds < SETTLE_SECONDS:
            break
        digest = examine(file, patient=age_seconds < PATIENCE_SECONDS)
        batch = arrivals.get(f"{file.batch_id}.json") if file.has_outcomes else None
        waits = file.has_outcomes and (f"{file.batch_id}.json" in found.waiting or busy(file.batch_id))
        if digest is _INCOMPLETE or (digest and waits):
            if file.name not in found.waiting and len(found.waiting) >= MAX_WAITING:
                break
            found.waiting[file.name] = file.changed_ns
        else:
            found.waiting.pop(file.name, None)
            if digest:
                taken += 1
                arrival = Arrival(file, digest)
                if batch is None:
                    arrivals[file.name] = arrival
                else:
                    arrivals[batch.file.name] = replace(batch, outcomes=arrival)
        found.after = max(found.after, (file.changed_ns, file.name))
    return Look(list(arrivals.values()), found, len(files), len(waited) + len(fresh) - taken)


def _in_order(found: Iterable[File]) -> list[File]:
    """By change time; outcomes count as changed when their batch did, so that they never come before it."""
    files = list(found)
    changed = {file.name: file.changed_ns for file in files}
    return sorted(
        replace(file, changed_ns=max(file.changed_ns, changed.get(f"{file.batch_id}.json", 0)))
        if file.has_outcomes
        else file
        for file in files
    )


def listing(folder: Path) -> Iterator[File]:
    """The JSON files of a folder, in no order; hidden ones are somebody's temporary files.

    Raises:
        NotFoundError: there is no such folder.
        InputError: the folder cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.endswith(".json") or entry.name.startswith("."):
                    continue
                try:
                    status = entry.stat()
                except OSError:  # gone since, or a link to nowhere
                    continue
                if stat.S_ISREG(status.st_mode):
                    yield File(status.st_ctime_ns, entry.name, Path(entry.path))
    except FileNotFoundError:
        raise NotFoundError(f"{folder} does not exist: make it, and put batch files there.") from None
    except OSError as error:
        raise InputError(f"{folder} cannot be listed ({error.strerror}): correct it.") from None


_INCOMPLETE: Final = "incomplete"


def examine(file: File, *, patient: bool) -> str:
    """A digest of a file's content; `_INCOMPLETE` when it does not end as JSON and is worth waiting for; empty when it
    has gone or changed meanwhile, which is a change for the next look."""
    from quayside.kycc.ingest.source import digest, identity, open_file

    try:
        with open_file(file.path) as opened:
            before, size = identity(opened), os.fstat(opened.fileno()).st_size
            opened.seek(max(0, size - _END_BYTES))
            if not opened.read().rstrip().endswith((b"}", b"]")) and patient:
                return _INCOMPLETE
            if size > MAX_HASHED_BYTES:
                return f"{size}-{file.changed_ns}"
            found = digest(opened)
            return found if identity(opened) == before and file.path.stat().st_ino == before[1] else ""
    except (NotFoundError, FileNotFoundError):
        return ""
    except InputError:  # it may not be read: the run will say so
        return f"unreadable-{file.changed_ns}"
    except OSError as error:
        return f"unreadable-{error.errno}-{file.changed_ns}"
