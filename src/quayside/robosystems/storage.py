"""Where RoboSystems keeps files: reports, backups, what customers upload. A folder, or S3.

Belongs here: which store is meant, and the layout of keys in it. What is in the files does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from quayside.foundation.objects import ObjectStore
    from quayside.foundation.settings import Settings

#: What a graph's customer uploaded; its bytes are metered.
FILES_PREFIX: Final = "graph-files"
#: Parquet files that wait to be loaded into a graph; metered too.
TABLES_PREFIX: Final = "graph-tables"
BACKUPS_PREFIX: Final = "graph-backups"


def object_store(settings: Settings, bucket: str = "") -> ObjectStore:
    """The store of QUAYSIDE_OBJECTS_URL (default: a folder in QUAYSIDE_HOME), or a bucket by its name.

    Raises:
        SettingsError: S3 is meant and there are no credentials.
    """
    from quayside.foundation.objects import ObjectStore

    return ObjectStore(f"s3://{bucket}" if bucket else settings.objects_path, settings)
