"""One run of the harness: writers and kills, then rest, then the comparison and the books."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from typing import Any, Final

import psycopg

from quayside.foundation.errors import QuaysideError
from tests.faults.dataloader import books
from tests.faults.dataloader.compare import differences
from tests.faults.dataloader.kills import KINDS, Killer, digest, schedule
from tests.faults.dataloader.platform import Platform, until
from tests.faults.dataloader.workload import TABLES, Table, Writers

#: From the last kill until everything is at rest: leases run out, monitors look, runs are queued again.
REST_SECONDS: Final = 400.0
#: No row may be left behind for longer, while processes are killed all the time.
BOUND_SECONDS: Final = 180.0


class Clerk(threading.Thread):
    """Makes tables due as soon as they have been loaded, frees failed ones, and watches how long rows are left behind."""

    def __init__(self, platform: Platform) -> None:
        super().__init__(name="clerk")
        self._platform = platform
        self._over = threading.Event()
        self.ticking = True
        self.ticks = 0
        self.freed = 0
        self.overdue = books.Overdue()
        self.problems: list[str] = []

    def run(self) -> None:
        while not self._over.wait(0.3):
            try:
                if self.ticking:
                    self.ticks += self._platform.tick()
                self.freed += self._platform.free_failed()
                with self._platform.control() as con:
                    self.overdue.look(con)
            except (psycopg.OperationalError, psycopg.InterfaceError, QuaysideError):
                continue  # the server was killed; next time
            except Exception as error:  # noqa: BLE001 - a clerk that dies silently would make everything else fail
                self.problems.append(f"the clerk failed: {error!r}")
                return

    def stop(self) -> None:
        self._over.set()
        self.join()


def run(
    seed: int, kills: int, tables: tuple[Table, ...] = TABLES, bound_seconds: float = BOUND_SECONDS
) -> dict[str, Any]:
    """Everything; the report."""
    started = time.monotonic()
    platform = Platform(tables)
    planned = schedule(seed, kills, len(platform.tables))
    report: dict[str, Any] = {"seed": seed, "schedule": digest(planned)}
    try:
        platform.start()
        config_ids, names = _names(platform)
        writers, clerk = Writers(lambda: platform.source.url, seed, platform.tables), Clerk(platform)
        killer = Killer(platform, config_ids, names)
        problems = clerk.problems
        platform.start_services()
        clerk.start()
        writers.start()
        try:
            _say("waiting for the first loads")
            until(lambda: _loaded_once(platform), REST_SECONDS, "the first load of every table")
            killed_from = time.monotonic()
            killer.execute(planned, problems)
            report["kill_seconds"] = round(time.monotonic() - killed_from, 1)
        except TimeoutError as error:
            problems.append(str(error))
        finally:
            writers.stop()
            clerk.ticking = False
        try:
            _say("waiting for rest")
            rest_from = time.monotonic()
            _rest(platform)
            report["rest_seconds"] = round(time.monotonic() - rest_from, 1)
            while not clerk.problems and platform.tick() == 0:
                time.sleep(0.1)
            _rest(platform)
        except TimeoutError as error:
            problems.append(f"{error}: {_left(platform)}")
        finally:
            clerk.stop()
        problems += platform.problems + writers.problems
        problems += differences(platform.settings, platform.source.url, platform.tables)
        with platform.control() as con:
            problems += books.problems(con, names)
            report |= _figures(con)
        if killer.count < kills:
            problems.append(f"{killer.count} of {kills} kills were done")
        if killer.active * 2 < killer.count:
            problems.append(f"only {killer.active} of {killer.count} kills fell into active work")
        if clerk.overdue.longest > bound_seconds:
            problems.append(f"rows were left behind for longer than {bound_seconds:.0f} s: {clerk.overdue}")
        report |= {
            "kills": killer.count,
            "by_kind": {kind: killer.kinds[kind] for kind in KINDS},
            "by_phase": dict(killer.phases.most_common()),
            "by_strategy": dict(killer.strategies.most_common()),
            "active": killer.active,
            "aims_missed": killer.missed,
            "changes_of_the_source": writers.changes,
            "ticks": clerk.ticks,
            "failed_rows_freed": clerk.freed,
            "longest_after_lease_seconds": round(clerk.overdue.lease_expired_seconds, 1),
            "longest_queued_seconds": round(clerk.overdue.queued_seconds, 1),
            "longest_in_progress_seconds": round(clerk.overdue.in_progress_seconds, 1),
            "problems": problems,
        }
        if problems:
            report["logs"] = _tail(platform)
    finally:
        platform.stop()
    report["seconds"] = round(time.monotonic() - started, 1)
    return report


def _names(platform: Platform) -> tuple[list[int], dict[int, str]]:
    with platform.control() as con:
        rows = con.execute(
            "SELECT config_id, concat(destination_catalog, '.', destination_table_name, ' (', load_strategy, ')') "
            "FROM control.table_control ORDER BY config_id"
        ).fetchall()
    return [row[0] for row in rows], dict(rows)


def _loaded_once(platform: Platform) -> bool:
    try:
        with platform.control() as con:
            [(left,)] = con.execute(
                "SELECT count(*) FROM control.table_control c WHERE NOT EXISTS (SELECT FROM control.historical_metadata h "
                "WHERE h.config_id = c.config_id AND h.load_status = 'Succeeded')"
            ).fetchall()
    except (psycopg.OperationalError, psycopg.InterfaceError):
        return False
    return left == 0


def _rest(platform: Platform) -> None:
    def at_rest() -> bool:
        try:
            with platform.control() as con:
                [(left,)] = con.execute(
                    "SELECT count(*) FROM control.table_control "
                    "WHERE last_status IS DISTINCT FROM 'Succeeded' OR next_load_date_time IS NOT NULL"
                ).fetchall()
        except (psycopg.OperationalError, psycopg.InterfaceError):
            return False
        return left == 0

    until(at_rest, REST_SECONDS, "every table loaded and at rest", every=0.2)


def _left(platform: Platform) -> list[Any]:
    with platform.control() as con:
        return con.execute(
            "SELECT destination_table_name, last_status, attempt, lease_expires_at - now(), state, reason "
            "FROM control.table_readiness JOIN control.table_control USING (config_id, destination_table_name, last_status, "
            "attempt) WHERE state <> 'no schedule'"
        ).fetchall()


def _figures(con: psycopg.Connection[Any]) -> dict[str, Any]:
    attempts = books.history(con)
    messages = con.execute(
        "SELECT regexp_replace(left(log_message, 70), '[0-9a-f-]{8,}|[0-9]+', '#', 'g'), count(*) "
        "FROM control.historical_metadata WHERE load_status <> 'Succeeded' GROUP BY 1 ORDER BY 2 DESC LIMIT 12"
    ).fetchall()
    return {
        "attempts": len(attempts),
        "outcomes": dict(Counter(str(a.status) for a in attempts)),
        "causes": dict(messages),
    }


def _tail(platform: Platform) -> dict[str, str]:
    return {p.name: p.read_text("utf-8", "replace")[-3000:] for p in platform.folder.glob("*.log")}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
