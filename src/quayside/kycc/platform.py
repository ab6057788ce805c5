"""What every verb of KYCC stands on: settings, the lake with its tables, a lock per batch, and which batch has what."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Final, Literal

from quayside.foundation.errors import NotFoundError
from quayside.foundation.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    import duckdb

    from quayside.kycc.kept_lake import KeptLake
    from quayside.kycc.versions import Versions

Need = Literal["loaded", "features", "scores", "labels"]

#: What a batch lacks, and how it gets it.
_MISSING: Final[dict[Need, tuple[str, str]]] = {
    "loaded": ("is loaded", "run ingest_job (quayside kycc ingest FILE) first"),
    "features": ("has features", "run feature_job (quayside kycc features) first"),
    "scores": ("has scores", "run scoring_job (quayside kycc score) first"),
    "labels": ("has labels", "run ml_training_job (quayside kycc labels) first"),
}


@dataclass(frozen=True)
class BatchRef:
    """One batch at one moment."""

    batch_id: str
    as_of: datetime


class Platform:
    """KYCC on one platform (one set of settings).

    Args:
        settings: the platform's settings; read from the environment when left out.
        guard: makes the lock held around one batch's work; a PostgreSQL advisory lock when left out. The fault harness
            takes it away to prove that it notices.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        guard: Callable[[str], AbstractContextManager[None]] | None = None,
    ) -> None:
        self.settings = settings or load_settings()
        self._guard = guard or self._advisory_lock

    # -- what the verbs stand on ---------------------------------------------------------------------------------

    def _advisory_lock(self, batch_id: str) -> AbstractContextManager[None]:
        from quayside.foundation.postgres import advisory_lock

        return advisory_lock(self.settings, f"kycc:batch:{batch_id}")

    @cached_property
    def lake(self) -> KeptLake:
        """The lake with KYCC's tables in it."""
        from quayside.foundation.migrations import SCHEMA as AUDIT_SCHEMA
        from quayside.foundation.postgres import ensure_schema
        from quayside.kycc import tables
        from quayside.kycc.features import TABLES as FEATURE_TABLES
        from quayside.kycc.kept_lake import KeptLake
        from quayside.kycc.schema import SCHEMA

        for schema in (AUDIT_SCHEMA, SCHEMA):
            ensure_schema(self.settings, schema)
        lake = KeptLake(self.settings)
        lake.ensure_tables([*tables.ALL, *FEATURE_TABLES])
        return lake

    @cached_property
    def versions(self) -> Versions:
        """The scorecard versions."""
        from quayside.kycc.versions import Versions

        return Versions(self.settings)

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """Within the block every verb works on one opened lake, instead of opening it anew each time.

        For the work of one run, not for the life of a server: when the catalog's connection is lost, open it again.
        """
        with self.lake.kept_open():
            yield

    @contextmanager
    def connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A DuckDB connection with the lake as its current catalog, closed at the end."""
        con = self.lake.connect()
        try:
            yield con
        finally:
            con.close()

    # -- batches and stages --------------------------------------------------------------------------------------

    def resolve(
        self, need: Need, batch_id: str | None, as_of: datetime | None, con: duckdb.DuckDBPyConnection
    ) -> BatchRef:
        """The batch to work on: the one named, else the last one that has what is needed.

        Raises:
            NotFoundError: there is none; the sentence says which step makes one.
        """
        loaded = (
            "SELECT batch_id, as_of, loaded_at AS moment FROM kycc.batches "
            "QUALIFY row_number() OVER (PARTITION BY batch_id ORDER BY loaded_at DESC) = 1"
        )
        stage = "SELECT batch_id, as_of, completed_at AS moment FROM kycc.stages WHERE stage = $need"
        if need == "loaded":
            sql, values = loaded, {}
        else:
            sql, values = stage, {"need": need}
        row = con.execute(
            f"SELECT batch_id, as_of FROM ({sql}) WHERE batch_id = coalesce($batch, batch_id) ORDER BY moment DESC LIMIT 1",  # noqa: S608 - fixed texts
            {**values, "batch": batch_id},
        ).fetchone()
        if row is None:
            missing = _MISSING[need]
            which = (
                f"No batch {missing[0]}"
                if batch_id is None
                else f"Batch {batch_id} not found among those where it {missing[0]}"
            )
            raise NotFoundError(f"{which}; {missing[1]}.")
        return BatchRef(row[0], as_of or row[1])

    @staticmethod
    def has_features(batch: BatchRef, con: duckdb.DuckDBPyConnection) -> bool:
        """Whether the batch's features as of that moment were computed from the rows it holds now."""
        return (
            con.execute(
                "SELECT 1 FROM kycc.stages WHERE batch_id = $batch AND stage = 'features' AND as_of = $as_of AND completed_at "
                "> (SELECT max(loaded_at) FROM kycc.batches WHERE batch_id = $batch)",
                {"batch": batch.batch_id, "as_of": batch.as_of},
            ).fetchone()
            is not None
        )

    @staticmethod
    def _record_stage(
        con: duckdb.DuckDBPyConnection, batch: BatchRef, stage: str, version: str, rows: int, fingerprint: str
    ) -> None:
        """Note that a stage of a batch is complete; a note that says the same already is left alone."""
        key = [batch.batch_id, stage, version]
        same = con.execute(
            "SELECT 1 FROM kycc.stages WHERE batch_id = ? AND stage = ? AND scorecard_version = ? AND as_of = ? "
            "AND rows = ? AND fingerprint = ?",
            [*key, batch.as_of, rows, fingerprint],
        ).fetchone()
        if same:
            return
        con.execute("DELETE FROM kycc.stages WHERE batch_id = ? AND stage = ? AND scorecard_version = ?", key)
        con.execute(
            "INSERT INTO kycc.stages VALUES (?, ?, ?, ?, ?, ?, ?)",
            [*key, batch.as_of, rows, fingerprint, datetime.now(UTC)],
        )
