"""The log of one Delta table: what the table is now, and one more commit of it, all or nothing.

delta-rs reads the log and writes its checkpoints. The commits themselves are written here, since a load's commit takes
files away by name, adds others, and carries the load's state, all in one; delta-rs has no such call. A commit is a
file that is created only where there is none of its number, which folders and S3 both can do. Belongs here: the
protocol. Does not belong here: which rows are in the files, and what a state means.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from quayside.foundation.errors import ConflictError, NotFoundError, PermanentError, ServiceUnavailableError
from quayside.foundation.lake.sql import reason
from quayside.foundation.objects import ObjectStore, S3Access

if TYPE_CHECKING:
    from deltalake import DeltaTable

    from quayside.foundation.settings import Settings

#: After so many commits delta-rs writes a checkpoint, so that a reader never reads more entries than that.
CHECKPOINT_INTERVAL: Final = 10

#: What a table may ask of its writers for our commits to be right; others (deletion vectors, column mapping, row
#: tracking …) are refused. ``timestampNtz`` is asked of readers as well.
_FEATURES: Final = frozenset({"timestampNtz", "appendOnly", "invariants"})
_APP: Final = "quayside.dataloader"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataFile:
    """A Parquet file of the table. `path` is relative to the table; `stats` is Delta's JSON, for new files only."""

    path: str
    size: int
    rows: int
    stats: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """A version of the table: its schema in Delta's JSON, its files, and its properties."""

    version: int
    table_id: str
    schema: dict[str, Any]
    files: Sequence[DataFile]
    properties: Mapping[str, str]
    created_at_ms: int

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)


@dataclass(frozen=True)
class Commit:
    """What one commit changes; `config_id` and `attempt` go into its application transaction."""

    operation: str
    config_id: int
    attempt: int
    schema: dict[str, Any]
    properties: Mapping[str, str]
    add: Sequence[DataFile] = ()
    remove: Sequence[DataFile] = ()
    figures: Mapping[str, int] = field(default_factory=dict)


