"""How a job over all accounts is cut into transactions, run dry, and repeated: whatever it is killed in, the next run goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from quayside.foundation import audit
from quayside.robosystems.ledger.posting import Author
from quayside.robosystems.periods import in_utc, utc_now

if TYPE_CHECKING:
    import psycopg

#: Accounts of one transaction: few enough that a consumer waits for a lock for well below a second.
CHUNK: Final = 10_000


def author_of(at: datetime | None, run_id: str | None) -> Author:
    """Who books, and when: by default whoever acts here, now."""
    return Author(utc_now() if at is None else in_utc(at), audit.actor(), run_id)


def run(con: psycopg.Connection[Any], dry_run: bool) -> AbstractContextManager[Any]:
    """The whole of a job: transactions inside it are committed one by one, or all undone when it is a dry run."""
    if dry_run:
        return con.transaction(force_rollback=True)
    return _Plain()


@contextmanager
def one_moment(con: psycopg.Connection[Any]) -> Iterator[None]:
    """A transaction whose statements all see the books as they are at its start; within a caller's transaction, as that does."""
    outermost = con.info.transaction_status == 0  # idle
    with con.transaction():
        if outermost:
            con.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield


class _Plain(AbstractContextManager[None]):
    def __exit__(self, *_: object) -> None:
        return None


def slices(
    con: psycopg.Connection[Any],
    accounts: str,
    bound: dict[str, Any] | None = None,
) -> Iterator[dict[str, Any]]:
    """Ranges of account ids (``after`` exclusive, ``until`` inclusive) that hold `CHUNK` each of those a SELECT names."""
    ends = con.execute(
        "SELECT max(account_id) FROM (SELECT account_id, (row_number() OVER (ORDER BY account_id) - 1) / %(size)s AS slice"  # noqa: S608 - constants
        f" FROM (SELECT DISTINCT account_id FROM ({accounts}) AS a) AS each) AS cut GROUP BY slice ORDER BY slice".encode(),
        {"size": CHUNK} | (bound or {}),
    ).fetchall()
    after = 0
    for (until,) in ends:
        yield {"after": after, "until": until}
        after = until
