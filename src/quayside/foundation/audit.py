"""Who did what: one append-only table, written in the transaction that makes the change."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from quayside.foundation.statements import execute

if TYPE_CHECKING:
    import psycopg
    import sqlalchemy


_actor: Final[ContextVar[str | None]] = ContextVar("actor", default=None)


@contextmanager
def acting_as(name: str) -> Iterator[None]:
    """Within the block `actor` is ``name``: a run's resource sets ``dagster:run:<id>``, a web face its user."""
    token = _actor.set(name)
    try:
        yield
    finally:
        _actor.reset(token)


def actor() -> str:
    """Who acts here: who `acting_as` says, else ``user:<name>`` of the operating system."""
    name = _actor.get()
    return _system_user(os.getuid()) if name is None else name


@cache
def _system_user(uid: int) -> str:
    import getpass

    try:
        return f"user:{getpass.getuser()}"
    except (KeyError, OSError):  # a container's user id that has no name
        return f"user:{uid}"


def record(
    connection: psycopg.Connection[Any] | sqlalchemy.Connection,
    actor: str,
    action: str,
    subject_type: str,
    subject: str,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Append one audit row on this connection, so that change and record are committed, or not, together.

    ``action`` is a verb ("activate"), ``subject_type`` and ``subject`` name what it was done to ("scorecard", "v2");
    ``details`` is JSON and holds what else an auditor asks for, never a secret.
    """
    execute(
        connection,
        "INSERT INTO ops.audit (actor, action, subject_type, subject, details)"
        " VALUES (%(actor)s, %(action)s, %(subject_type)s, %(subject)s, %(details)s::jsonb)",
        {
            "actor": actor,
            "action": action,
            "subject_type": subject_type,
            "subject": subject,
            "details": json.dumps(dict(details or {}), default=str),
        },
    )
