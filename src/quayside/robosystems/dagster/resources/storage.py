"""``S3Resource``: files on S3, or in a folder where there is no S3."""

from __future__ import annotations

from datetime import timedelta
from typing import IO, TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from quayside.foundation.settings import load_settings

if TYPE_CHECKING:
    from quayside.foundation.objects import ObjectStore


class S3Resource(dg.ConfigurableResource):
    """Objects by key. AWS_ENDPOINT_URL leads to any S3; the default is a folder in QUAYSIDE_HOME."""

    bucket_name: str = Field(default="", description="A bucket; left out, QUAYSIDE_OBJECTS_URL decides.")

    def store(self) -> ObjectStore:
        """The plain store, for domain code."""
        from quayside.robosystems.storage import object_store

        return object_store(load_settings(), self.bucket_name)

    def upload_file(self, file_obj: IO[bytes], key: str) -> str:
        """Store an open binary file, read from where it stands, as a whole; the URL of the object."""
        store = self.store()
        store.put(key, file_obj)
        return f"{store.url.rstrip('/')}/{key}"

    def download_file(self, key: str, file_obj: IO[bytes]) -> int:
        """Write an object into an open binary file; its size in bytes.

        Raises:
            NotFoundError: there is none of that name.
        """
        return self.store().download(key, file_obj)

    def list_objects(self, prefix: str = "") -> list[dict[str, Any]]:
        """``key``, ``size`` (bytes) and ``last_modified`` of every object below a prefix, ordered by key."""
        found = sorted(self.store().list(prefix), key=lambda each: each.key)
        return [{"key": o.key, "size": o.size, "last_modified": o.modified_at} for o in found]

    def get_presigned_url(self, key: str, expiration: int = 3600) -> str:
        """A URL with which anybody can read one object for `expiration` seconds.

        Raises:
            UsageError: the files are in a folder, which has no such URLs.
        """
        return self.store().presigned_url(key, timedelta(seconds=expiration))
