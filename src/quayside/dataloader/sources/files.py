"""Parquet and CSV: one file, a glob, or a folder and all below it, on this machine or on S3.

The field ``path`` is where the data is, ``source_schema_name`` a folder in it, ``source_table_name`` a file, a glob or a
folder in that. Which files belong to a table is looked up once, when it is opened. Values of a CSV arrive as the text
that they are, since guessing would make 7 of 007; the field ``types`` set to ``detect`` guesses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from quayside.dataloader.errors import SourceRefusedError, SourceUnavailableError
from quayside.dataloader.sources import scanner
from quayside.dataloader.sources.counting import LARGE_BYTES, CountingFilter
from quayside.dataloader.sources.duckdb_table import DuckTable
from quayside.dataloader.sources.failures import without_secrets
from quayside.dataloader.sources.fields import Field
from quayside.foundation.errors import InputError, QuaysideError
from quayside.foundation.lake.sql import literal, reason

if TYPE_CHECKING:
    import duckdb

    from quayside.dataloader.request import LoadRequest

FIELDS: Final = (
    Field("path", required=True, plain=True),
    Field("aws_access_key_id"),
    Field("aws_secret_access_key"),
    Field("aws_session_token"),
    Field("aws_region", plain=True, default="us-east-1"),
    Field("aws_endpoint_url", plain=True),
    # Not guessed: a guess about a broken file finds rows in it that are none.
    Field("delimiter", plain=True, default=","),
    Field("header", plain=True, default="true"),
    Field("quote", plain=True, default='"'),
    Field("null_text", plain=True, default=""),
    Field("types", plain=True, default="text"),
)
_READERS: Final = {"parquet": "read_parquet", "csv": "read_csv"}
#: Suffixes looked for in a folder.
_SUFFIXES: Final = {"parquet": ("parquet",), "csv": ("csv", "csv.gz", "csv.zst", "tsv", "txt")}
_GLOB: Final = re.compile(r"[*?\[]")


@contextmanager
def open(
    con: duckdb.DuckDBPyConnection, request: LoadRequest, fields: Mapping[str, str]
) -> Iterator[DuckTable]:
    """Open the request's files; see `quayside.dataloader.sources.source.Source.open`."""
    import duckdb

    kind, source = request.db_type, request.db_config_key
    if request.query:
        raise InputError(
            f"Source {source} is {kind} files, which take no query: name a file, a glob or a folder."
        )
    with ExitStack() as stack:
        where = "/".join(filter(None, [request.source_schema_name, request.source_table_name]))
        if ".." in Path(where).parts or where.startswith("/"):
            raise InputError(f"Table {where!r} leaves the path of source {source}: name something inside it.")

        def explain(error: Exception) -> QuaysideError:
            return _meaning(error, source, kind, where, fields)

        if is_remote := fields["path"].startswith("s3://"):
            stack.enter_context(_s3(con, fields))
            try:
                files = _remote(con, fields["path"].rstrip("/"), where, kind)
            except duckdb.Error as error:
                raise explain(error) from None
        else:
            files = _local(Path(fields["path"]).expanduser(), where, kind)
        if not files:
            raise SourceRefusedError(f"Source {source} has no {kind} file at {where!r}.")
        # DuckDB takes a name for a pattern; in brackets a character stands for itself.
        listed = ", ".join(literal(_GLOB.sub(r"[\g<0>]", name)) for name in files)
        options = "".join(f", {name} := {value}" for name, value in _options(kind, source, fields).items())
        relation = f"{_READERS[kind]}([{listed}], union_by_name := true{options})"
        table = DuckTable(con, source, where, relation, explain, snapshot=True)
        try:
            large = is_remote or sum(Path(name).stat().st_size for name in files) >= LARGE_BYTES
        except OSError as error:  # a file that went away meanwhile
            raise explain(error) from None
        table.counting = stack.enter_context(CountingFilter.made(con, large=large))
        yield table


def _meaning(
    error: Exception, source: str, kind: str, where: str, fields: Mapping[str, str]
) -> QuaysideError:
    said = without_secrets(reason(error), fields)
    if any(sign in said for sign in ("403", "401", "AccessDenied", "Permission")):
        return SourceRefusedError(f"Source {source} refuses {where!r}: {said}.")
    if any(sign in said for sign in ("HTTP", "connect", "imeout")):
        return SourceUnavailableError(f"Source {source} does not answer for {where!r}: {said}.")
    return InputError(f"{kind.upper()} file of source {source} ({where}) cannot be read: {said}.")


def _options(kind: str, source: str, fields: Mapping[str, str]) -> dict[str, str]:
    if kind == "parquet":
        return {}
    for name, allowed in (("types", ("text", "detect")), ("header", ("true", "false"))):
        if fields[name] not in allowed:
            raise InputError(
                f"Field {name} of source {source} is {' or '.join(allowed)}, not {fields[name]!r}."
            )
    names = {"delimiter": "delim", "quote": "quote", "null_text": "nullstr"}
    return {
        "strict_mode": "true",
        "header": fields["header"],
        "all_varchar": str(fields["types"] == "text").lower(),
        "escape": literal(fields["quote"]),
        "skip": "0",
        **{option: literal(fields[name]) for name, option in names.items()},
    }


def _local(folder: Path, where: str, kind: str) -> list[str]:
    place = folder / where
    if place.is_file():
        found = [place]
    elif place.is_dir():
        found = [file for suffix in _SUFFIXES[kind] for file in place.rglob(f"*.{suffix}") if file.is_file()]
    else:
        found = [file for file in folder.glob(where) if file.is_file()]
    return [str(file) for file in sorted(set(found))]


def _remote(con: duckdb.DuckDBPyConnection, prefix: str, where: str, kind: str) -> list[str]:
    place = f"{prefix}/{where}"
    is_one = where.endswith(_SUFFIXES[kind]) or _GLOB.search(where)
    patterns = [place] if is_one else [f"{place}/**/*.{suffix}" for suffix in _SUFFIXES[kind]]
    found = {
        row[0]
        for pattern in patterns
        for row in con.execute("SELECT file FROM glob(?)", [pattern]).fetchall()
    }
    return sorted(found)


@contextmanager
def _s3(con: duckdb.DuckDBPyConnection, fields: Mapping[str, str]) -> Iterator[None]:
    scanner.load(con, "httpfs")
    names = {
        "KEY_ID": "aws_access_key_id",
        "SECRET": "aws_secret_access_key",
        "SESSION_TOKEN": "aws_session_token",
    }
    values = {key: fields[name] for key, name in names.items() if name in fields}
    values |= {"REGION": fields["aws_region"], "SCOPE": fields["path"]}
    if endpoint := fields.get("aws_endpoint_url"):
        scheme, _, host = endpoint.partition("://")
        values |= {
            "ENDPOINT": host.rstrip("/"),
            "URL_STYLE": "path",
            "USE_SSL": str(scheme == "https").lower(),
        }
    with scanner.secret(con, "s3", values):
        yield
