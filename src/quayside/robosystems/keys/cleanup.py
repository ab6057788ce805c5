"""Expired keys go in two steps: deactivated at once, deleted after a while in which a person can see why they stopped."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from quayside.foundation import audit
from quayside.robosystems.periods import in_utc, utc_now

if TYPE_CHECKING:
    import psycopg

GRACE: Final = timedelta(days=30)


@dataclass(frozen=True)
class Cleanup:
    """What a run did, or with `dry_run` would do: ids of keys."""

    deactivated: list[str]
    deleted: list[str]
    dry_run: bool


def cleanup(
    con: psycopg.Connection[Any],
    *,
    at: datetime | None = None,
    grace: timedelta = GRACE,
    dry_run: bool = False,
) -> Cleanup:
    """Deactivate keys whose expiry has passed; delete those that have been inactive for longer than `grace`.

    Whoever caches keys is told of both when this is committed.
    """
    now = utc_now() if at is None else in_utc(at)
    with con.transaction(force_rollback=dry_run):
        # Those first that go for good: a key is never deleted in the run that deactivates it.
        deleted = con.execute(
            "DELETE FROM robosystems.api_keys WHERE deactivated_at < %s RETURNING key_id", [now - grace]
        ).fetchall()
        deactivated = con.execute(
            "UPDATE robosystems.api_keys SET deactivated_at = %(now)s"
            " WHERE expires_at <= %(now)s AND deactivated_at IS NULL RETURNING key_id",
            {"now": now},
        ).fetchall()
        done = Cleanup(sorted(r[0] for r in deactivated), sorted(r[0] for r in deleted), dry_run)
        if deactivated or deleted:
            details = {"deactivated": done.deactivated, "deleted": done.deleted}
            audit.record(
                con, audit.actor(), "clean up", "api keys", f"{len(deactivated) + len(deleted)}", details
            )
    return done
