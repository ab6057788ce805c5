"""The platform's Dagster instance for code that runs jobs itself, without DAGSTER_HOME being set."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from dagster._core.instance.ref import InstanceRef

from quayside.foundation.dagster.storage import files_folder
from quayside.foundation.processes import private_folder
from quayside.foundation.settings import Settings, project_root


@contextmanager
def open_instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    """The instance that the project's ``dagster.yaml`` describes: what plain ``dagster …`` commands there use."""
    folder = files_folder(settings)
    private_folder(folder)
    with dg.DagsterInstance.from_ref(
        InstanceRef.from_dir(str(folder), config_dir=str(project_root()))
    ) as instance:
        yield instance
