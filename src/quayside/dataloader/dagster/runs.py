"""Which Dagster run has which attempts: written in the run's tags when it is requested, found again by them.

One table: tags ``config_id``, ``control_key``, ``attempt``, ``table``. A batch: ``db_config_key``, ``table_count``, ``tables``.
Both: ``attempts``, such as ``12:3,13:1`` for attempt 3 of row 12 and attempt 1 of row 13, so that a run is understood without
its config.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import dagster as dg
from dagster._core.storage.tags import RUN_KEY_TAG

from quayside.dataloader.dagster.config import attempts_in, batch_run_config, table_run_config

if TYPE_CHECKING:
    from quayside.dataloader.control.client import LakebaseClient
    from quayside.dataloader.control.rows import Attempt
    from quayside.dataloader.request import LoadRequest

TABLE_JOB: Final = "dataloader_table_load"
BATCH_JOB: Final = "dataloader_batch_load"
ATTEMPTS_TAG: Final = "attempts"
#: Dagster ends a run after this; the monitor of long runs acts five minutes later.
TABLE_SECONDS: Final = 10_800
BACKFILL_SECONDS: Final = 86_400
#: Names of tables in a batch's tag are cut here.
_NAMES_LENGTH: Final = 200
#: Keys in one question to Dagster's database.
_CHUNK: Final = 500

UNFINISHED: Final = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)

#: (config_id, attempt)
Key = tuple[int, int]


def run_requests(requests: Sequence[LoadRequest], tables_per_run: int) -> list[dg.RunRequest]:
    """The runs that load claimed tables: one each, or up to `tables_per_run` of one database in one."""
    if tables_per_run == 1:
        return [_table_request(request) for request in requests]
    return [
        _table_request(group[0]) if len(group) == 1 else _batch_request(group)
        for group in grouped(requests, tables_per_run)
    ]


def grouped(requests: Sequence[LoadRequest], tables_per_run: int) -> list[list[LoadRequest]]:
    """Tables of one database and one kind of load together, in their order; a chunked backfill goes alone."""
    groups: dict[tuple[Any, ...], list[LoadRequest]] = {}
    for request in requests:
        alone = request.config_id if request.load_strategy == "chunked_backfill" else None
        groups.setdefault((request.db_config_key, request.load_full, alone), []).append(request)
    return [
        group[start : start + tables_per_run]
        for group in groups.values()
        for start in range(0, len(group), tables_per_run)
    ]


def _table_request(request: LoadRequest) -> dg.RunRequest:
    tags = {
        "config_id": str(request.config_id),
        "control_key": request.control_key,
        "attempt": str(request.attempt),
        "table": ".".join(request.destination),
        ATTEMPTS_TAG: f"{request.config_id}:{request.attempt}",
    }
    if request.load_strategy == "chunked_backfill":
        tags["dagster/max_runtime"] = str(BACKFILL_SECONDS)
    return dg.RunRequest(
        run_key=run_key([request]), job_name=TABLE_JOB, run_config=table_run_config(request), tags=tags
    )


def _batch_request(requests: Sequence[LoadRequest]) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=run_key(requests),
        job_name=BATCH_JOB,
        run_config=batch_run_config(requests),
        tags={
            "db_config_key": requests[0].db_config_key,
            "table_count": str(len(requests)),
            "tables": ", ".join(".".join(r.destination) for r in requests)[:_NAMES_LENGTH],
            ATTEMPTS_TAG: ",".join(f"{r.config_id}:{r.attempt}" for r in requests),
        },
    )


def run_key(requests: Sequence[LoadRequest]) -> str:
    """``<control_key>:<attempt>``; of a batch the first table's, with how many there are.

    Dagster remembers run keys for ever, failed runs included: hence the attempt in it.
    """
    first = requests[0]
    key = f"{first.control_key}:{first.attempt}"
    return key if len(requests) == 1 else f"{key}+{len(requests) - 1}"


def attempts_of(run: dg.DagsterRun) -> list[Key]:
    """The attempts a run is for: by its tags, else by its config."""
    try:
        pairs = (pair.split(":") for pair in run.tags.get(ATTEMPTS_TAG, "").split(","))
        return [(int(config_id), int(attempt)) for config_id, attempt in pairs]
    except ValueError:
        return attempts_in(run.run_config)


def run_url(webserver_url: str, run_id: str) -> str:
    """Where a run is shown."""
    return f"{webserver_url.rstrip('/')}/runs/{run_id}"


def runs_of(instance: dg.DagsterInstance, attempts: Sequence[Attempt]) -> dict[Key, dg.DagsterRun]:
    """The run of each attempt that has one. The work grows with the attempts, and with the batches since they were queued."""
    wanted = {(a.config_id, a.attempt): a for a in attempts}
    found: dict[Key, dg.DagsterRun] = {}

    def note(filter: dg.RunsFilter) -> None:
        # The newest come first, and a run that is executed again has the tags of the one before it: the newest counts.
        for run in instance.get_runs(filter):
            for key in attempts_of(run):
                if key in wanted:
                    found.setdefault(key, run)

    keys = [f"{a.control_key}:{a.attempt}" for a in attempts]
    for start in range(0, len(keys), _CHUNK):
        note(dg.RunsFilter(tags={RUN_KEY_TAG: keys[start : start + _CHUNK]}))
    if missing := [attempt.since for key, attempt in wanted.items() if key not in found]:
        note(dg.RunsFilter(job_name=BATCH_JOB, created_after=min(missing) - timedelta(minutes=1)))
    return found


def without_run(
    instance: dg.DagsterInstance, client: LakebaseClient, limit: int, older_than_seconds: float
) -> list[LoadRequest]:
    """At most `limit` tables, queued for longer than that, that no run was made for: the oldest ones."""
    before = datetime.now(UTC) - timedelta(seconds=older_than_seconds)
    queued = [a for a in client.running() if a.status == "Queued" and a.since < before]
    if not queued:
        return []
    known = runs_of(instance, queued)
    lost = [key for a in queued if (key := (a.config_id, a.attempt)) not in known][:limit]
    requests = {(r.config_id, r.attempt): r for r in client.queued(limit=len(queued))} if lost else {}
    return [requests[key] for key in lost if key in requests]