class DeltaLog:
    """The log below `url`, an absolute folder or an ``s3://`` address."""

    def __init__(self, settings: Settings, url: str) -> None:
        self.url = url
        self.storage_options = S3Access.of(settings).options() if url.startswith("s3://") else None
        self._settings = settings
        self._table: DeltaTable | None = None
        self._opened: ObjectStore | None = None

    @property
    def store(self) -> ObjectStore:
        """The table's folder; it is made when missing."""
        if self._opened is None:
            self._opened = ObjectStore(self.url, self._settings)
        return self._opened

    def snapshot(self) -> Snapshot | None:
        """The current version; None where there is no table.

        Raises:
            PermanentError: the table was made or changed by others so that our commits would break it.
            ServiceUnavailableError: the log cannot be read.
        """
        from deltalake.exceptions import DeltaError, TableNotFoundError

        try:
            table = self._newest()
        except TableNotFoundError:
            self._table = None
            return None
        except (DeltaError, OSError) as error:
            self._table = None
            raise ServiceUnavailableError(
                f"The log of {self.url} cannot be read: {reason(error)}."
            ) from error
        self._check_protocol(table)
        metadata = table.metadata()
        if metadata.partition_columns:
            raise PermanentError(
                f"{self.url} is partitioned by {', '.join(metadata.partition_columns)}, which loads do not keep: "
                "choose another destination table, or drop this one."
            )
        actions = table.get_add_actions(flatten=True)
        values = (actions.column(name).to_pylist() for name in ("path", "size_bytes", "num_records"))
        files = []
        for path, size, rows in zip(*values, strict=True):
            if rows is None:
                raise PermanentError(
                    f"A file of {self.url} does not say how many rows it has, so that nothing written to it "
                    "could be checked: rewrite the table with statistics, or drop it."
                )
            files.append(DataFile(path, int(size), int(rows)))
        return Snapshot(
            version=table.version(),
            table_id=str(metadata.id),
            schema=json.loads(table.schema().to_json()),
            files=files,
            properties=dict(metadata.configuration),
            created_at_ms=metadata.created_time or 0,
        )

    def commit(self, base: Snapshot | None, commit: Commit) -> bool:
        """Write the commit that follows `base`; False when somebody else's has that number already.

        Raises:
            ServiceUnavailableError: it is not known whether the commit took place.
        """
        version = 0 if base is None else base.version + 1
        token = uuid.uuid4().hex
        key = _entry(version)
        content = "\n".join(
            json.dumps(action, ensure_ascii=False) for action in self._actions(base, commit, token)
        )
        try:
            self.store.put(key, content.encode() + b"\n", create=True)
        except (ConflictError, ServiceUnavailableError) as error:
            # The store may have created the object and lost the answer: then the entry is ours.
            if not self._is_ours(key, token, error):
                return False
        return True

    def files_with_stats(self, prefix: str) -> list[DataFile]:
        """The files of the current version with their statistics, their paths behind `prefix`: for another's log."""
        actions = self._newest().get_add_actions(flatten=True)
        names = {"min.": "minValues", "max.": "maxValues", "null_count.": "nullCount"}
        rows = zip(*(actions.column(name).to_pylist() for name in actions.column_names), strict=True)
        files = []
        for row in (dict(zip(actions.column_names, values, strict=True)) for values in rows):
            stats: dict[str, Any] = {kind: {} for kind in names.values()}
            for name, value in row.items():
                start = next((start for start in names if name.startswith(start)), None)
                if start is not None and value is not None:
                    stats[names[start]][name.removeprefix(start)] = _plain(value)
            files.append(
                DataFile(prefix + row["path"], int(row["size_bytes"]), int(row["num_records"]), stats)
            )
        return files

    def forget(self) -> None:
        """Take the log away and leave the files: they are another table's."""
        # The newest entry first: stopped half way, it is an older version of the table, and never a broken one.
        for key in sorted((found.key for found in self.store.list("_delta_log")), reverse=True):
            self.store.delete(key)
        self._table = None

    def drop(self, kept: Set[str] = frozenset()) -> None:
        """Take the log away, and then every file but those `kept`, which are another table's as well."""
        self.forget()
        for key in [found.key for found in self.store.list()]:
            if key not in kept:
                self.store.delete(key)

    def tidy(self, version: int) -> None:
        """Now and then, write a checkpoint and take away entries that are older than the table keeps them.

        The commit is through by then, so a failure is told to the log and is made up for by the next one.
        """
        if version == 0 or version % CHECKPOINT_INTERVAL:
            return
        from deltalake.exceptions import DeltaError

        try:
            table = self._newest()
            table.create_checkpoint()
            table.cleanup_metadata()
        except (DeltaError, OSError) as error:
            logger.warning("No checkpoint of %s at version %d: %s.", self.url, version, reason(error))

    def _newest(self) -> DeltaTable:
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError

        if self._table is not None:
            try:
                self._table.update_incremental()
                if self.store.exists(_entry(self._table.version())):  # otherwise dropped meanwhile
                    return self._table
            except DeltaError as error:
                logger.info("The log of %s is read anew: %s.", self.url, reason(error))
        self._table = DeltaTable(self.url, storage_options=self.storage_options)
        return self._table

    def _check_protocol(self, table: DeltaTable) -> None:
        protocol = table.protocol()
        asked = {*(protocol.reader_features or ()), *(protocol.writer_features or ())}
        old = protocol.min_reader_version <= 1 and protocol.min_writer_version <= 2
        if not old and (protocol.min_writer_version != 7 or asked - _FEATURES):
            wanted = ", ".join(sorted(asked - _FEATURES)) or f"writer version {protocol.min_writer_version}"
            raise PermanentError(
                f"{self.url} uses {wanted} of Delta, which loads cannot write: switch it off for this table, or "
                "choose another destination."
            )
        rules = {"an invariant of a column": '"delta.invariants"' in table.schema().to_json()}
        rules["delta.appendOnly"] = table.metadata().configuration.get("delta.appendOnly") == "true"
        if forbidden := [name for name, present in rules.items() if present]:
            raise PermanentError(
                f"{self.url} has {' and '.join(forbidden)}, which loads cannot keep: take it off this table, or "
                "choose another destination."
            )

    def _actions(self, base: Snapshot | None, commit: Commit, token: str) -> list[dict[str, Any]]:
        now = time.time_ns() // 1_000_000
        needs_ntz = '"timestamp_ntz"' in json.dumps(commit.schema)
        had_ntz = base is not None and '"timestamp_ntz"' in json.dumps(base.schema)
        actions: list[dict[str, Any]] = [
            {
                "commitInfo": {
                    "timestamp": now,
                    "operation": commit.operation,
                    "operationParameters": {"mode": "Overwrite" if base is None else "Append"},
                    "operationMetrics": {name: str(value) for name, value in commit.figures.items()},
                    "engineInfo": _APP,
                    "txnId": token,
                    "isBlindAppend": False,
                }
            }
        ]
        if base is None or (needs_ntz and not had_ntz):
            features = ["timestampNtz", "appendOnly", "invariants"]
            actions.append(
                {
                    "protocol": {
                        "minReaderVersion": 3,
                        "minWriterVersion": 7,
                        "readerFeatures": features[:1],
                        "writerFeatures": features,
                    }
                    if needs_ntz
                    else {"minReaderVersion": 1, "minWriterVersion": 2}
                }
            )
        actions.append(
            {
                "metaData": {
                    "id": base.table_id if base else str(uuid.uuid4()),
                    "format": {"provider": "parquet", "options": {}},
                    "schemaString": json.dumps(commit.schema, ensure_ascii=False),
                    "partitionColumns": [],
                    "configuration": dict(commit.properties),
                    "createdTime": base.created_at_ms if base else now,
                }
            }
        )
        actions.append(
            {"txn": {"appId": f"{_APP}:{commit.config_id}", "version": commit.attempt, "lastUpdated": now}}
        )
        actions += [{"remove": _removed(file, now)} for file in commit.remove]
        actions += [{"add": _added(file, now)} for file in commit.add]
        return actions

    def _is_ours(self, key: str, token: str, error: Exception) -> bool:
        try:
            entry = self.store.get(key)
        except NotFoundError:
            raise ServiceUnavailableError(
                f"{self.url} could not be committed to and is unchanged: {reason(error)}."
            ) from error
        except ServiceUnavailableError:
            raise ServiceUnavailableError(
                f"{self.url} does not answer during a commit, so whether it took place is not known: the next "
                "attempt starts from what the table says."
            ) from error
        first = json.loads(entry.splitlines()[0])
        return first.get("commitInfo", {}).get("txnId") == token


def _plain(value: Any) -> Any:
    """A bound as JSON: what `delta_files` wrote, as delta-rs gives it back."""
    if isinstance(value, datetime):
        text = value.replace(tzinfo=None).isoformat(timespec="microseconds")
        return f"{text}Z" if value.tzinfo else text
    if isinstance(value, date):
        return value.isoformat()
    return float(value) if isinstance(value, Decimal) else value


def _entry(version: int) -> str:
    return f"_delta_log/{version:020}.json"


def _removed(file: DataFile, now: int) -> dict[str, Any]:
    return {
        "path": file.path,
        "deletionTimestamp": now,
        "dataChange": True,
        "extendedFileMetadata": True,
        "partitionValues": {},
        "size": file.size,
    }


def _added(file: DataFile, now: int) -> dict[str, Any]:
    return {
        "path": file.path,
        "partitionValues": {},
        "size": file.size,
        "modificationTime": now,
        "dataChange": True,
        "stats": json.dumps({"numRecords": file.rows, **file.stats}, ensure_ascii=False),
    }
