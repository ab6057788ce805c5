"""Secrets by name, and their removal from text.

Configuration never holds a secret, only its name: ``env:NAME`` or ``file:/path``. `resolve` turns a name into a
`SecretStr`; `redact` takes every secret this process has met, and everything that looks like one, out of a text before
that text is logged, stored or sent. Belongs here: nothing that knows what a secret is for.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from quayside.foundation.errors import SettingsError

if TYPE_CHECKING:
    from quayside.foundation.settings import Settings

MASK: Final = "***"
#: A file named as a secret is a key or a token; anything larger is a mistake.
MAX_FILE_BYTES: Final = 64 * 1024
#: Shorter values ("a", "1234") would blank out ordinary words wherever they occur.
_MIN_LENGTH: Final = 6

_known: set[str] = set()

#: What looks like a secret, whoever brought it: the part called ``keep`` stays so that the text can still be read.
_PATTERNS: Final[tuple[re.Pattern[str], ...]] = (
    re.compile(r"(?P<keep>\b[a-z][a-z0-9+.-]*://[^\s/:@'\"]*:)[^\s/@'\"]+(?=@)", re.IGNORECASE),
    re.compile(r"(?P<keep>https?://hooks\.slack(?:-gov)?\.com/)[^\s'\"<>|]+", re.IGNORECASE),
    re.compile(r"(?P<keep>\bxox[a-z]-)[A-Za-z0-9-]+"),
    re.compile(r"(?P<keep>\bAKIA)[A-Z0-9]{12,}"),
    re.compile(r"(?P<keep>\bBearer\s+)[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE),
    re.compile(
        r"(?P<keep>\b[\w-]*(?:password|passwd|secret|token|api_?key)['\"]?\s*[=:]\s*['\"]?)(?!\*\*\*)[^\s'\",;&}]+",
        re.IGNORECASE,
    ),
)


def resolve(name: str) -> SecretStr:
    """The secret called ``env:NAME`` or ``file:/path``; from now on `redact` removes it. Raises as `look_up` does."""
    secret = look_up(name)
    remember(secret)
    return secret


def look_up(name: str) -> SecretStr:
    """As `resolve`, for a caller that knows which of the values it finds are secret and will `remember` those.

    One trailing line break of a file is dropped, as editors and ``kubectl`` add one.

    Raises:
        SettingsError: the name has another form, or nothing usable is there. The message never holds a value.
    """
    scheme, _, target = name.partition(":")
    if scheme == "env" and target:
        value = os.environ.get(target, "")
        if not value:
            raise SettingsError(f"Secret env:{target} is not set; export the variable {target}.")
    elif scheme == "file" and target:
        value = _read(Path(target))
    else:
        # What was given is not repeated: it may be the secret itself, pasted where its name belongs.
        raise SettingsError("A secret is named env:NAME or file:/path; what was given has neither form.")
    return SecretStr(value)


def _read(path: Path) -> str:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILE_BYTES:
            raise SettingsError(
                f"Secret file:{path} is not a regular file of at most {MAX_FILE_BYTES} bytes."
            )
        value = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"Secret file:{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise SettingsError(f"Secret file:{path} is not UTF-8 text.") from None
    value = value.removesuffix("\n").removesuffix("\r")
    if not value:
        raise SettingsError(f"Secret file:{path} is empty.")
    return value


def remember(secret: SecretStr) -> None:
    """From now on `redact` removes this value, and the password in it when it is a URL."""
    value = secret.get_secret_value()
    try:
        password = urlsplit(value).password if "://" in value else None
    except ValueError:  # not a URL after all; the value itself is remembered either way
        password = None
    candidates = {value, *([password, unquote(password)] if password else [])}
    _known.update(text for text in candidates if len(text) >= _MIN_LENGTH)


def remember_all(settings: Settings) -> None:
    """`remember` every secret among the settings."""
    for field in type(settings).model_fields:
        value = getattr(settings, field)
        if isinstance(value, SecretStr):
            remember(value)


def redact(text: str) -> str:
    """The text with known secrets, and what looks like one, replaced by ``***``."""
    # Longest first, so that a secret that contains another is replaced as a whole.
    for value in sorted(_known, key=len, reverse=True):
        text = text.replace(value, MASK)
    for pattern in _PATTERNS:
        text = pattern.sub(rf"\g<keep>{MASK}", text)
    return text
