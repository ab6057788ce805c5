"""What a check is, and how all of them are run.

A check is a SELECT that gives an id and a few words for everything that is wrong; nothing found is good health. Red means that
money or credits are or will be wrong; yellow that somebody should look.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from quayside.robosystems.billing import work

if TYPE_CHECKING:
    import psycopg

#: Offenders kept of one check; all are counted.
NAMED = 50


@dataclass(frozen=True)
class Check:
    """``query`` gives (id, words) of every offender; ``%(now)s`` is bound in it."""

    name: str
    severity: Literal["red", "yellow"]
    question: str
    query: str


@dataclass(frozen=True)
class Finding:
    """The outcome of a check: how many offend, and the first of them as (id, words)."""

    check: Check
    count: int
    offenders: tuple[tuple[str, str], ...]

    @property
    def sentence(self) -> str:
        """For a person."""
        if not self.count:
            return f"{self.check.name}: fine."
        shown = "; ".join(f"{which} ({what})" if what else which for which, what in self.offenders[:5])
        more = f" and {self.count - 5} more" if self.count > 5 else ""
        return f"{self.check.name}: {self.count} found: {shown}{more}."


def check_health(
    con: psycopg.Connection[Any], now: datetime, checks: Iterable[Check] | None = None
) -> list[Finding]:
    """Run checks (default: all) at one moment of the books."""
    from quayside.robosystems.health.checks import CHECKS

    found: list[Finding] = []
    with work.one_moment(con):
        for check in CHECKS if checks is None else checks:
            rows = con.execute(check.query.encode(), {"now": now}).fetchall()
            found.append(
                Finding(check, len(rows), tuple((str(row[0]), str(row[1] or "")) for row in rows[:NAMED]))
            )
    return found
