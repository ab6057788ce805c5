"""One run's part in a load: rows In Progress, the worker started, each table's end reported, and no table left without one.

The worker writes the outcome of a table itself, next to its commit. What is closed here is what a worker left open: it never
started, was killed, or said nothing of a table, and silence is failure.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dagster._core.errors import DagsterExecutionInterruptedError

from quayside.dataloader.control.client import LakebaseClient
from quayside.dataloader.dagster.plane import Context, ExecutionPlane
from quayside.dataloader.dagster.report import materialized
from quayside.dataloader.dagster.runs import Key, run_url
from quayside.dataloader.errors import FencedError
from quayside.dataloader.request import LoadRequest
from quayside.dataloader.worker import Outcome
from quayside.foundation.errors import NotFoundError, QuaysideError, sentence
from quayside.foundation.secrets import redact


@dataclass
class Loading:
    """The tables of one run and how each of them ended so far."""

    context: Context
    lakebase: LakebaseClient
    webserver_url: str
    requests: dict[int, LoadRequest] = field(default_factory=dict)
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    #: Why tables got no outcome: what the worker said of its own end, else how it ended.
    cause: str | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, plane: ExecutionPlane, attempts: Sequence[Key]) -> list[Outcome]:
        """Load what is still Queued under its attempt; one outcome for each that was asked for.

        Raises:
            DagsterExecutionInterruptedError: the run was cancelled; every row has been closed.
        """
        for attempt in attempts:
            self._begin(*attempt)
        if self.requests:
            extras = {"tables": [request.to_json() for request in self.requests.values()]}
            try:
                plane.run(self.context, extras, self._hear)
            except DagsterExecutionInterruptedError:
                self._close_silent("Cancelled - its run was cancelled", "Cancelled")
                raise
            except Exception as error:  # noqa: BLE001 - whatever kept the worker from working is the cause of each silent table
                self.cause = self.cause or f"The worker said nothing of this table: {redact(sentence(error))}"
            self._close_silent(self.cause or "The worker said nothing of this table.", "Failed")
        return [self.outcomes[config_id] for config_id, _ in attempts]

    def _begin(self, config_id: int, attempt: int) -> None:
        url = run_url(self.webserver_url, self.context.run.run_id)
        try:
            self.requests[config_id] = self.lakebase.for_attempt(config_id, attempt).begin(url)
        except FencedError as error:
            self.context.log.warning(f"Nothing is loaded: {error}")
            self.outcomes[config_id] = Outcome(config_id, attempt, "Fenced", str(error))

    def _hear(self, message: Mapping[str, Any]) -> None:
        if "cause" in message:
            self.cause = message["cause"]
            return
        self._ended(Outcome.of_json(dict(message)))

    def _ended(self, outcome: Outcome) -> None:
        request = self.requests[outcome.config_id]
        with self._lock:
            self.outcomes[outcome.config_id] = outcome
            name = ".".join(request.destination)
            if outcome.ending == "Succeeded":
                for warning in outcome.result.warnings if outcome.result else ():
                    self.context.log.warning(f"{name}: {warning}")
                materialized(self.context, request.destination, outcome)
            else:
                self.context.log.error(f"{name} {outcome.ending}: {outcome.message}")

    def _close_silent(self, message: str, ending: Literal["Failed", "Cancelled"]) -> None:
        """Close the rows of tables that nothing was heard of."""
        for request in self.requests.values():
            if request.config_id in self.outcomes:
                continue
            client = self.lakebase.for_attempt(request.config_id, request.attempt)
            try:
                client.fail(message, outcome=ending)
                outcome = Outcome(request.config_id, request.attempt, ending, message)
            except FencedError as error:
                outcome = self._as_the_row_says(request, str(error))
            except QuaysideError as error:
                # The lease runs out and reconcile_monitor closes the row.
                outcome = Outcome(
                    request.config_id,
                    request.attempt,
                    ending,
                    f"{message} (The row could not be told: {error})",
                )
            self._ended(outcome)

    def _as_the_row_says(self, request: LoadRequest, message: str) -> Outcome:
        """Of a table that is over in its row: the worker was killed after it had written the outcome, or is fenced."""
        try:
            row = self.lakebase.get_table_details(request.config_id)
        except NotFoundError:
            row = {}
        if (row.get("attempt"), row.get("last_status")) == (request.attempt, "Succeeded"):
            return Outcome(request.config_id, request.attempt, "Succeeded", row["last_status_message"])
        return Outcome(request.config_id, request.attempt, "Fenced", message)
