"""Complete or not at all: a file or folder is written under another name beside its own, and takes its own at the end."""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from quayside.foundation.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator


@contextmanager
def complete_file(path: Path) -> Iterator[Path]:
    """A name to write to; what is there at the end becomes `path`, and nothing does when the body raises.

    Raises:
        UsageError: `path` cannot be written, with the reason.
    """
    with _beside(path) as (target, temporary):
        if target.is_dir():
            raise UsageError(f"Cannot write {path}: it is a folder; name a file.")
        if target.exists() and not target.is_file():
            raise UsageError(f"Cannot write {path}: it is a device or a pipe; name an ordinary file.")
        yield temporary
        temporary.replace(target)


@contextmanager
def complete_folder(folder: Path, known: Collection[str]) -> Iterator[Path]:
    """A folder to write into, which becomes `folder` at the end; an earlier one is replaced as a whole.

    Args:
        known: names that may be lost with the earlier folder. One that holds anything else is refused.

    Raises:
        UsageError: `folder` cannot be written, with the reason.
    """
    with _beside(folder) as (target, temporary):
        if target.exists() and not target.is_dir():
            raise UsageError(f"Cannot write {folder}: it is a file; name a folder.")
        foreign = (
            sorted(entry.name for entry in target.iterdir() if entry.name not in known)
            if target.exists()
            else []
        )
        if foreign:
            raise UsageError(
                f"Cannot write {folder}: it holds {foreign[0]!r}, which is no part of a batch; name another."
            )
        temporary.mkdir()
        yield temporary
        if target.exists():
            earlier = temporary.with_suffix(".old")
            target.replace(earlier)
            temporary.replace(target)
            shutil.rmtree(earlier)
        else:
            temporary.replace(target)


@contextmanager
def _beside(path: Path) -> Iterator[tuple[Path, Path]]:
    """`path` without links, and a name beside it that is free; what is left under that name is removed.

    Raises:
        UsageError: the file system refused something in between.
    """
    if "\0" in str(path):
        raise UsageError(f"Cannot write {str(path)!r}: a path cannot hold a null character.")
    target = Path(os.path.realpath(path))
    temporary = target.parent / f".{target.name}.{secrets.token_hex(4)}.tmp"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield target, temporary
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"Cannot write {path}: {reason}; choose another place or free this one.") from error
    finally:
        # Usually it has its own name by now, and where it could not be made there is nothing to remove either.
        shutil.rmtree(temporary, ignore_errors=True)
        with suppress(OSError):
            temporary.unlink()
