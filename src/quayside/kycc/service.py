"""The few verbs of KYCC, as one object: ingest, extract, score, explain.

`ScoringService` is what the command line, the Dagster assets and a notebook all call. Each verb holds the batch's
advisory lock while it checks and writes, so that two runs of one batch end as one, and commits once, so that a killed
run leaves either everything or nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Literal

from quayside.foundation.errors import CheckFailedError, NotFoundError
from quayside.kycc.learning import Learning
from quayside.kycc.platform import BatchRef, Need

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    import duckdb

    from quayside.kycc.features import Extraction
    from quayside.kycc.ingest import IngestResult
    from quayside.kycc.scorecard import Explanation
    from quayside.kycc.scoring import ScoreSummary, Written

__all__ = ["HOW_TO_GENERATE", "BatchRef", "Group", "Need", "ScoreResult", "ScoringService"]

Group = Literal["kyc", "transaction", "network"]

HOW_TO_GENERATE: Final = "quayside kycc generate --out"


@dataclass(frozen=True)
class ScoreResult:
    """What `ScoringService.score` did."""

    batch: BatchRef
    version: str
    written: Written
    mirrored: bool
    summary: ScoreSummary
    seconds: float


class ScoringService(Learning):
    """KYCC's verbs on one platform. The verbs of learning are in `Learning`, what all stand on in `Platform`."""

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
        """Score a batch whose features are computed (the last such batch when none is named).

        Args:
            scorecard_version: a version that is or was active, ``active`` for the one that is, or a card's file.

        Raises:
            CheckFailedError: the version is a draft or was rejected: it scores in `shadow` alone.
        """
        from quayside.foundation import audit
        from quayside.foundation.postgres import connect
        from quayside.kycc.scoring import mirror_scores, summarise

        started = perf_counter()
        card = self.versions.card(scorecard_version)
        if (version := self.versions.find(card.version)) is not None and not version.decides:
            raise CheckFailedError(
                f"Scorecard {card.version} is {version.status} and decides nothing: score with it in shadow "
                f"(`quayside kycc shadow --scorecard {card.version}`)."
            )
        with self.connection() as con:
            batch = self.resolve("features", batch_id, as_of, con)
            with self._guard(batch.batch_id):
                written = self._write_scores(con, batch, card, "scores")
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
        from quayside.kycc.scorecard import explain

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
        return row, explain(self.versions.card(found[1]), row["features"])

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
