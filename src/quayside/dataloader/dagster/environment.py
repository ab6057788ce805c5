"""What DAGSTER_ENVIRONMENT changes: names of sensors and assets end in ``_npd`` or ``_prod``; unset, they do not.

It is read while the location is imported, from the environment or ``.env``, without the other settings: one of those may be
wrong, and the location is to load all the same.
"""

from __future__ import annotations

import os
from typing import Final, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings

from quayside.foundation.errors import SettingsError
from quayside.foundation.settings import Settings, project_root

#: Who looks after this location's jobs and assets.
OWNER: Final = "team:dataloader"
GROUP: Final = "dataloader"


class _Environment(BaseSettings):
    model_config = Settings.model_config

    dagster_environment: Literal["npd", "prod"] | None = Field(None, validation_alias="DAGSTER_ENVIRONMENT")


def suffix() -> str:
    """``_npd``, ``_prod`` or nothing.

    Raises:
        SettingsError: DAGSTER_ENVIRONMENT is something else.
    """
    try:
        found = _Environment(_env_file=os.environ.get("QUAYSIDE_ENV_FILE") or project_root() / ".env")  # pyright: ignore[reportCallIssue] - pydantic's own argument
    except ValidationError:
        raise SettingsError("DAGSTER_ENVIRONMENT must be npd or prod, or not set at all.") from None
    return f"_{found.dagster_environment}" if found.dagster_environment else ""


def named(name: str) -> str:
    """The name as this environment has it."""
    return f"{name}{suffix()}"
