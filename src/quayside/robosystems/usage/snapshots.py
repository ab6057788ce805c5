"""Hourly snapshots: what every subscribed graph stored in an hour, with the plan it was on. One per graph and hour.

What could not be measured is recorded as that, with the reason, and never as 0 bytes. A measured hour stays as it is; one that was not
may still be measured by running the hour again.
"""
# ruff: noqa: S608 - statements are made of constants of this package; values are bound

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from quayside.foundation.errors import UsageError
from quayside.robosystems.billing import work
from quayside.robosystems.plans import PLAN_RANGES, plan_at, state_at
from quayside.robosystems.usage.sizes import SizeReader, Sizes

if TYPE_CHECKING:
    import psycopg

#: Graphs measured and written at once.
BATCH: Final = 5_000
#: Graphs named in a result; all of them are in the table.
NAMED: Final = 20

# States in which a graph keeps its data, and so is measured and pays for storage.
_SUBSCRIBED: Final = f"""
SELECT e.account_id, e.graph_id, p.plan, p.included_gb
FROM (
    SELECT a.id AS account_id, s.graph_id, {plan_at("%(hour)s::timestamptz")} AS plan
    FROM robosystems.subscriptions AS s JOIN robosystems.accounts AS a ON a.graph_id = s.graph_id
    WHERE s.resource_type = 'graph' AND s.activated_at < %(hour)s::timestamptz + interval '1 hour'
      AND {state_at("%(hour)s::timestamptz + interval '1 hour' - interval '1 microsecond'")}
          IN ('active', 'past_due', 'paused', 'canceled')
) AS e
JOIN {PLAN_RANGES} AS p ON p.plan = e.plan AND %(hour)s >= p.effective_from AND %(hour)s < p.effective_until
"""
_MISSING: Final = f"""
SELECT account_id, graph_id, plan, included_gb FROM ({_SUBSCRIBED}) AS s
WHERE NOT EXISTS (SELECT FROM robosystems.usage_snapshots AS u
                  WHERE u.hour = %(hour)s AND u.account_id = s.account_id AND u.problem IS NULL)
ORDER BY account_id
"""
_WRITE: Final = """
INSERT INTO robosystems.usage_snapshots (hour, account_id, files_bytes, tables_bytes, graph_bytes, subgraphs_bytes, plan,
                                         included_gb, problem, measured_at, run_id)
SELECT %(hour)s, u.*, %(at)s, %(run_id)s
FROM unnest(%(accounts)s::bigint[], %(files)s::bigint[], %(tables)s::bigint[], %(graphs)s::bigint[], %(subgraphs)s::bigint[],
            %(plans)s::text[], %(included)s::int[], %(problems)s::text[]) AS u
ON CONFLICT (hour, account_id) DO UPDATE
SET files_bytes = excluded.files_bytes, tables_bytes = excluded.tables_bytes, graph_bytes = excluded.graph_bytes,
    subgraphs_bytes = excluded.subgraphs_bytes, problem = excluded.problem, measured_at = excluded.measured_at,
    run_id = excluded.run_id
WHERE usage_snapshots.problem IS NOT NULL
"""


@dataclass(frozen=True)
class Collection:
    """Snapshots of one hour: graphs that were due, measured by this run, and not measured (some of them, with reasons)."""

    hour: datetime
    graphs: int
    measured: int
    unmeasured: int
    problems: dict[str, str]
    dry_run: bool


def collect(
    con: psycopg.Connection[Any],
    hour: datetime,
    reader: SizeReader,
    *,
    at: datetime | None = None,
    run_id: str | None = None,
    dry_run: bool = False,
) -> Collection:
    """Measure every graph that was subscribed in an hour (its first moment, UTC) and has no measurement of it yet.

    Raises:
        UsageError: the hour has not begun, or `hour` is not its first moment.
    """
    author = work.author_of(at, run_id)
    if hour != hour.replace(minute=0, second=0, microsecond=0) or hour.utcoffset() is None:
        raise UsageError(f"{hour.isoformat()} is not the first moment of an hour with a time zone.")
    if hour > author.at:
        raise UsageError(f"The hour {hour:%Y-%m-%d %H:%M} UTC has not begun: nothing can be measured in it.")
    due = con.execute(_MISSING.encode(), {"hour": hour}).fetchall()
    problems: dict[str, str] = {}
    unmeasured = 0
    with work.run(con, dry_run):
        for start in range(0, len(due), BATCH):
            part = due[start : start + BATCH]
            found = {sizes.graph_id: sizes for sizes in reader.read([row[1] for row in part])}
            rows = [
                found.get(row[1]) or Sizes(row[1], problem="it was not among what was measured")
                for row in part
            ]
            failed = {sizes.graph_id: sizes.problem for sizes in rows if sizes.problem is not None}
            unmeasured += len(failed)
            problems |= dict(list(failed.items())[: NAMED - len(problems)])
            with con.transaction():
                con.execute(_WRITE, author.bound | {"hour": hour} | _columns(part, rows))
    return Collection(hour, len(due), len(due) - unmeasured, unmeasured, problems, dry_run)


def _columns(part: Sequence[tuple[Any, ...]], rows: Sequence[Sizes]) -> dict[str, list[Any]]:
    return {
        "accounts": [row[0] for row in part],
        "plans": [row[2] for row in part],
        "included": [row[3] for row in part],
        "files": [sizes.files_bytes for sizes in rows],
        "tables": [sizes.tables_bytes for sizes in rows],
        "graphs": [sizes.graph_bytes for sizes in rows],
        "subgraphs": [sizes.subgraphs_bytes for sizes in rows],
        "problems": [sizes.problem for sizes in rows],
    }
