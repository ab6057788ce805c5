"""One JSON document, read in one pass and in bounded memory: small members as values, large arrays as Arrow batches.

A batch file is one object with four huge arrays. Parsed as a whole it costs many times its size in memory, so its
structure alone is found here, with numpy, 8 MiB at a time: where strings, nesting and array elements begin and end.
The elements go on as text; DuckDB parses them, strictly, on all threads. So whatever this scanner lets pass inside an
element is still refused there. Not here: what the keys mean.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np

from quayside.foundation.errors import InputError
from quayside.kycc.ingest.source import parse_json, shown

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

BLOCK: Final = 8 << 20
#: A row of a batch is some hundred bytes; one of a megabyte is an attack or a mistake.
MAX_ROW_BYTES: Final = 1 << 20
MAX_VALUE_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 32

_COMMA, _OPEN, _CLOSE = ord(","), ord("{"), ord("]")
_STRUCTURAL: Final = np.zeros(256, dtype=np.bool_)
_STRUCTURAL[list(b'"\\{}[],')] = True
_STEP: Final = np.zeros(256, dtype=np.int32)
_STEP[list(b"{[")] = 1
_STEP[list(b"}]")] = -1

_SPACE: Final = re.compile(rb"[ \t\r\n]*")
_STRING: Final = re.compile(rb'"(?:[^"\\\x00-\x1f]|\\.)*"')
_MAGIC: Final = {
    b"\x1f\x8b": "gzip-compressed",
    b"PK\x03\x04": "a zip archive",
    b"BZh": "bzip2-compressed",
    b"\xfd7zXZ": "xz-compressed",
    b"\x28\xb5\x2f\xfd": "zstd-compressed",
    b"7z\xbc\xaf": "a 7z archive",
    b"PAR1": "a Parquet file",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"{\x00": "UTF-16 text",
    b"\x00{": "UTF-16 text",
}


@dataclass(frozen=True)
class Member:
    """A small member of the top-level object."""

    key: str
    value: Any


@dataclass(frozen=True)
class Rows:
    """An array of objects. `batches` (columns ``position`` int64 and ``element`` text) must be used up before going on.

    `key` is None for the elements of a top-level array.
    """

    key: str | None
    batches: Iterator[pa.RecordBatch]


class JsonStream:
    """The members of one JSON file, in its order.

    Args:
        file: positioned anywhere; read from its start.
        label: what messages call it.
        arrays: keys of the top-level object whose arrays are streamed.
    """

    def __init__(self, file: BinaryIO, label: str, arrays: frozenset[str]) -> None:
        self._file = file
        self._label = label
        self._arrays = arrays
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._data = b""
        self._at = 0
        self._before = 0  # bytes of the file before self._data
        file.seek(0)

    def __iter__(self) -> Iterator[Member | Rows]:
        """
        Raises:
            InputError: the file is not one JSON object, or array of objects, in UTF-8.
        """
        self._begin()
        first = self._next_byte()
        self._at += 1
        if first == ord("["):
            yield Rows(None, self._rows(None))
        else:
            yield from self._object()
        if self._next_byte(at_end=True) is not None:
            raise self._broken("goes on after its end")

    # -- the parts ---------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        head = self._file.read(8)
        self._file.seek(0)
        for magic, name in _MAGIC.items():
            if head.startswith(magic):
                raise InputError(f"{self._label} is {name}, not JSON text: give the JSON itself, in UTF-8.")
        if not self._more():
            raise InputError(f"{self._label} is empty: give a batch file.")
        if self._data.startswith(codecs.BOM_UTF8):
            self._at = len(codecs.BOM_UTF8)
        if self._next_byte(at_end=True) is None:
            raise InputError(f"{self._label} is empty: give a batch file.")
        if self._data[self._at] not in b"{[":
            raise InputError(
                f"{self._label} is not JSON: it begins with {shown(self._text(self._at, self._at + 20), 20)} instead of {{ or [."
            )

    def _object(self) -> Iterator[Member | Rows]:
        seen: set[str] = set()
        following = self._next_byte()
        while following != ord("}"):
            key = self._key()
            if key in seen:
                raise InputError(f"{self._label} has the key {shown(key)} twice: keep one.")
            seen.add(key)
            if self._next_byte() != ord(":"):
                raise self._broken(f"has no colon after the key {shown(key)}")
            self._at += 1
            if key in self._arrays:
                if self._next_byte() != ord("["):
                    raise InputError(f"{self._label}: {key} is not a list of rows: write it as [{{…}}, …].")
                self._at += 1
                yield Rows(key, self._rows(key))
            else:
                yield Member(key, self._value(key))
            following = self._next_byte()
            if following == _COMMA:
                self._at += 1
                following = self._next_byte()
                if following == ord("}"):
                    raise self._broken("has a comma before its closing brace")
            elif following != ord("}"):
                raise self._broken(f"goes wrong after the member {shown(key)}")
        self._at += 1

    def _key(self) -> str:
        if self._next_byte() != ord('"'):
            raise self._broken("has a member without a quoted key")
        while (match := _STRING.match(self._data, self._at)) is None:
            if len(self._data) - self._at > MAX_VALUE_BYTES or not self._more():
                raise self._broken("has a key without an end")
        self._at = match.end()
        return parse_json(match[0].decode(), f"A key of {self._label}")

    def _value(self, key: str) -> Any:
        """The value at the current position, up to the comma or brace after it."""
        where = f"{self._label}: the value of {shown(key)}"
        while True:
            data = np.frombuffer(self._data, dtype=np.uint8)[self._at :]
            at, kinds, depth = _structure(data)
            ends = np.flatnonzero((depth < 0) | ((depth == 0) & (kinds == _COMMA)))
            self._check_depth(depth[: ends[0]] if len(ends) else depth, where)
            end = int(at[ends[0]]) if len(ends) else len(data)
            if end > MAX_VALUE_BYTES:
                raise InputError(
                    f"{where} is longer than {MAX_VALUE_BYTES:,} bytes: only tables may be; remove it."
                )
            if len(ends):
                text = self._text(self._at, self._at + end)
                self._at += end
                return parse_json(text, where)
            if not self._more():
                raise self._truncated()

    def _rows(self, key: str | None) -> Iterator[pa.RecordBatch]:
        """The elements of the array that the current position is in, up to and past its closing bracket."""
        import pyarrow as pa

        where = self._label if key is None else f"{self._label}: {key}"
        number = 0
        while True:
            data = np.frombuffer(self._data, dtype=np.uint8)[self._at :]
            at, kinds, depth = _structure(data)
            outside = np.flatnonzero(depth < 0)
            tokens = int(outside[0]) if len(outside) else len(at)
            self._check_depth(depth[:tokens], where)
            stops = at[:tokens][(kinds[:tokens] == _COMMA) & (depth[:tokens] == 0)]
            if len(outside):
                close = int(at[tokens])
                if data[close] != _CLOSE:
                    raise self._broken(f"has a }} where {key or 'the list'} should end with ]")
                if number or len(stops) or not _SPACE.fullmatch(self._data, self._at, self._at + close):
                    stops = np.append(stops, close)
            if len(stops):
                starts = np.concatenate(([0], stops[:-1] + 1))
                self._check_elements(where, number, starts, stops, at, kinds)
                text = data[: stops[-1] + 1].copy()
                text[stops] = ord(" ")
                offsets = np.append(starts, stops[-1] + 1).astype(np.int32)
                elements = pa.StringArray.from_buffers(len(stops), pa.py_buffer(offsets), pa.py_buffer(text))
                positions = pa.array(np.arange(number, number + len(stops), dtype=np.int64))
                number += len(stops)
                yield pa.RecordBatch.from_arrays([positions, elements], ["position", "element"])
            if len(outside):
                self._at += int(at[tokens]) + 1
                return
            if len(stops):
                self._at += int(stops[-1]) + 1
            if len(self._data) - self._at > MAX_ROW_BYTES + BLOCK:
                raise self._too_long(where, number, len(self._data) - self._at)
            if not self._more():
                raise self._truncated(f" in {key or 'the list'}, after row {number:,}")

    # -- what is wrong -----------------------------------------------------------------------------------------------

    def _check_elements(
        self,
        where: str,
        number: int,
        starts: NDArray[np.int64],
        stops: NDArray[np.int64],
        at: NDArray[np.int64],
        kinds: NDArray[np.uint8],
    ) -> None:
        lengths = stops - starts
        if lengths.max() > MAX_ROW_BYTES:
            long = int(lengths.argmax())
            raise self._too_long(where, number + long, int(lengths[long]))
        first = np.searchsorted(at, starts)  # the first structural byte of an object is its brace
        wrong = np.flatnonzero((kinds[first] != _OPEN) | (at[first] >= stops))
        if len(wrong):
            row = int(wrong[0])
            text = self._text(self._at + int(starts[row]), self._at + int(stops[row])).strip()
            what = f"is {shown(text, 30)}" if text else "is empty"
            raise InputError(
                f"{where} row {number + row + 1:,} {what}, not an object in braces: correct the file."
            )

    def _too_long(self, where: str, row: int, length: int) -> InputError:
        return InputError(
            f"{where} row {row + 1:,} is longer than {MAX_ROW_BYTES:,} bytes ({length:,} or more): no row of a batch is that long."
        )

    def _check_depth(self, depth: NDArray[np.int32], where: str) -> None:
        if len(depth) and depth.max() > MAX_DEPTH:
            raise InputError(
                f"{where} is nested deeper than {MAX_DEPTH} levels: no batch is; correct the file."
            )

    def _broken(self, what: str) -> InputError:
        return InputError(f"{self._label} is not valid JSON: it {what} (byte {self._before + self._at:,}).")

    def _truncated(self, where: str = "") -> InputError:
        return InputError(
            f"{self._label} ends in the middle{where} (byte {self._before + len(self._data):,}): it is truncated; copy it again."
        )

    # -- bytes -------------------------------------------------------------------------------------------------------

    def _text(self, start: int, stop: int) -> str:
        return self._data[start:stop].decode(errors="replace")

    def _next_byte(self, at_end: bool = False) -> int | None:
        """The next byte that is no white space, not consumed; None at the end of the file, if that is allowed."""
        while True:
            match = _SPACE.match(self._data, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._data):
                return self._data[self._at]
            if not self._more():
                if at_end:
                    return None
                raise self._truncated()

    def _more(self) -> bool:
        """Read another block behind what is not consumed yet; False at the end of the file."""
        try:
            block = self._file.read(BLOCK)
        except OSError as error:
            raise InputError(f"{self._label} cannot be read to its end ({error.strerror}).") from None
        end = self._before + len(self._data)
        try:
            # Decoded only to be sure that it can be: neither Arrow nor DuckDB checks what is handed over.
            self._decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            pending = len(error.object) - len(block)
            raise InputError(
                f"{self._label} is not UTF-8 (byte 0x{error.object[error.start]:02x} at {end - pending + error.start:,}): save it as UTF-8."
            ) from None
        if not block:
            return False
        self._before += self._at
        self._data = self._data[self._at :] + block
        self._at = 0
        return True


def _structure(
    data: NDArray[np.uint8],
) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.int32]]:
    """Braces, brackets and commas outside strings: their positions, themselves, and the depth after each.

    `data` begins outside any string, at depth 0.
    """
    at = np.flatnonzero(_STRUCTURAL[data])
    kinds = data[at]
    slashes = kinds == ord("\\")
    if slashes.any():
        runs = at[slashes]
        begins = np.append(True, np.diff(runs) != 1)
        lengths = np.diff(np.append(np.flatnonzero(begins), len(runs)))
        after = runs[begins] + lengths
        # An odd run of backslashes escapes the byte after it, which then is no quote.
        escaped = after[lengths % 2 == 1]
        keep = ~slashes
        found = np.searchsorted(at, escaped)
        found = found[found < len(at)]
        found = found[np.isin(at[found], escaped)]
        keep[found] = False
        at, kinds = at[keep], kinds[keep]
    quotes = kinds == ord('"')
    keep = ~quotes & (np.cumsum(quotes) % 2 == 0)
    at, kinds = at[keep], kinds[keep]
    return at, kinds, np.cumsum(_STEP[kinds], dtype=np.int32)
