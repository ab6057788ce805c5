"""Objects in a folder or on S3, by one small interface over obstore.

For files that systems leave for one another: incoming batches, exports, artefacts. Keys are relative, ``/``-separated
paths below the store's own prefix; none can lead out of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from quayside.foundation.errors import (
    ConflictError,
    InputError,
    NotFoundError,
    ServiceUnavailableError,
    SettingsError,
    UsageError,
    sentence,
)

if TYPE_CHECKING:
    from quayside.foundation.settings import Settings


@dataclass(frozen=True)
class S3Access:
    """How S3 is reached. ``endpoint`` is a URL, None for Amazon's own."""

    key_id: str
    secret: str
    session_token: str | None
    region: str
    endpoint: str | None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """From the settings.

        Raises:
            SettingsError: there are no credentials.
        """
        if settings.aws_access_key_id is None or settings.aws_secret_access_key is None:
            raise SettingsError(
                "S3 is asked for but AWS_ACCESS_KEY_ID or AWS_SECRET_ACCESS_KEY is not set: set both."
            )
        token = settings.aws_session_token
        return cls(
            settings.aws_access_key_id,
            settings.aws_secret_access_key.get_secret_value(),
            token.get_secret_value() if token is not None else None,
            settings.aws_region or "us-east-1",
            settings.aws_endpoint_url,
        )

    def options(self) -> dict[str, str]:
        """As object_store (obstore, delta-rs) names them. Creation on condition is left to the server (ETag)."""
        options = {
            "aws_access_key_id": self.key_id,
            "aws_secret_access_key": self.secret,
            "aws_region": self.region,
            "aws_conditional_put": "etag",
        }
        if self.session_token is not None:
            options["aws_session_token"] = self.session_token
        if self.endpoint is not None:
            options["aws_endpoint_url"] = self.endpoint
            options["aws_allow_http"] = str(self.endpoint.startswith("http://")).lower()
        return options

    def __repr__(self) -> str:
        return f"S3Access(key_id={self.key_id!r}, region={self.region!r}, endpoint={self.endpoint!r})"


@dataclass(frozen=True)
class StoredObject:
    """What a listing says of one object; `size` in bytes."""

    key: str
    size: int
    modified_at: datetime


class ObjectStore:
    """A folder or an ``s3://bucket/prefix``. Made once, usable from any thread."""

    def __init__(self, url: str, settings: Settings, *, timeout: timedelta = timedelta(minutes=3)) -> None:
        """Open a store; a folder is made when missing. `timeout`: how long S3 is asked again before it counts as away.

        Raises:
            SettingsError: S3 without credentials.
            UsageError: neither a folder nor ``s3://bucket/prefix``.
        """
        from obstore.store import LocalStore, S3Store

        self.url = url
        if url.startswith("s3://"):
            parts = urlsplit(url)
            if not parts.netloc:
                raise UsageError(f"{url} names no bucket: give s3://bucket/prefix.")
            config: Any = S3Access.of(settings).options()
            self._store: LocalStore | S3Store = S3Store(
                parts.netloc,
                prefix=parts.path.strip("/") or None,
                config=config,
                retry_config={"retry_timeout": timeout},
            )
        elif "://" in url and not url.startswith("file://"):
            raise UsageError(f"{url} is neither a folder nor s3://bucket/prefix.")
        else:
            folder = Path(url.removeprefix("file://")).expanduser().resolve()
            self._store = LocalStore(folder, automatic_cleanup=True, mkdir=True)

    def put(self, key: str, data: bytes | Path | IO[bytes], *, create: bool = False) -> None:
        """Store bytes, or the content of a file (by path, or open in binary mode), as a whole. With `create` an existing object is left alone.

        Raises:
            ConflictError: `create`, and the object exists.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError, BaseError

        try:
            obstore.put(self._store, _checked(key), data, mode="create" if create else "overwrite")
        except AlreadyExistsError:
            raise ConflictError(f"{key} exists in {self.url} already and was to be created.") from None
        except BaseError as error:
            raise self._unavailable(key, error) from error

    def get(self, key: str) -> bytes:
        """Content of one object.

        Raises:
            NotFoundError: there is none of that name.
        """
        import obstore
        from obstore.exceptions import BaseError

        try:
            return obstore.get(self._store, _checked(key)).bytes().to_bytes()
        except FileNotFoundError:
            raise NotFoundError(f"There is no {key} in {self.url}.") from None
        except BaseError as error:
            raise self._unavailable(key, error) from error

    def download(self, key: str, into: IO[bytes]) -> int:
        """Write the content of one object to an open file, piece by piece; its size in bytes.

        Raises:
            NotFoundError: there is none of that name.
        """
        import obstore
        from obstore.exceptions import BaseError

        try:
            return sum(into.write(piece) for piece in obstore.get(self._store, _checked(key)).stream())
        except FileNotFoundError:
            raise NotFoundError(f"There is no {key} in {self.url}.") from None
        except BaseError as error:
            raise self._unavailable(key, error) from error

    def exists(self, key: str) -> bool:
        """Whether there is an object of that name."""
        import obstore
        from obstore.exceptions import BaseError

        try:
            obstore.head(self._store, _checked(key))
        except FileNotFoundError:
            return False
        except BaseError as error:
            raise self._unavailable(key, error) from error
        return True

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Every object below a prefix, page by page, in no promised order."""
        import obstore
        from obstore.exceptions import BaseError

        try:
            for page in obstore.list(self._store, prefix=_checked(prefix) if prefix else None):
                for found in page:
                    yield StoredObject(found["path"], found["size"], found["last_modified"])
        except BaseError as error:
            raise self._unavailable(prefix or "/", error) from error

    def delete(self, key: str) -> None:
        """Remove one object; it is no error when there is none."""
        import obstore
        from obstore.exceptions import BaseError

        try:
            obstore.delete(self._store, _checked(key))
        except FileNotFoundError:
            return
        except BaseError as error:
            raise self._unavailable(key, error) from error

    def presigned_url(self, key: str, expires_in: timedelta) -> str:
        """A URL with which anybody can read one object on S3 until it expires.

        Raises:
            UsageError: the store is a folder.
        """
        import obstore
        from obstore.store import LocalStore

        if isinstance(self._store, LocalStore):
            raise UsageError(f"{self.url} is a folder: only objects on S3 have presigned URLs.")
        return obstore.sign(self._store, "GET", _checked(key), expires_in)

    def _unavailable(self, key: str, error: Exception) -> ServiceUnavailableError:
        return ServiceUnavailableError(
            f"{key} in {self.url} cannot be reached: {sentence(error).rstrip('.')}."
        )


def _checked(key: str) -> str:
    parts = key.split("/")
    if key.startswith("/") or any(part in ("", ".", "..") for part in parts) or "\\" in key:
        raise InputError(f"{key!r} is not a key: give a relative path without empty, '.' or '..' parts.")
    if any(ord(character) < 32 for character in key):
        raise InputError(f"{key!r} is not a key: it contains control characters.")
    return key
