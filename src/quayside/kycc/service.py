"""The few verbs of KYCC, as one object: ingest, extract, score, explain.

`ScoringService` is what the command line, the Dagster assets and a notebook all call. Each verb holds the batch's
advisory lock while it checks and writes, so that two runs of one batch end as one, and commits once, so that a killed
run leaves either everything or nothing.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Literal

from quayside.foundation.errors import NotFoundError
from quayside.foundation.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    import duckdb

    from quayside.foundation.lake import Lake
    from quayside.kycc.features import Extraction
    from quayside.kycc.ingest import IngestResult
    from quayside.kycc.scorecard import Explanation
    from quayside.kycc.scoring import ScoreSummary, Written

Need = Literal["loaded", "features", "scores"]
Group = Literal["kyc", "transaction", "network"]

HOW_TO_GENERATE: Final = "quayside kycc generate --out"


@dataclass(frozen=True)
class BatchRef:
    """One batch at one moment."""

    batch_id: str
    as_of: datetime


@dataclass(frozen=True)
class ScoreResult:
    """What `ScoringService.score` did."""

    batch: BatchRef
    version: str
    written: Written
    mirrored: bool
    summary: ScoreSummary
    seconds: float


class ScoringService:
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
    def lake(self) -> Lake:
        """The lake with KYCC's tables in it."""
        from quayside.foundation.lake import Lake
        from quayside.foundation.migrations import SCHEMA as AUDIT_SCHEMA
        from quayside.foundation.postgres import ensure_schema
        from quayside.kycc import tables
        from quayside.kycc.features import TABLES as FEATURE_TABLES
        from quayside.kycc.schema import SCHEMA

        for schema in (AUDIT_SCHEMA, SCHEMA):
            ensure_schema(self.settings, schema)
        lake = Lake(self.settings)
        lake.ensure_tables([*tables.ALL, *FEATURE_TABLES])
        return lake

    @contextmanager
    def connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A DuckDB connection with the lake as its current catalog, closed at the end."""
        con = self.lake.connect()
        try:
            yield con
        finally:
            con.close()

    # -- the verbs -----------------------------------------------------------------------------------------------

    def ingest(self, source: Path | str, batch_id: str | None = None, **options: Any) -> IngestResult:
        """Load one batch file, Parquet folder or lake schema; see `quayside.kycc.ingest.ingest` for the options."""
        from quayside.kycc.ingest import ingest

        return ingest(self.lake, source, batch_id=batch_id, guard=self._guard, **options)

    def extract(
        self,
        batch_id: str | None = None,
        as_of: datetime | None = None,
        groups: tuple[Group, ...] | None = None,
    ) -> dict[str, Extraction]:
        """Compute features of a batch as of a moment.

        Args:
            batch_id: the last batch loaded when left out.
            as_of: the batch's own moment (``generated_at``) when left out.
            groups: which of ``kyc``, ``transaction``, ``network`` to compute; all, and their join, when left out.

        Returns:
            A result per group, and under ``features`` that of the wide table when it was made.
        """
        with self.connection() as con:
            batch = self.resolve("loaded", batch_id, as_of, con)
            with self._guard(batch.batch_id):
                results = {
                    group: self._extract(con, batch, group)
                    for group in groups or ("kyc", "transaction", "network")
                }
                if groups is None:
                    results["features"] = self._join(con, batch)
        return results

    def join(self, batch_id: str | None = None, as_of: datetime | None = None) -> Extraction:
        """Join the three groups of a batch, computed before, into the wide table."""
        with self.connection() as con:
            batch = self.resolve("loaded", batch_id, as_of, con)
            with self._guard(batch.batch_id):
                return self._join(con, batch)

    def score(
        self, batch_id: str | None = None, as_of: datetime | None = None, scorecard_version: str = "v1"
    ) -> ScoreResult:
        """Score a batch whose features are computed (the last such batch when none is named)."""
        from quayside.foundation import audit
        from quayside.foundation.postgres import connect
        from quayside.kycc.scorecard import load_scorecard
        from quayside.kycc.scoring import mirror_scores, read_features, scored_rows, summarise, write_scores

        started = perf_counter()
        card = load_scorecard(scorecard_version)
        with self.connection() as con:
            batch = self.resolve("features", batch_id, as_of, con)
            with self._guard(batch.batch_id):
                features = read_features(con, batch.batch_id, batch.as_of, card)
                scored = scored_rows(features, card)
                now = datetime.now(UTC)

                def write(con: duckdb.DuckDBPyConnection) -> Written:
                    written = write_scores(con, batch.batch_id, batch.as_of, card, features, scored, now)
                    if written.added or written.changed or written.removed:
                        self._record_stage(
                            con, batch, "scores", card.version, written.rows, written.fingerprint
                        )
                    return written

                written = self.lake.transaction(write, con)
                with connect(self.settings) as postgres:
                    mirrored = mirror_scores(con, postgres, batch.batch_id, card.version, written.fingerprint)
                    if written.changed or written.removed:
                        audit.record(
                            postgres,
                            actor=audit.actor(),
                            action="rescored",
                            subject_type="batch",
                            subject=batch.batch_id,
                            details={
                                "scorecard_version": card.version,
                                "changed": written.changed,
                                "removed": written.removed,
                                "added": written.added,
                            },
                        )
                    postgres.commit()
                summary = summarise(con, batch.batch_id, card.version)
        return ScoreResult(batch, card.version, written, mirrored, summary, perf_counter() - started)

    def explain(
        self, party_id: str, batch_id: str | None = None, scorecard_version: str | None = None
    ) -> tuple[dict[str, Any], Explanation]:
        """The stored score row of a party and how each of its points came about.

        Args:
            batch_id, scorecard_version: the party's newest score when left out.
        """
        import json

        from quayside.foundation.postgres import connect
        from quayside.kycc.scorecard import explain, load_scorecard

        _ = self.lake
        with connect(self.settings) as postgres:
            found = postgres.execute(
                """
                SELECT batch_id, scorecard_version FROM kycc.score_requests
                WHERE party_id = %s AND batch_id = coalesce(%s, batch_id)
                  AND scorecard_version = coalesce(%s, scorecard_version)
                ORDER BY created_at DESC, batch_id DESC LIMIT 1
                """,
                (party_id, batch_id, scorecard_version),
            ).fetchone()
        if found is None:
            where = f" in batch {batch_id}" if batch_id else ""
            raise NotFoundError(
                f"Party {party_id!r} has no score{where}. Score its batch first: quayside kycc score."
            )
        with self.connection() as con:
            cursor = con.execute(
                "SELECT * FROM kycc.scores WHERE batch_id = ? AND scorecard_version = ? AND party_id = ?",
                [*found, party_id],
            )
            names = [column[0] for column in cursor.description or ()]
            row = dict(zip(names, cursor.fetchone() or (), strict=True))
        row["features"] = json.loads(row["features"])
        return row, explain(load_scorecard(found[1]), row["features"])

    def batches(self) -> list[dict[str, Any]]:
        """Every batch, newest first: when it was loaded, its size, and which stages it has."""
        with self.connection() as con:
            cursor = con.execute(
                """
                SELECT b.batch_id, b.as_of, b.loaded_at, (b.rows_kept->>'parties')::BIGINT AS parties,
                       (b.rows_kept->>'transactions')::BIGINT AS transactions,
                       bool_or(s.stage = 'features') IS TRUE AS has_features,
                       coalesce(list_sort(list(DISTINCT s.scorecard_version) FILTER (s.stage = 'scores')), []) AS scored_by
                FROM (SELECT * FROM kycc.batches QUALIFY row_number() OVER (PARTITION BY batch_id ORDER BY loaded_at DESC) = 1) b
                LEFT JOIN kycc.stages s USING (batch_id)
                GROUP BY ALL ORDER BY b.loaded_at DESC
                """
            )
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def quarantine(self, batch_id: str | None = None, limit: int = 20) -> list[dict[str, Any]]:
        """Rows that were not loaded, by batch and position, each with its reason."""
        with self.connection() as con:
            cursor = con.execute(
                "SELECT batch_id, table_name, row_number, row_key, reason, detail FROM kycc.quarantine "
                "WHERE batch_id = coalesce(?, batch_id) ORDER BY ALL LIMIT ?",
                [batch_id, limit],
            )
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

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
            missing = {
                "loaded": ("is loaded", "run ingest_job (quayside kycc ingest FILE) first"),
                "features": ("has features", "run feature_job (quayside kycc features) first"),
                "scores": ("has scores", "run scoring_job (quayside kycc score) first"),
            }[need]
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

    def _extract(self, con: duckdb.DuckDBPyConnection, batch: BatchRef, group: Group) -> Extraction:
        from quayside.kycc import features

        extract = {
            "kyc": features.extract_kyc,
            "transaction": features.extract_transactions,
            "network": features.extract_network,
        }[group]
        return self.lake.transaction(lambda con: extract(con, batch.batch_id, batch.as_of), con)

    def _join(self, con: duckdb.DuckDBPyConnection, batch: BatchRef) -> Extraction:
        from quayside.kycc.features import extract_features, publish_definitions

        def write(con: duckdb.DuckDBPyConnection) -> Extraction:
            result = extract_features(con, batch.batch_id, batch.as_of)
            publish_definitions(con)
            self._record_stage(con, batch, "features", "", result.rows, "")
            return result

        return self.lake.transaction(write, con)

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
