"""The connection fields of a ``db_type`` and their values.

``db_config_value`` maps a field to the name of a secret. A number, or ``{"value": …}``, is the value itself; a field
that is `plain` by its nature (a path, an option) always is. What is secret is taken by name alone, so that no password
can be stored by mistake. `BUNDLE` names one secret that holds several fields as JSON; a field of its own goes before it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import SecretStr

from quayside.dataloader.secrets import Scope
from quayside.foundation.errors import InputError, SettingsError
from quayside.foundation.secrets import remember

#: In ``db_config_value`` of any ``db_type``: the name of a secret that is a JSON object, field → value.
BUNDLE: Final = "secret_bundle"
#: Fields that are secret wherever they occur: taken by name alone, and masked in every text. The others, also where they
#: are resolved from a scope, say where a source is, and its errors would be of no use without them.
SECRET_FIELDS: Final = frozenset(
    {"password", "pem_private_key", "pem_passphrase", "token", "client_secret", "aws_access_key_id",
     "aws_secret_access_key", "aws_session_token", BUNDLE}
)  # fmt: skip


@dataclass(frozen=True)
class Field:
    """One connection field.

    Attributes:
        aliases: other names under which configurations hold it.
        default: value when it is not given; only looked at when it is not `required`.
    """

    name: str
    required: bool = False
    plain: bool = False
    aliases: tuple[str, ...] = ()
    default: str | None = None

    @property
    def secret(self) -> bool:
        """Whether it is taken by name alone."""
        return self.name in SECRET_FIELDS


#: How every server is treated with care; of `table_control_dbconfig` or of its ``db_config_value``.
PROTECTION: Final = (
    Field("application_name", plain=True, default="quayside dataloader"),
    Field("connect_timeout_seconds", plain=True, default="10"),
    Field("statement_timeout_seconds", plain=True, default="10800"),
    Field("max_connections", plain=True, default="4"),
)


def field_problems(fields: Sequence[Field], values: Mapping[str, Any]) -> list[str]:
    """What is wrong with the fields of a source by their names alone: no secret is looked up."""
    names = _names(fields)
    given = Counter(names[name].name for name, value in values.items() if name in names and value is not None)
    wrong = [f"{name} is not a field of it" for name in values if name not in names and name != BUNDLE]
    wrong += [f"{name} is given twice" for name, times in given.items() if times > 1]
    if values.get(BUNDLE) is None:
        wrong += [f"{f.name} is missing" for f in fields if f.required and f.name not in given]
    return wrong


def _names(fields: Sequence[Field]) -> dict[str, Field]:
    return {alias: field for field in fields for alias in (field.name, *field.aliases)}


def resolve_fields(
    db_config_key: str, fields: Sequence[Field], values: Mapping[str, Any], scope: Scope
) -> dict[str, str]:
    """Field → value, of those that are given or have a default.

    Raises:
        InputError: a field is missing, unknown or malformed; all of them are named.
        SettingsError: a secret is missing; it and its field are named.
    """
    wrong = field_problems(fields, values)
    names = _names(fields)
    bundle = values.get(BUNDLE)
    given = {
        names[name].name: (names[name], value)
        for name, value in values.items()
        if name in names and value is not None
    }
    resolved = {f.name: f.default for f in fields if f.default is not None}
    if bundle is not None:
        bundled = _bundle(db_config_key, names, bundle, scope)
        # What an error may show is masked from then on, also where a field of its own goes before it.
        resolved |= bundled
        wrong += [
            f"{f.name} is missing, in the bundle too"
            for f in fields
            if f.required and f.name not in given.keys() | bundled.keys()
        ]
    for name, (field, value) in given.items():
        try:
            resolved[name] = _value(field, value, scope)
        except InputError as error:
            wrong.append(f"{name} {error}")
        except SettingsError as error:
            raise SettingsError(f"Source {db_config_key}, field {name}: {error}") from None
    if wrong:
        known = ", ".join(f.name for f in fields)
        raise InputError(
            f"db_config_value of source {db_config_key} is not usable: {'; '.join(wrong)}. Its fields are {known}."
        )
    return resolved


def _value(field: Field, value: Any, scope: Scope) -> str:
    if isinstance(value, dict) and value.keys() == {"value"}:
        value, plain = value["value"], True
    else:
        plain = field.plain or isinstance(value, int | float)
    if plain and field.secret:
        raise InputError("has to be the name of a secret, not the secret")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and not plain:
        found = scope.get(value)
        if field.secret:
            remember(found)
        return found.get_secret_value()
    if not isinstance(value, str | int | float):
        raise InputError('is neither the name of a secret nor {"value": …}')
    return str(value)


def _bundle(db_config_key: str, names: Mapping[str, Field], name: Any, scope: Scope) -> dict[str, str]:
    """The fields of the bundle; what it holds besides them belongs to somebody else."""
    if not isinstance(name, str):
        raise InputError(f"Field {BUNDLE} of source {db_config_key} has to be the name of a secret.")
    try:
        text = scope.get(name).get_secret_value()
    except SettingsError as error:
        raise SettingsError(f"Source {db_config_key}, field {BUNDLE}: {error}") from None
    try:
        values = json.loads(text)
    except ValueError:  # its text would show the secret
        values = None
    if not isinstance(values, dict):
        raise SettingsError(
            f"Source {db_config_key}, field {BUNDLE}: secret {name} is no JSON object of field and value."
        )
    found: dict[str, str] = {}
    for key, value in values.items():
        field = names.get(key)
        if field is None or value is None:
            continue
        if not isinstance(value, str | int | float):
            raise SettingsError(
                f"Source {db_config_key}, field {BUNDLE}: {key} in secret {name} is neither text nor a number."
            )
        found[field.name] = str(value).lower() if isinstance(value, bool) else str(value)
        if field.secret:
            remember(SecretStr(found[field.name]))
    return found


def whole(db_config_key: str, fields: Mapping[str, str], name: str, least: int = 1) -> int:
    """A field as a whole number.

    Raises:
        InputError: it is none, or less than `least`.
    """
    try:
        number = int(fields[name])
    except ValueError:
        number = least - 1
    if number < least:
        raise InputError(f"Field {name} of source {db_config_key} is not a whole number of at least {least}.")
    return number
