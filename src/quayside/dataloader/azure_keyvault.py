"""The scope ``azure-keyvault``: a name is a secret of an Azure key vault.

``azure-keyvault:NAME`` is the vault ``https://NAME.vault.azure.net``; a whole address may stand there for other clouds; without
an argument it is the variable AZURE_KEYVAULT_URL. Who asks is what Azure's own library finds: the variables AZURE_CLIENT_ID …, a
workload's or a machine's identity, ``az login``. The library is imported when the first secret is asked for. Values are
kept for the one load that this scope belongs to.
"""

from __future__ import annotations

import os
import re
import weakref
from typing import TYPE_CHECKING, Any, Final

from pydantic import SecretStr

from quayside.dataloader.errors import DriverMissingError
from quayside.foundation.errors import ServiceUnavailableError, SettingsError
from quayside.foundation.secrets import redact, remember

if TYPE_CHECKING:
    from azure.keyvault.secrets import SecretClient

    from quayside.foundation.settings import Settings

URL_VARIABLE: Final = "AZURE_KEYVAULT_URL"
_VAULT: Final = re.compile(r"[0-9A-Za-z-]{3,24}")
#: What Azure allows; anything else could reach another path of its interface.
_NAME: Final = re.compile(r"[0-9A-Za-z-]{1,127}")
#: Of the library's, so that a vault that is gone is noticed in seconds: its own are minutes.
_PATIENCE: Final[dict[str, Any]] = {
    "retry_total": 2,
    "retry_backoff_factor": 0.2,
    "connection_timeout": 10,
    "read_timeout": 20,
}


class KeyVaultScope:
    """The secrets of one vault, as `quayside.dataloader.secrets.Scope`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client: SecretClient | None = None
        self._found: dict[str, SecretStr] = {}

    def get(self, name: str) -> SecretStr:
        if name not in self._found:
            self._found[name] = self._ask(name)
        return self._found[name]

    def _ask(self, name: str) -> SecretStr:
        if not _NAME.fullmatch(name):
            raise SettingsError(
                f"Secret {name!r} is no name that a key vault can hold: letters, digits and hyphens, at most 127."
            )
        client = self._connected()
        from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError

        where = f"Secret {name} of the key vault {self._url}"
        try:
            value = client.get_secret(name).value
        except ClientAuthenticationError as error:
            raise SettingsError(
                f"{where} cannot be read, since Azure lets nobody sign in: {_said(error)}. Set AZURE_TENANT_ID, "
                "AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, or give this machine an identity."
            ) from None
        except HttpResponseError as error:
            raise _refusal(where, error) from None
        except (AzureError, ValueError) as error:  # ValueError: an answer of something that is no vault
            raise ServiceUnavailableError(
                f"{where} cannot be read, since the vault does not answer: {_said(error)}."
            ) from None
        if not value:
            raise SettingsError(f"{where} is empty.")
        return SecretStr(value)

    def _connected(self) -> SecretClient:
        if self._client is not None:
            return self._client
        try:
            from azure.identity import DefaultAzureCredential
            from azure.keyvault.secrets import SecretClient
        except ImportError:
            raise DriverMissingError(
                "The scope azure-keyvault needs Azure's libraries: install quayside[azure]."
            ) from None
        # What the library signs in with may be in its errors.
        if secret := os.environ.get("AZURE_CLIENT_SECRET"):
            remember(SecretStr(secret))
        # An authority of one's own is not known to Microsoft's directory, which is what the library would ask about it.
        own = bool(os.environ.get("AZURE_AUTHORITY_HOST"))
        credential = DefaultAzureCredential(disable_instance_discovery=own, **_PATIENCE)
        self._client = SecretClient(self._url, credential, **_PATIENCE)
        weakref.finalize(self, _close, self._client, credential)
        return self._client


def open_scope(settings: Settings, argument: str) -> KeyVaultScope:
    """`quayside.dataloader.secrets.open_scope` for this kind; nothing is asked yet.

    Raises:
        SettingsError: no vault is named.
    """
    del settings
    vault = argument or os.environ.get(URL_VARIABLE, "")
    if _VAULT.fullmatch(vault):
        vault = f"https://{vault}.vault.azure.net"
    if not vault.startswith("https://"):
        raise SettingsError(
            f"Scope azure-keyvault names no vault: write azure-keyvault:NAME or azure-keyvault:https://…, or set {URL_VARIABLE}."
        )
    return KeyVaultScope(vault.rstrip("/"))


def _refusal(where: str, error: Any) -> SettingsError | ServiceUnavailableError:
    status = error.status_code
    if status == 404:
        return SettingsError(f"{where} does not exist; create it, or correct its name.")
    if status == 403:
        return SettingsError(
            f"{where} may not be read: give this identity the role Key Vault Secrets User, and see that the secret is enabled."
        )
    if status is None or status == 429 or status >= 500:
        return ServiceUnavailableError(f"{where} cannot be read now: {_said(error)}.")
    return SettingsError(f"{where} cannot be read: {_said(error)}.")


def _said(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return redact(lines[0]).strip().rstrip(".")


def _close(*opened: Any) -> None:
    for each in opened:
        each.close()
