"""The rule that activation takes two persons, where QUAYSIDE_KYCC_SECOND_PERSON is set: it compares who acts with who
proposed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from quayside.foundation.errors import CheckFailedError
from quayside.kycc.versions import rows
from quayside.kycc.versions.version import Version

if TYPE_CHECKING:
    import psycopg

#: Actors that are no person: what a person started can be told only from a person's own act.
_MACHINE: Final = ("dagster:",)


def is_second_person(version: Version, actor: str) -> bool:
    """Whether a person other than the actor has proposed this version."""
    if actor.startswith(_MACHINE):
        return False
    proposers = {p for p in (version.created_by, version.requested_by) if p and not p.startswith(_MACHINE)}
    return bool(proposers - {actor, "quayside"})


def request(con: psycopg.Connection[Any], version: Version, actor: str, note: str) -> Version:
    """Note who asked first; a version its proposer asks for again stays where it is."""
    if actor.startswith(_MACHINE):
        raise CheckFailedError(
            f"Activating scorecard {version.version} takes two persons, and {actor} is none "
            "(QUAYSIDE_KYCC_SECOND_PERSON is set)."
        )
    if actor in (version.created_by, version.requested_by):
        raise CheckFailedError(
            f"Activating scorecard {version.version} takes a second person, and {actor} proposed it: somebody else has to "
            "run the same command (QUAYSIDE_KYCC_SECOND_PERSON is set)."
        )
    con.execute(
        "UPDATE kycc.scorecard_versions SET requested_by = %s WHERE version = %s AND requested_by IS NULL",
        (actor, version.version),
    )
    rows.record(con, "request activation", version.version, {"note": note})
    return rows.get(con, version.version)
