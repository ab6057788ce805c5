"""DuckDB's extensions, taken from their wheels: nothing is downloaded at run time, nothing is written to ``~/.duckdb``."""

from __future__ import annotations

import importlib.util
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Final

from quayside.foundation.errors import SettingsError
from quayside.foundation.lake.sql import literal
from quayside.foundation.processes import private_folder

if TYPE_CHECKING:
    import duckdb

#: Extensions of every lake connection; S3 needs ``httpfs`` as well.
LAKE_EXTENSIONS: Final = ("postgres_scanner", "ducklake")


def load_extensions(con: duckdb.DuckDBPyConnection, folder: Path, names: tuple[str, ...]) -> None:
    """Load extensions into a connection whose ``extension_directory`` is `folder`, linking them there when missing.

    They are loaded by their path in the wheel, and a connection with ``allow_unsigned_extensions`` (those of the lake) does
    not check signatures: 0.1 CPU seconds for each at every connection. A wheel's hash is pinned and checked when it is
    installed, and whoever can write there can write our own modules. The links are for other tools that use the same folder
    (dbt, a DuckDB shell); they find extensions by name, and check signatures.

    Raises:
        SettingsError: the wheel of an extension is not installed for this DuckDB and platform.
    """
    row = con.execute(
        "SELECT library_version, (SELECT platform FROM pragma_platform()) FROM pragma_version()"
    )
    version, platform = row.fetchone() or ("", "")
    for name in names:
        file = _wheel_file(name, version)
        _link(file, folder / version / platform / f"{name}.duckdb_extension")
        con.execute(f"LOAD {literal(str(file))}")


def _wheel_file(name: str, version: str) -> Path:
    spec = importlib.util.find_spec(f"duckdb_extension_{name}")
    for location in (spec and spec.submodule_search_locations) or ():
        file = Path(location) / "extensions" / version / f"{name}.duckdb_extension"
        if file.is_file():
            return file
    package = f"duckdb-extension-{name.replace('_', '-')}"
    raise SettingsError(
        f"DuckDB {version} has no extension {name} here: install {package}=={version.removeprefix('v')}, "
        "or install Quayside from requirements.lock."
    )


def _link(wheel_file: Path, link: Path) -> None:
    # A missing link, and one that points into an environment that was deleted, are both replaced; rename is atomic,
    # so that of many processes starting at once each finds a whole link.
    if link.exists():
        return
    private_folder(link.parent)
    new = link.with_name(f".{link.name}.{uuid.uuid4().hex}")
    new.symlink_to(wheel_file)
    new.replace(link)
