"""Rows of ``kycc.scorecard_versions``: each function one statement on the caller's connection.

A change states the status it was decided on. Of two at once the second finds that status gone, and says so.
"""
# ruff: noqa: S608 - statements are made of constants of this module; values are bound

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from quayside.foundation import audit
from quayside.foundation.errors import ConflictError, NotFoundError
from quayside.kycc.scorecard import Scorecard, load_scorecard
from quayside.kycc.versions.version import ACTIVE, SEED, Status, Version

if TYPE_CHECKING:
    import psycopg

COLUMNS: Final = (
    "version, status, card, content_hash, base_version, model_id, blend_factor, gates, details, created_by, created_at, "
    "requested_by, activated_by, activated_at, predecessor, ended_at, note"
)


def seed(con: psycopg.Connection[Any]) -> None:
    """Make the expert card active where nothing is; committed at once."""
    if con.execute("SELECT FROM kycc.scorecard_versions WHERE status = 'active'").fetchone() is not None:
        return
    card = load_scorecard(SEED)
    inserted = insert(
        con, card, "active", note="the expert card, active from the start", created_by="quayside"
    )
    if inserted:
        record(con, "activate", SEED, {"content_hash": card.content_hash}, actor="quayside")
    con.commit()


def insert(
    con: psycopg.Connection[Any],
    card: Scorecard,
    status: Status,
    *,
    base_version: str | None = None,
    model_id: str | None = None,
    blend_factor: float | None = None,
    gates: str = "[]",
    details: str = "{}",
    note: str = "",
    created_by: str | None = None,
) -> bool:
    """Insert a version unless there is one of that name; whether it was inserted."""
    author = created_by or audit.actor()
    return (
        con.execute(
            """
            INSERT INTO kycc.scorecard_versions (version, status, card, content_hash, base_version, model_id, blend_factor,
                gates, details, created_by, note, activated_by, activated_at, ended_at)
            VALUES (%(version)s, %(status)s, %(card)s, %(hash)s, %(base)s, %(model)s, %(blend)s, %(gates)s, %(details)s,
                %(author)s, %(note)s, CASE WHEN %(status)s = 'active' THEN %(author)s END,
                CASE WHEN %(status)s = 'active' THEN now() END, CASE WHEN %(status)s = 'rejected' THEN now() END)
            ON CONFLICT (version) DO NOTHING
            """,
            {
                "version": card.version,
                "status": status,
                "card": json.dumps(card.to_dict()),
                "hash": card.content_hash,
                "base": base_version,
                "model": model_id,
                "blend": blend_factor,
                "gates": gates,
                "details": details,
                "author": author,
                "note": note,
            },
        ).rowcount
        == 1
    )


def find(con: psycopg.Connection[Any], version: str) -> Version | None:
    """A version by name, or the one that is active."""
    where = "status = 'active'" if version == ACTIVE else "version = %(version)s"
    row = con.execute(
        f"SELECT {COLUMNS} FROM kycc.scorecard_versions WHERE {where}".encode(),
        {"version": version},
    ).fetchone()
    return None if row is None else of_row(row)


def get(con: psycopg.Connection[Any], version: str) -> Version:
    """As `find`; raises: NotFoundError: there is none."""
    found = find(con, version)
    if found is None:
        raise unknown(con, version)
    return found


def unknown(con: psycopg.Connection[Any], version: str) -> NotFoundError:
    """The error that names the versions there are."""
    names = [row[0] for row in con.execute("SELECT version FROM kycc.scorecard_versions ORDER BY created_at")]
    return NotFoundError(
        f"There is no scorecard version {version!r}: there are {', '.join(names)}, and active."
    )


def of_row(row: tuple[Any, ...]) -> Version:
    """The version of a row of `COLUMNS`."""
    version, status, card, content_hash, *rest = row
    return Version(version, status, Scorecard.from_dict(card), content_hash, *rest)


def end(con: psycopg.Connection[Any], seen: Version, status: Status, note: str) -> None:
    """Take a version out of the state it was seen in."""
    changed = con.execute(
        "UPDATE kycc.scorecard_versions SET status = %s, ended_at = now(), note = %s WHERE version = %s AND status = %s",
        (status, note, seen.version, seen.status),
    ).rowcount
    if not changed:
        raise conflict(con, seen)


def begin(
    con: psycopg.Connection[Any], seen: Version, actor: str, note: str, predecessor: str | None
) -> None:
    """Make a version active from the state it was seen in."""
    changed = con.execute(
        "UPDATE kycc.scorecard_versions SET status = 'active', activated_at = now(), activated_by = %s, note = %s, "
        "predecessor = %s, requested_by = NULL, ended_at = NULL WHERE version = %s AND status = %s",
        (actor, note, predecessor, seen.version, seen.status),
    ).rowcount
    if not changed:
        raise conflict(con, seen)


def conflict(con: psycopg.Connection[Any], seen: Version) -> ConflictError:
    """The error of whoever came second."""
    active = get(con, ACTIVE)
    return ConflictError(
        f"Scorecard {seen.version} is no longer {seen.status}: somebody else was faster, and {active.version} is active "
        f"now (by {active.activated_by}). Nothing was changed; look again and repeat."
    )


def record(
    con: psycopg.Connection[Any],
    action: str,
    version: str,
    details: Mapping[str, Any],
    actor: str | None = None,
) -> None:
    """The audit row of a change, in its transaction; by whoever acts here unless an actor is named."""
    audit.record(con, actor or audit.actor(), action, "scorecard", version, details)
