"""Scopes of secrets: where the names in a source's configuration lead.

The control database holds names alone. They are resolved here, in the process that loads, and nowhere else. A scope is ``kind`` or
``kind:argument``. One more kind is one more module with a function ``open_scope(settings, argument)`` and a line in
`SCOPES`. Belongs here: finding values. Does not belong here: what a field of a source means (``sources/fields.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from quayside.foundation import secrets
from quayside.foundation.errors import SettingsError

if TYPE_CHECKING:
    from pydantic import SecretStr

    from quayside.foundation.settings import Settings

#: Where Docker, and most charts for Kubernetes, mount secrets.
DEFAULT_FOLDER: Final = Path("/run/secrets")


class Scope(Protocol):
    """One place that holds secrets by name."""

    def get(self, name: str) -> SecretStr:
        """The secret called `name`.

        Raises:
            SettingsError: there is none, or it cannot be used; the sentence names it and never a value.
            ServiceUnavailableError: the place does not answer.
        """
        ...


class EnvironmentScope:
    """``env``: a name is a variable of the environment. With an argument, that is put before every name."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def get(self, name: str) -> SecretStr:
        return secrets.look_up(f"env:{self._prefix}{name}")


class FileScope:
    """``file``: a name is a file in ``/run/secrets``, or in the folder given as argument; or an absolute path."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder) if folder else DEFAULT_FOLDER

    def get(self, name: str) -> SecretStr:
        if ".." in Path(name).parts:
            raise SettingsError(f"Secret {name!r} leaves the folder of its scope: name a file inside it.")
        return secrets.look_up(f"file:{self._folder / name}")


Opener = Callable[["Settings", str], Scope]

#: Kind → the function that opens it, or the module that has one called ``open_scope``.
SCOPES: Final[dict[str, Opener | str]] = {
    "azure-keyvault": "quayside.dataloader.azure_keyvault",
    "env": lambda _, argument: EnvironmentScope(argument),
    "file": lambda _, argument: FileScope(argument),
}


def open_scope(settings: Settings, scope: str) -> Scope:
    """The scope that ``table_control_dbconfig.db_kv_scope`` names.

    Raises:
        SettingsError: no such kind of scope.
    """
    kind, _, argument = scope.partition(":")
    opener = SCOPES.get(kind)
    if opener is None:
        raise SettingsError(
            f"There is no scope of secrets {kind!r}: db_kv_scope is one of {', '.join(sorted(SCOPES))}."
        )
    if isinstance(opener, str):
        opener = import_module(opener).open_scope
    return opener(settings, argument)
