"""JSON documents from a folder or over HTTP: what the shipped clients read. Numbers stay exact: no float comes out."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

from quayside.foundation.errors import NotFoundError, ServiceUnavailableError, sentence
from quayside.foundation.secrets import redact
from quayside.robosystems.adapters.protocol import AdapterError

TIMEOUT_SECONDS: Final = 60
#: A document beyond this is a mistake, or an attack on our memory.
MAX_BYTES: Final = 512 * 2**20


def is_url(source: str) -> bool:
    """Whether a source is reached over HTTP."""
    return source.startswith(("http://", "https://"))


def folder_of(source: str) -> Path:
    """The folder that a source names. Raises: NotFoundError: it is none."""
    folder = Path(source.removeprefix("file://")).expanduser()
    if not folder.is_dir():
        raise NotFoundError(
            f"{source} is no folder: name one, or a URL that begins with http:// or https://."
        )
    return folder


def parse(content: bytes, where: str) -> Any:
    """A JSON document; numbers with a fraction as `Decimal`. Raises: AdapterError."""
    try:
        return json.loads(content, parse_float=Decimal, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"{where} is not JSON: {sentence(error)}.") from None


def read_file(path: Path) -> bytes:
    """Content of a file. Raises: AdapterError: it is too large or cannot be read."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise AdapterError(f"{path.name} has more than {MAX_BYTES >> 20} MB.")
        return path.read_bytes()
    except OSError as error:
        raise AdapterError(f"{path.name} cannot be read: {error.strerror}.") from None


def fetch(url: str, headers: Mapping[str, str] | None = None, body: Mapping[str, Any] | None = None) -> bytes:
    """Content at a URL; with a body it is posted as JSON.

    Raises:
        NotFoundError: the server says there is nothing (404).
        ServiceUnavailableError: it does not answer, is busy (429) or broken (5xx).
        AdapterError: it refuses the request.
    """
    if not is_url(url):
        raise AdapterError(f"{redact(url)} is no http:// or https:// URL.")
    data = None if body is None else json.dumps(body).encode()
    sent = {"Accept": "application/json", **(headers or {})} | (
        {"Content-Type": "application/json"} if data else {}
    )
    try:
        request = urllib.request.Request(url, data=data, headers=sent)  # noqa: S310 - http and https only, see above
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 - the same
            content = answer.read(MAX_BYTES + 1)
    except urllib.error.HTTPError as error:
        with error:
            shown = f"{redact(url)} answers {error.code} {error.reason}"
        if error.code == 404:
            raise NotFoundError(f"{shown}.") from None
        if error.code in (408, 425, 429) or error.code >= 500:
            raise ServiceUnavailableError(f"{shown}: try again later.") from None
        raise AdapterError(f"{shown}: look at the credentials and the address.") from None
    except (OSError, ValueError) as error:
        raise ServiceUnavailableError(f"{redact(url)} does not answer: {redact(sentence(error))}.") from None
    if len(content) > MAX_BYTES:
        raise AdapterError(f"{redact(url)} sends more than {MAX_BYTES >> 20} MB.")
    return content


def cents(amount: Any, what: str) -> int:
    """An amount of money as whole cents. Raises: AdapterError: it is none, or has fractions of a cent."""
    try:
        exact = Decimal(str(amount)) * 100
        if exact.is_finite() and exact == exact.to_integral_value() and abs(exact) < 2**63:
            return int(exact)
    except InvalidOperation:
        pass
    raise AdapterError(f"{what} is {amount!r}: an amount has at most two decimals.")


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a number")
