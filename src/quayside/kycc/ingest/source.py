"""What a reader hands on: where the raw rows of each table are, and what the file says about itself."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

from quayside.foundation.errors import InputError, NotFoundError

#: json: text of the JSON value as it stood in the file; text, number, decimal, time, local_time, date, bool: SQL types.
Family = str

#: Where a batch file comes from when there is none yet.
HOW_TO_GENERATE: Final = "quayside kycc generate --out"


@dataclass
class RawTable:
    """Raw rows of one table.

    Attributes:
        relation: what stands after FROM.
        position: SQL of a row's 0-based position in the input.
        columns: column name → DuckDB type; ``JSON`` when it holds the raw text of a JSON value.
        repeated_keys: SQL that is true for a row in which a key stands twice.
    """

    relation: str
    position: str
    columns: dict[str, str]
    repeated_keys: str | None = None


@dataclass
class Source:
    """One batch as a reader found it.

    Attributes:
        label: how messages call it.
        header: the keys beside the tables.
        read: stages the raw rows where DuckDB can scan them and returns them by table; the costly part.
        unchanged: whether the input is still what `content_sha256` was computed of.
    """

    label: str
    content_sha256: str
    read: Callable[[], Mapping[str, RawTable]]
    unchanged: Callable[[], bool] = lambda: True
    header: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def shown(value: object, limit: int = 60) -> str:
    """`value` as a message shows it: on one line, printable, quoted, cut when long."""
    text = value if isinstance(value, str) else repr(value)
    cut = text if len(text) <= limit else text[:limit] + "…"
    return repr(cut)


def open_file(path: Path) -> BinaryIO:
    """Open a regular file for reading without ever waiting for somebody to write to it.

    Raises:
        InputError: it is no regular file or cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise missing(path) from None
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise InputError(
            f"{shown(str(path), 200)} is {kind_of(mode)}, not a file: give a batch file or a folder of Parquet files."
        )
    return os.fdopen(descriptor, "rb")


def missing(path: Path) -> NotFoundError:
    return NotFoundError(
        f"{shown(str(path), 200)} does not exist: give another path, or make a batch with `{HOW_TO_GENERATE} FILE`."
    )


def unreadable(path: Path, error: Exception) -> InputError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return InputError(
        f"{shown(str(path), 200)} cannot be read ({reason}): correct the path or its permissions."
    )


def kind_of(mode: int) -> str:
    """What kind of thing a path is, in words."""
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")


def identity(file: BinaryIO) -> tuple[int, int, int, int]:
    """Changes when the file is replaced or written to."""
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def digest(file: BinaryIO) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()  # pyright: ignore[reportArgumentType] - BinaryIO is enough


def parse_json(text: str, where: str) -> Any:
    """A small JSON value, strictly.

    Raises:
        InputError: it is not JSON, a key stands twice, or a number is not one.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            names = [key for key, _ in pairs]
            twice = next(key for key in names if names.count(key) > 1)
            raise InputError(f"{where} has the key {shown(twice)} twice: keep one.")
        return result

    def constant(word: str) -> Any:
        raise InputError(f"{where} holds {word}, which is no JSON number: correct it.")

    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        reason = (
            error.msg if isinstance(error, json.JSONDecodeError) else "a number or its nesting is too long"
        )
        raise InputError(f"{where} is not valid JSON ({reason}): correct the file.") from None


def moment(value: object, where: str) -> tuple[datetime, bool]:
    """A point in time from its ISO 8601 text, and whether it named its zone (UTC otherwise).

    Raises:
        InputError: it is no time, or outside the years 1901–2099.
    """
    try:
        parsed = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        parsed = None
    if parsed is None or not 1900 < parsed.year < 2100:
        raise InputError(
            f"{where} is {shown(value)}: give a time of the years 1901–2099 as 2026-01-31T00:00:00Z."
        )
    return (parsed.astimezone(UTC), True) if parsed.tzinfo else (parsed.replace(tzinfo=UTC), False)
