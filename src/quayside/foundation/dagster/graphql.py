"""The few questions and requests that `quayside up` has for the webserver, over its GraphQL."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, Final

from quayside.foundation.errors import ServiceUnavailableError, sentence

_LOCATIONS: Final = """
{ workspaceOrError { __typename
    ... on PythonError { message }
    ... on Workspace { locationEntries { name loadStatus locationOrLoadError { __typename
      ... on PythonError { message causes { message } } } } } } }
"""
_RUNS: Final = """
{ runsOrError(filter: {statuses: [STARTING, STARTED]}) { __typename ... on Runs { results { runId jobName } } } }
"""
_TERMINATE: Final = """
mutation ($runs: [String!]!) { terminateRuns(runIds: $runs, terminatePolicy: SAFE_TERMINATE) { __typename } }
"""
_INSTIGATORS: Final = """
{ repositoriesOrError { __typename ... on RepositoryConnection { nodes { name location { name }
    schedules { name scheduleState { status } } sensors { name sensorState { status } } } } } }
"""
_START_SCHEDULE: Final = """
mutation ($selector: ScheduleSelector!) { start: startSchedule(scheduleSelector: $selector) { __typename
    ... on PythonError { message } } }
"""
_START_SENSOR: Final = """
mutation ($selector: SensorSelector!) { start: startSensor(sensorSelector: $selector) { __typename
    ... on PythonError { message } } }
"""


@dataclass(frozen=True)
class Location:
    """A code location as the webserver sees it; ``error`` is the sentence that says why it did not load."""

    name: str
    loading: bool
    error: str | None

    @property
    def loaded(self) -> bool:
        """Whether its definitions are there."""
        return not self.loading and self.error is None


class Webserver:
    """A running Dagster webserver, by its URL."""

    def __init__(self, url: str, timeout_seconds: float = 20.0) -> None:
        self.url = url.rstrip("/")
        self._timeout_seconds = timeout_seconds

    def locations(self) -> list[Location]:
        """Every code location of the workspace."""
        workspace = self._ask(_LOCATIONS)["workspaceOrError"]
        if workspace["__typename"] != "Workspace":
            raise ServiceUnavailableError(
                f"Dagster could not read the workspace: {workspace['message'].strip()}"
            )
        return [_location(entry) for entry in workspace["locationEntries"]]

    def runs_in_flight(self) -> dict[str, str]:
        """Run id → job name of the runs that are starting or started."""
        return {run["runId"]: run["jobName"] for run in self._ask(_RUNS)["runsOrError"].get("results", [])}

    def terminate(self, run_ids: list[str]) -> None:
        """Ask runs to stop; they end as canceled."""
        self._ask(_TERMINATE, runs=run_ids)

    def start_everything(self) -> list[str]:
        """Switch on every schedule and sensor that is off; their names, as ``location/name``.

        Raises:
            ServiceUnavailableError: one could not be started; those before it are.
        """
        started: list[str] = []
        for repository in self._ask(_INSTIGATORS)["repositoriesOrError"]["nodes"]:
            location = repository["location"]["name"]
            for kind, mutation in (("schedule", _START_SCHEDULE), ("sensor", _START_SENSOR)):
                for instigator in repository[f"{kind}s"]:
                    if instigator[f"{kind}State"]["status"] == "RUNNING":
                        continue
                    selector = {
                        "repositoryLocationName": location,
                        "repositoryName": repository["name"],
                        f"{kind}Name": instigator["name"],
                    }
                    answer = self._ask(mutation, selector=selector)["start"]
                    name = f"{location}/{instigator['name']}"
                    if answer["__typename"] not in ("ScheduleStateResult", "Sensor"):
                        reason = answer.get("message", answer["__typename"]).strip()
                        raise ServiceUnavailableError(f"The {kind} {name} could not be switched on: {reason}")
                    started.append(name)
        return started

    def _ask(self, query: str, **variables: object) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 - our own loopback address
            f"{self.url}/graphql",
            data=json.dumps({"query": query, "variables": variables}).encode(),
            headers={"content-type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_seconds) as response:  # noqa: S310
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                raise ServiceUnavailableError(f"The webserver at {self.url} answers {error.code}.") from None
        except (OSError, HTTPException, ValueError) as error:
            raise ServiceUnavailableError(
                f"The webserver at {self.url} does not answer: {sentence(error)}"
            ) from None
        if answer.get("errors"):
            raise ServiceUnavailableError(
                f"The webserver refuses a question: {answer['errors'][0]['message']}"
            )
        return answer["data"]


def _location(entry: dict[str, Any]) -> Location:
    found = entry["locationOrLoadError"]
    error = None
    if found and found["__typename"] == "PythonError":
        # The innermost cause is what happened; the layers above it are Dagster's.
        messages = [found["message"], *(cause["message"] for cause in found["causes"])]
        error = (
            next(line for line in [*reversed(messages), "unknown error"] if line.strip())
            .strip()
            .splitlines()[0]
        )
    return Location(entry["name"], entry["loadStatus"] != "LOADED" or found is None, error)
