"""The verbs by which KYCC learns: outcomes, labels, the training table, shadow scores, comparison of scorecards."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from quayside.foundation.errors import CheckFailedError
from quayside.kycc.platform import BatchRef, Platform

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import duckdb
    import pyarrow as pa

    from quayside.kycc.challenger import Comparison
    from quayside.kycc.labels import LabelResult
    from quayside.kycc.outcomes import OutcomeResult
    from quayside.kycc.scorecard import Scorecard
    from quayside.kycc.scoring import Written
    from quayside.kycc.training import Skipped, TrainedModel
    from quayside.kycc.versions import Version

WINDOW_DAYS: Final = 180
DEFAULT_RATE: Final = 0.15
#: As `quayside.kycc.versions.ACTIVE`, whose import would bring in NumPy.
ACTIVE: Final = "active"
_ROW_KEY: Final = ("batch_id", "party_id", "as_of")


@dataclass(frozen=True)
class TrainResult:
    """What `Learning.train` did: a model and its figures, or why there is none."""

    training_id: str
    outcome: TrainedModel | Skipped
    details: dict[str, Any]

    @property
    def status(self) -> Literal["trained", "skipped"]:
        return "skipped" if self.reason else "trained"

    @property
    def reason(self) -> str:
        """Why training was skipped, empty when it was not."""
        return str(getattr(self.outcome, "reason", ""))


@dataclass(frozen=True)
class RefineResult:
    """What `Learning.refine` did.

    Attributes:
        version: the new version, or the same one made before from this training, base and blend; None when skipped.
        reason: why it was skipped, or the gates a rejected version failed.
    """

    status: Literal["draft", "rejected", "skipped"]
    training_id: str
    version: Version | None
    reason: str
    known_before: bool


class Learning(Platform):
    """The verbs of learning on one platform."""

    def load_outcomes(self, source: Path | str, batch_id: str | None = None, **options: Any) -> OutcomeResult:
        """Load an outcome file or the table ``outcomes`` of a lake schema; see `quayside.kycc.outcomes.load_outcomes` for the options."""
        from quayside.foundation import audit
        from quayside.foundation.postgres import connect
        from quayside.kycc.outcomes import load_outcomes

        result = load_outcomes(self.lake, source, batch_id=batch_id, guard=self._guard, **options)
        if result.removed:
            with connect(self.settings) as postgres:
                details = {"removed": result.removed, "content_sha256": result.content_sha256}
                audit.record(postgres, audit.actor(), "replace outcomes", "batch", result.batch_id, details)
        return result

    def labels(
        self,
        batch_id: str | None = None,
        observation_window_days: int = WINDOW_DAYS,
        default_rate: float = DEFAULT_RATE,
        as_of: datetime | None = None,
    ) -> LabelResult:
        """Make the labels of a batch (the last one that has features when none is named).

        Simulated labels, where there are no outcomes, are drawn from the scores of the active scorecard.
        """
        from quayside.foundation import audit
        from quayside.foundation.postgres import connect
        from quayside.kycc.labels import make_labels
        from quayside.kycc.labels.window import Window

        card = self.versions.card(ACTIVE)
        with self.connection() as con:
            batch = self.resolve("features", batch_id, as_of, con)
            window = Window(batch.batch_id, batch.as_of, observation_window_days)
            with self._guard(batch.batch_id):

                def write(con: duckdb.DuckDBPyConnection) -> LabelResult:
                    result = make_labels(con, window, default_rate, card)
                    rows = sum(n.good + n.bad for n in result.counts.values())
                    self._record_stage(con, batch, "labels", "", rows, f"{window.days}d")
                    return result

                result = self.lake.transaction(write, con)
                if result.changed or result.removed:
                    with connect(self.settings) as postgres:
                        details = {
                            "observation_window_days": window.days,
                            "as_of": window.as_of.isoformat(),
                            "changed": result.changed,
                            "removed": result.removed,
                        }
                        audit.record(postgres, audit.actor(), "relabelled", "batch", batch.batch_id, details)
        return result

    def labelled(
        self, observation_window_days: int = WINDOW_DAYS, batch_ids: Sequence[str] | None = None
    ) -> pa.Table:
        """The training table, its ``score`` by the active scorecard; see `quayside.kycc.labels.labelled`."""
        from quayside.kycc.labels import labelled

        card = self.versions.card(ACTIVE)
        with self.connection() as con:
            return labelled(con, card, observation_window_days=observation_window_days, batch_ids=batch_ids)

    def train(
        self,
        batch_ids: Sequence[str] | None = None,
        observation_window_days: int = WINDOW_DAYS,
        **config: Any,
    ) -> TrainResult:
        """Train a model on the labelled parties of all batches, or of those named, and keep it.

        Args:
            config: fields of `quayside.kycc.training.TrainingConfig`: ``min_samples``, ``test_size``, ``seed`` …
        """
        from quayside.kycc.training import Skipped, TrainingConfig, train
        from quayside.kycc.versions import Training

        settings = TrainingConfig(**config)
        active = self.versions.card(ACTIVE)
        with self.connection() as con:
            table = self._training_table(con, observation_window_days, batch_ids)
        outcome = train(table, settings, active=active)
        details: dict[str, Any] = {
            "observation_window_days": observation_window_days,
            "batch_ids": None if batch_ids is None else list(batch_ids),
            "rows": table.num_rows,
        }
        if isinstance(outcome, Skipped):
            model, reason = None, outcome.reason
            details |= {"bads": outcome.bads, "config": asdict(settings)}
        else:
            model, reason = outcome.to_json(), ""
            details |= {"circular": outcome.circular, "data": asdict(outcome.data)}
        digest = hashlib.sha256(repr((model, reason, sorted(details.items()))).encode()).hexdigest()[:12]
        training_id = f"{'model' if model else 'skipped'}-{digest}"
        status = "trained" if model else "skipped"
        self.versions.add_training(Training(training_id, status, reason, model, details))
        return TrainResult(training_id, outcome, details)

    def refine(
        self, training_id: str | None = None, blend_factor: float = 0.5, base_version: str = "v1"
    ) -> RefineResult:
        """Make a scorecard version from a training (the latest when none is named) and a base version.

        It becomes a draft when all gates pass, else rejected. A training that was skipped is skipped here too. Refining again
        with the same three finds the version made before.

        Raises:
            NotFoundError: nothing was trained, or there is no such training or version.
            CheckFailedError: labels or features are no longer those the model was trained on.
        """
        from quayside.foundation.postgres import advisory_lock
        from quayside.kycc.refinement import refine
        from quayside.kycc.training import TrainedModel, split

        training = self.versions.training(training_id)
        if training.model is None:
            return RefineResult("skipped", training.training_id, None, training.reason, False)
        base = self.versions.get(base_version)
        with advisory_lock(self.settings, "kycc:scorecard versions"):
            version = self.versions.of_origin(training.training_id, base.version, blend_factor)
            known_before = version is not None
            if version is None:
                model = TrainedModel.from_json(training.model)
                with self.connection() as con:
                    table = self._training_table(
                        con, training.details["observation_window_days"], training.details["batch_ids"]
                    )
                parts = split(table, model.config)
                if parts.fingerprint != model.data.fingerprint:
                    raise CheckFailedError(
                        f"Labels or features have changed since {training.training_id} was trained: run train again, then "
                        "refine."
                    )
                made = refine(base.card, model, blend_factor, parts, version=self.versions.next_name())
                version = self.versions.add(
                    made.card,
                    status=made.status,
                    base_version=base.version,
                    model_id=training.training_id,
                    blend_factor=blend_factor,
                    gates=[asdict(gate) for gate in made.gates],
                    details={
                        "circular": model.circular,
                        "data": training.details["data"],
                        "observation_window_days": training.details["observation_window_days"],
                        "comparison": [asdict(row) for row in made.comparison],
                    },
                )
        failed = [gate["sentence"] for gate in version.gates if not gate["passed"]]
        status = "rejected" if version.status == "rejected" else "draft"
        return RefineResult(status, training.training_id, version, " ".join(failed), known_before)

    def shadow(
        self, batch_id: str | None = None, as_of: datetime | None = None, scorecard_version: str | None = None
    ) -> dict[str, Written]:
        """Score a batch by every draft, or by the one named, in the lake alone: nothing is mirrored and nothing decided."""
        drafts = (
            [version.card for version in self.versions.list() if version.status == "draft"]
            if scorecard_version is None
            else [self.versions.get(scorecard_version).card]
        )
        with self.connection() as con:
            batch = self.resolve("features", batch_id, as_of, con)
            with self._guard(batch.batch_id):
                return {card.version: self._write_scores(con, batch, card, "shadow") for card in drafts}

    def compare(
        self,
        challenger: str,
        champion: str = ACTIVE,
        batch_id: str | None = None,
        as_of: datetime | None = None,
        observation_window_days: int = WINDOW_DAYS,
    ) -> Comparison:
        """Two scorecards on the same parties of one batch, and on observed outcomes that neither was made from; see
        `quayside.kycc.challenger`."""
        from quayside.kycc.challenger import compare
        from quayside.kycc.labels import labelled

        cards = self.versions.card(champion), self.versions.card(challenger)
        with self.connection() as con:
            batch = self.resolve("features", batch_id, as_of, con)
            labels = labelled(con, cards[0], observation_window_days=observation_window_days)
            for training_id in {t for card in cards for t in self.versions.trainings_of(card.version)}:
                labels = labels.join(
                    self._trained_on(con, training_id),
                    keys=list(_ROW_KEY),
                    join_type="left anti",
                    use_threads=False,
                )
            return compare(con, *cards, batch.batch_id, batch.as_of, labels)

    def _trained_on(self, con: duckdb.DuckDBPyConnection, training_id: str) -> pa.Table:
        """Keys of the rows a model was fitted to; where they can no longer be told from its holdout, of both."""
        import numpy as np
        import pyarrow as pa

        from quayside.kycc.training import TrainedModel, split

        training = self.versions.training(training_id)
        assert training.model is not None
        model = TrainedModel.from_json(training.model)
        table = self._training_table(
            con, training.details["observation_window_days"], training.details["batch_ids"]
        )
        parts = split(table, model.config)
        if parts.fingerprint == model.data.fingerprint:
            return parts.train.select(_ROW_KEY)
        of_training = np.isin(table.column("batch_id").to_pylist(), model.data.batches)
        return table.filter(pa.array(of_training)).select(_ROW_KEY)

    def _training_table(
        self, con: duckdb.DuckDBPyConnection, days: int, batch_ids: Sequence[str] | None
    ) -> pa.Table:
        """The labelled table without ``score``: which card is active is no part of what a model is trained on."""
        from quayside.kycc.labels import labelled

        table = labelled(con, self.versions.card(ACTIVE), observation_window_days=days, batch_ids=batch_ids)
        return table.drop_columns("score")

    def _write_scores(
        self, con: duckdb.DuckDBPyConnection, batch: BatchRef, card: Scorecard, stage: str
    ) -> Written:
        """Make the lake's scores of a batch by `card` what they are now, and note the stage."""
        from quayside.kycc.scoring import read_features, scored_rows, write_scores

        features = read_features(con, batch.batch_id, batch.as_of, card)
        scored = scored_rows(features, card)
        now = datetime.now(UTC)

        def write(con: duckdb.DuckDBPyConnection) -> Written:
            written = write_scores(con, batch.batch_id, batch.as_of, card, features, scored, now)
            if written.added or written.changed or written.removed:
                self._record_stage(con, batch, stage, card.version, written.rows, written.fingerprint)
            return written

        return self.lake.transaction(write, con)
