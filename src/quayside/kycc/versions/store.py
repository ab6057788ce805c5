"""`Versions`: the life cycle, each step one PostgreSQL transaction with its audit row.

Concurrency is optimistic: a change says which state it was decided on, and finds out on writing whether that still
holds. Of two activations at once one wins and the other gets a `ConflictError` that names the winner; it is not applied on
top of a state its author never saw.
"""

# ruff: noqa: S608 - statements are made of constants of this module; values are bound

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from quayside.foundation import audit
from quayside.foundation.errors import CheckFailedError, ConflictError, NotFoundError, UsageError
from quayside.kycc.scorecard import Scorecard, load_scorecard
from quayside.kycc.versions import rows, second_person
from quayside.kycc.versions.version import ACTIVE, Status, Training, Version

if TYPE_CHECKING:
    import psycopg

    from quayside.foundation.settings import Settings

#: Names that mean something else than a version.
_RESERVED: Final = frozenset({ACTIVE})


class Versions:
    """The scorecard versions of one platform. The first look at them makes the expert card `SEED` active."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    # -- reading -------------------------------------------------------------------------------------------------

    def list(self) -> list[Version]:
        """Every version, newest first."""
        with self._transaction() as con:
            found = con.execute(
                f"SELECT {rows.COLUMNS} FROM kycc.scorecard_versions ORDER BY created_at DESC, version DESC".encode()
            ).fetchall()
        return [rows.of_row(row) for row in found]

    def get(self, version: str = ACTIVE) -> Version:
        """One version by name, or the active one.

        Raises:
            NotFoundError: there is no such version.
        """
        with self._transaction() as con:
            return rows.get(con, version)

    def find(self, version: str) -> Version | None:
        """One version by name, None when there is no such version."""
        with self._transaction() as con:
            return rows.find(con, version)

    def card(self, version: str = ACTIVE) -> Scorecard:
        """The card of a version, of the active one, or of a ``.yaml`` / ``.json`` file.

        Raises:
            NotFoundError: there is neither such a version nor such a file.
            UsageError: the file carries the name of a version but other content.
        """
        with self._transaction() as con:
            known = rows.find(con, version)
            if known is not None:
                return known.card
            if not version.endswith((".yaml", ".yml", ".json")):
                raise rows.unknown(con, version)
            card = load_scorecard(version)
            same_name = rows.find(con, card.version)
        if same_name is not None and same_name.content_hash != card.content_hash:
            raise UsageError(
                f"{version} calls itself scorecard {card.version}, which is another card: give it a version of its own."
            )
        return card

    def of_origin(self, model_id: str, base_version: str, blend_factor: float) -> Version | None:
        """The version refined from this model, base and blend before, if there is one."""
        with self._transaction() as con:
            row = con.execute(
                f"SELECT {rows.COLUMNS} FROM kycc.scorecard_versions "
                "WHERE (model_id, base_version, blend_factor) = (%s, %s, %s)".encode(),
                (model_id, base_version, blend_factor),
            ).fetchone()
        return None if row is None else rows.of_row(row)

    def trainings_of(self, version: str) -> list[str]:
        """Trainings that a version and the versions it is based on were refined from; none of a card that is no version."""
        with self._transaction() as con:
            found = con.execute(
                """
                WITH RECURSIVE line AS (
                    SELECT version, base_version, model_id FROM kycc.scorecard_versions WHERE version = %s
                    UNION
                    SELECT b.version, b.base_version, b.model_id
                    FROM kycc.scorecard_versions b JOIN line ON b.version = line.base_version
                )
                SELECT DISTINCT model_id FROM line WHERE model_id IS NOT NULL ORDER BY model_id
                """,
                (version,),
            ).fetchall()
        return [row[0] for row in found]

    def next_name(self) -> str:
        """``v<n>``, one above the highest there is."""
        with self._transaction() as con:
            row = con.execute(
                r"SELECT coalesce(max(substring(version FROM '^v(\d{1,9})$')::int), 0) + 1 FROM kycc.scorecard_versions"
            ).fetchone()
        assert row is not None
        return f"v{row[0]}"

    # -- the life of a version ------------------------------------------------------------------------------------

    def add(
        self,
        card: Scorecard,
        *,
        status: Status = "draft",
        base_version: str | None = None,
        model_id: str | None = None,
        blend_factor: float | None = None,
        gates: Sequence[Mapping[str, Any]] = (),
        details: Mapping[str, Any] | None = None,
        note: str = "",
    ) -> Version:
        """Keep a new card as ``draft``, or as ``rejected`` with the gates it failed. Adding the same card again changes
        nothing.

        Raises:
            ConflictError: another card has this version's name.
            UsageError: it is neither a draft nor rejected, or its name is reserved.
        """
        if status not in ("draft", "rejected"):
            raise UsageError(
                f"A new scorecard version is a draft or rejected, not {status}: activate it later."
            )
        if card.version in _RESERVED:
            raise UsageError(
                f"{card.version!r} is no name for a scorecard version: it stands for the active one."
            )
        with self._transaction() as con:
            added = rows.insert(
                con,
                card,
                status,
                base_version=base_version,
                model_id=model_id,
                blend_factor=blend_factor,
                gates=json.dumps([dict(gate) for gate in gates]),
                details=json.dumps(dict(details or {})),
                note=note,
            )
            kept = rows.get(con, card.version)
            if kept.content_hash != card.content_hash:
                raise ConflictError(
                    f"Scorecard version {card.version} is another card already: give this one another name."
                )
            if added:
                action = "create" if status == "draft" else "reject"
                rows.record(con, action, card.version, {"content_hash": card.content_hash, "note": note})
        return kept

    def activate(self, version: str, *, note: str = "") -> Version:
        """Make a version the one that decides; the one before it is retired in the same transaction.

        Where QUAYSIDE_KYCC_SECOND_PERSON is set, activation takes two persons: the author of a draft, or else the first
        who asks for it, and another one. The first call then notes the request and returns the version as it was.

        Raises:
            NotFoundError: there is no such version.
            CheckFailedError: it was rejected, or the person who proposed it asks again.
            ConflictError: another activation or roll-back was faster; nothing was changed.
        """
        with self._transaction() as con:
            wanted, before = rows.get(con, version), rows.get(con, ACTIVE)
        if wanted.status == "active":
            return wanted
        if wanted.status == "rejected":
            failed = ", ".join(str(gate.get("name")) for gate in wanted.gates if not gate.get("passed"))
            raise CheckFailedError(
                f"Scorecard {version} was rejected{f' (gates: {failed})' if failed else ''} and cannot be activated: "
                "refine another draft."
            )
        actor = audit.actor()
        with self._transaction() as con:
            if self.settings.kycc_second_person and not second_person.is_second_person(wanted, actor):
                return second_person.request(con, wanted, actor, note)
            rows.end(con, before, "retired", f"{version} was activated")
            rows.begin(con, wanted, actor, note, predecessor=before.version)
            rows.record(con, "retire", before.version, {"successor": version})
            rows.record(con, "activate", version, {"predecessor": before.version, "note": note})
            return rows.get(con, version)

    def roll_back(self, *, note: str = "") -> Version:
        """Return to the version that was active before the present one, which becomes ``rolled_back``.

        It takes one person, whatever the setting: a fault has to end at once, and what returns was activated before.

        Raises:
            UsageError: nothing was active before it.
            ConflictError: another activation or roll-back was faster; nothing was changed.
        """
        with self._transaction() as con:
            present = rows.get(con, ACTIVE)
            back = None if present.predecessor is None else rows.get(con, present.predecessor)
        if back is None or back.status != "retired":
            raise UsageError(
                f"Nothing to roll back to: no version was active before {present.version} that could return."
            )
        actor = audit.actor()
        with self._transaction() as con:
            rows.end(con, present, "rolled_back", note)
            rows.begin(con, back, actor, note, predecessor=back.predecessor)
            rows.record(con, "roll back", present.version, {"successor": back.version, "note": note})
            rows.record(con, "activate", back.version, {"rolled_back": present.version, "note": note})
            return rows.get(con, back.version)

    def retire(self, version: str, *, note: str = "") -> Version:
        """Put a draft aside. The active version is retired by activating another.

        Raises:
            UsageError: it is active, or was put aside before.
            ConflictError: somebody else changed it meanwhile.
        """
        return self._put_aside(version, "retired", "retire", note)

    def reject(self, version: str, *, note: str) -> Version:
        """Refuse a draft for good, with the reason. Raises as `retire` does."""
        return self._put_aside(version, "rejected", "reject", note)

    def _put_aside(self, version: str, status: Status, action: str, note: str) -> Version:
        with self._transaction() as con:
            known = rows.get(con, version)
        if known.status != "draft":
            hint = "activate another version instead" if known.status == "active" else "nothing is left to do"
            raise UsageError(f"Scorecard {version} is {known.status}, not a draft: {hint}.")
        with self._transaction() as con:
            rows.end(con, known, status, note)
            rows.record(con, action, version, {"note": note})
            return rows.get(con, version)

    # -- trainings ------------------------------------------------------------------------------------------------

    def add_training(self, training: Training) -> Training:
        """Keep a training; the same one again only becomes the latest."""
        with self._transaction() as con:
            con.execute(
                """
                INSERT INTO kycc.trainings (training_id, status, reason, model, details, created_by)
                VALUES (%s, %s, %s, %s, %s, %s)
                ON CONFLICT (training_id) DO UPDATE SET last_run_at = clock_timestamp()
                """,
                (
                    training.training_id,
                    training.status,
                    training.reason,
                    training.model,
                    json.dumps(training.details),
                    audit.actor(),
                ),
            )
        return training

    def training(self, training_id: str | None = None) -> Training:
        """A training by its id, the latest when none is named.

        Raises:
            NotFoundError: there is none.
        """
        with self._transaction() as con:
            row = con.execute(
                "SELECT training_id, status, reason, model::text, details FROM kycc.trainings "
                "WHERE training_id = coalesce(%s, training_id) ORDER BY last_run_at DESC, training_id LIMIT 1",
                (training_id,),
            ).fetchone()
        if row is None:
            which = f"There is no training {training_id!r}" if training_id else "Nothing was trained yet"
            raise NotFoundError(f"{which}: run ml_training_job (quayside kycc train) first.")
        return Training(*row)

    @contextmanager
    def _transaction(self) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        """A connection whose work is committed at the end of the block, or not at all; the expert card is there."""
        from psycopg import errors

        from quayside.foundation.migrations import SCHEMA as AUDIT_SCHEMA
        from quayside.foundation.postgres import connect, ensure_schema
        from quayside.kycc.schema import SCHEMA

        for schema in (AUDIT_SCHEMA, SCHEMA):
            ensure_schema(self.settings, schema)
        try:
            with connect(self.settings) as con:
                rows.seed(con)
                yield con
        except (errors.UniqueViolation, errors.DeadlockDetected) as error:
            raise ConflictError(
                "The scorecard versions were changed by somebody else at the same moment: look again and repeat."
            ) from error
