"""Small tables of one source loaded together: read on one snapshot, written in one commit of the lake.

Most of what a small table costs is not its rows: a connection to its source, a commit of the lake, and, where tables are made, a
new version of the lake's schema that every connection reads again. Together tables share these. One table's trouble is not
shared: whatever goes wrong before the commit, nothing was written, the table at which it went wrong is left to be loaded alone,
and the others begin again without it. Belongs here: which tables may go together, and the one commit. Does not belong
here: how a table is loaded (`load`), and what becomes of those that are left (`worker`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any, Final

from quayside.dataloader.errors import FencedError
from quayside.dataloader.load import load_table
from quayside.dataloader.sources import registry
from quayside.foundation.errors import QuaysideError, ServiceUnavailableError, sentence
from quayside.foundation.secrets import redact

if TYPE_CHECKING:
    import duckdb

    from quayside.dataloader.control.client import LakebaseClient
    from quayside.dataloader.destinations.ducklake import DuckLakeDestination
    from quayside.dataloader.request import LoadRequest
    from quayside.dataloader.result import LoadResult
    from quayside.dataloader.worker_heartbeat import Progress
    from quayside.foundation.settings import Settings

_log = logging.getLogger(__name__)

#: At most so many tables in one commit: their outcomes are written after it, and a failure has them read again.
MOST: Final = 25
#: After so many tries, each without the tables that went wrong before, all are loaded alone.
_TRIES: Final = 3
#: Their loads are one commit each. The others commit several times, or compare with what only their own commit knows.
_STRATEGIES: Final = frozenset({"full", "incremental", "append_only", "rolling", "check_and_load"})


def may_go_together(request: LoadRequest) -> bool:
    """Whether a table may be in a group, as far as its row says."""
    catalog = request.destination_catalog
    return (
        request.load_strategy in _STRATEGIES
        and request.partition_column is None
        and not (catalog == "delta" or catalog.startswith("delta_"))
        and registry.shares(request)
    )


def load_together(
    settings: Settings,
    con: duckdb.DuckDBPyConnection,
    client: LakebaseClient,
    requests: Sequence[LoadRequest],
    progress: Callable[[int], Progress],
) -> list[tuple[LoadRequest, LoadResult]]:
    """Load tables of one database in one commit; those that were loaded, with their successes written to their rows.

    The others were loaded nowhere: they are too large, or something is in their way, which they meet again alone.

    Args:
        con: a connection of the settings' lake.
        client: of the control database.
        progress: of the table with this config_id.

    Raises:
        ServiceUnavailableError: the lake's catalog was lost during the commit; nobody knows whether it took place.
    """
    waiting = list(requests)
    for _ in range(_TRIES):
        group = _Group(settings, waiting, progress)
        try:
            with ExitStack() as stack:
                group.load(stack, con)
                return group.commit(client)
        except _LostCommitError as error:
            raise ServiceUnavailableError(str(error)) from error
        except Exception as error:  # noqa: BLE001 - it comes again where the table is loaded alone, and is told there
            _log.debug("Tables are loaded again, after %s: %s", type(error).__name__, redact(sentence(error)))
            waiting = [request for request in waiting if request is not group.at]
            if group.at is None or len(waiting) < 2:
                break
        finally:
            for request in waiting:
                progress(request.config_id).rest()
    return []


class _LostCommitError(Exception):
    """The lake's catalog went away during the commit."""


class _Group:
    """One try. `at`: the table that is being loaded, None when all are."""

    def __init__(
        self, settings: Settings, requests: Sequence[LoadRequest], progress: Callable[[int], Progress]
    ) -> None:
        self.at: LoadRequest | None = None
        self._settings = settings
        self._requests = requests
        self._progress = progress
        self._loaded: list[tuple[LoadRequest, DuckLakeDestination, LoadResult]] = []

    def load(self, stack: ExitStack, con: duckdb.DuckDBPyConnection) -> None:
        """Load all in one transaction, which `stack` takes back unless it was committed."""
        from quayside.dataloader.destinations.ducklake import DuckLakeDestination

        self._con = con = stack.enter_context(closing(con.cursor()))
        con.execute("SET TimeZone = 'UTC'")
        con.execute("USE memory")
        first = {request.destination[:2]: request for request in self._requests}
        for request in first.values():
            DuckLakeDestination(self._settings, con, request).prepare()
        table_of = stack.enter_context(registry.open_many(self._settings, con, self._requests[0]))
        con.execute("BEGIN")
        stack.callback(_roll_back, con)
        for request in self._requests:
            self.at = request
            source = table_of(request)
            if source is None:
                continue
            destination = DuckLakeDestination(self._settings, con, request, joined=True)
            progress = self._progress(request.config_id)
            progress.begin()
            result = load_table(
                self._settings,
                request,
                con=con,
                source=source,
                destination=destination,
                on_progress=progress.advance,
                cancelled=progress.cancelled,
                joined=True,
            )
            progress.rest()
            self._loaded.append((request, destination, result))
        self.at = None

    def commit(self, client: LakebaseClient) -> list[tuple[LoadRequest, LoadResult]]:
        """Commit while no attempt can be given up, and write the successes."""
        if not self._loaded:
            return []
        results: list[tuple[LoadRequest, LoadResult]] = []
        try:
            with client.hold_all([(r.config_id, r.attempt) for r, *_ in self._loaded]) as succeed:
                self._commit()
                results = [(r, _measured(destination, result)) for r, destination, result in self._loaded]
                for request, result in results:
                    succeed(request.config_id, request.attempt, result)
        except QuaysideError:
            # Once the lake has them they are there, and each says so for itself when the control database was lost.
            results = [(r, result) for r, result in results if self._succeeds(client, r, result)]
            if not results:
                raise
        return results

    def _succeeds(self, client: LakebaseClient, request: LoadRequest, result: LoadResult) -> bool:
        try:
            client.for_attempt(request.config_id, request.attempt).succeed(result)
        except FencedError:
            return False
        return True

    def _commit(self) -> None:
        import duckdb

        from quayside.foundation.lake.conflicts import is_connection_lost
        from quayside.foundation.lake.turns import turn

        try:
            with turn(self._settings):
                self._con.execute("COMMIT")
        except duckdb.Error as error:
            if is_connection_lost(error):
                raise _LostCommitError(
                    "The connection to the lake's catalog broke during a commit: see that PostgreSQL runs, and load the "
                    "table again."
                ) from error
            raise


def _measured(destination: DuckLakeDestination, result: LoadResult) -> LoadResult:
    import duckdb

    try:
        return destination.after_commit(result)
    except duckdb.Error:  # it is committed all the same, and only its size is not known
        return result


def _roll_back(con: Any) -> None:
    import duckdb

    try:
        con.execute("ROLLBACK")
    except duckdb.Error:  # committed, or ended by its own error
        return
