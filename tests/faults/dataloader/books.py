"""What the control database has to say in the end: each table loaded as often as it was due, nothing open, nothing stuck."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

import psycopg


@dataclass(frozen=True)
class Attempt:
    """A row of ``control.historical_metadata``."""

    config_id: int
    attempt: int
    status: str | None
    queued: datetime
    final: bool  # not one of several loads that only together are one (chunks of a backfill)


@dataclass
class Overdue:
    """How long rows stayed in a state that they have to leave, sampled while everything went on: the worst, in seconds.

    A worker that beats and does not load any more is found by nobody's lease: hence the time in progress as well.
    """

    queued_seconds: float = 0.0
    in_progress_seconds: float = 0.0
    lease_expired_seconds: float = 0.0

    def look(self, con: psycopg.Connection[Any]) -> None:
        for status, waited, expired in con.execute(
            "SELECT last_status, extract(epoch FROM now() - last_status_date_time)::float8, "
            "extract(epoch FROM now() - lease_expires_at)::float8 "
            "FROM control.table_control WHERE last_status IN ('Queued', 'In Progress')"
        ).fetchall():
            if status == "Queued":
                self.queued_seconds = max(self.queued_seconds, waited)
            else:
                self.in_progress_seconds = max(self.in_progress_seconds, waited)
                self.lease_expired_seconds = max(self.lease_expired_seconds, expired)

    @property
    def longest(self) -> float:
        return max(self.queued_seconds, self.in_progress_seconds, self.lease_expired_seconds)


def history(con: psycopg.Connection[Any]) -> list[Attempt]:
    """Every attempt there was, in order."""
    return [
        Attempt(*row)
        for row in con.execute(
            "SELECT config_id, attempt, load_status, load_queued_time, "
            "coalesce(result->>'backfill_cursor', '') = '' OR (result->>'handed_over')::boolean "
            "FROM control.historical_metadata ORDER BY config_id, attempt"
        ).fetchall()
    ]


def problems(con: psycopg.Connection[Any], names: Mapping[int, str]) -> list[str]:
    """What is wrong in the books; everything is expected to be at rest."""
    found: list[str] = []
    rows = con.execute(
        "SELECT config_id, last_status, attempt, next_load_date_time, last_status_message FROM control.table_control "
        "WHERE config_id = ANY(%s) ORDER BY config_id",
        [list(names)],
    ).fetchall()
    ticks: dict[int, list[datetime]] = defaultdict(list)
    for config_id, at in con.execute("SELECT config_id, at FROM faults.ticks ORDER BY at").fetchall():
        ticks[config_id].append(at)
    attempts: dict[int, list[Attempt]] = defaultdict(list)
    for attempt in history(con):
        attempts[attempt.config_id].append(attempt)
    for config_id, status, last, due, message in rows:
        name = names[config_id]
        if status != "Succeeded" or due is not None:
            found.append(f"{name}: the row is {status}, due {due}: {message}")
        found += [f"{name}: {text}" for text in of_table(attempts[config_id], ticks[config_id], last)]
    return found


def of_table(attempts: list[Attempt], ticks: list[datetime], last: int) -> list[str]:
    """What is wrong with the attempts of one table."""
    found = []
    if open_ := [a.attempt for a in attempts if a.status is None]:
        found.append(f"the history of attempts {open_} is open")
    if (numbers := [a.attempt for a in attempts]) != list(range(1, last + 1)):
        missing = sorted(set(range(1, last + 1)) - set(numbers))
        found.append(f"the history lacks attempts {missing} of {last}, or holds others twice")
    loaded: Counter[int] = Counter()
    for attempt in attempts:
        if attempt.status == "Succeeded" and attempt.final:
            loaded[sum(at <= attempt.queued for at in ticks)] += 1
    for number, at in enumerate(ticks, 1):
        if loaded[number] != 1:
            found.append(f"due at {at:%H:%M:%S.%f} it was loaded {loaded[number]} times")
    if loaded[0]:
        found.append(f"it was loaded {loaded[0]} times before it was due")
    if any(b.queued < a.queued for a, b in pairwise(attempts)):
        found.append("later attempts were queued before earlier ones")
    return found
