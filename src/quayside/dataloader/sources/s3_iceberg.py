"""Iceberg tables on S3, found by their files and read by PyIceberg without a catalog.

The field ``s3_warehouse`` is where the tables are; a table is the folder ``<schema>/<table>`` or ``<schema>.db/<table>`` below it.
Its newest metadata is the one that ``version-hint.text`` names, else the file of ``metadata/`` written last. That and its current
snapshot are held for the whole load, so every read sees one state. Predicates are pushed down to partitions, files and
rows; data comes a file at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from quayside.dataloader.errors import SourceRefusedError, SourceUnavailableError, UnsupportedTypeError
from quayside.dataloader.sources.drivers import as_table, needs_driver
from quayside.dataloader.sources.failures import without_secrets
from quayside.dataloader.sources.fields import PROTECTION, Field, whole
from quayside.foundation.errors import InputError, QuaysideError
from quayside.foundation.lake.sql import reason

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa
    from pyiceberg.expressions import BooleanExpression
    from pyiceberg.table import DataScan, StaticTable

    from quayside.dataloader.request import LoadRequest
    from quayside.dataloader.sources.arrow import ArrowTable
    from quayside.dataloader.sources.ranges import Range
    from quayside.dataloader.sources.source import Predicate

FIELDS: Final = (
    Field("s3_warehouse", required=True),
    Field("aws_access_key_id", required=True),
    Field("aws_secret_access_key", required=True),
    Field("aws_session_token"),
    Field("aws_region", default="us-east-1"),
    Field("aws_endpoint_url", plain=True),
    *PROTECTION,
)
_METADATA: Final = re.compile(r"(?:v(\d+)|(\d+)-[^/]*)(?:\.gz)?\.metadata\.json(?:\.gz)?")
_LOST: Final = ("timeout", "timed out", "connect", "network", "slow_down", "slowdown", "503", "500", "curl")


@contextmanager
def open(
    con: duckdb.DuckDBPyConnection, request: LoadRequest, fields: Mapping[str, str]
) -> Iterator[ArrowTable]:
    """Open the request's table; see `quayside.dataloader.sources.source.Source.open`."""
    if request.query:
        raise InputError(
            f"Source {request.db_config_key} is Iceberg files, which take no query: name a table."
        )
    needs_driver("pyiceberg", "iceberg", "s3_iceberg", request.db_config_key)
    with as_table(con, request, IcebergSource(request, fields), 1) as table:
        yield table


class IcebergSource:
    """One snapshot of a table; `quayside.dataloader.sources.arrow.ArrowSource`."""

    snapshot = True

    def __init__(self, request: LoadRequest, fields: Mapping[str, str]) -> None:
        from pyiceberg.io.pyarrow import UnsupportedPyArrowTypeException, schema_to_pyarrow
        from pyiceberg.table import StaticTable

        self._source = request.db_config_key
        self._fields = fields
        self._clock = datetime.now(UTC)
        try:
            location = _newest(request, fields)
            self._table: StaticTable = StaticTable.from_metadata(location, _properties(request, fields))
        except QuaysideError:
            raise
        except Exception as error:  # noqa: BLE001  PyArrow's, obstore's and PyIceberg's have no base of their own
            raise self._meaning(error) from None
        self.name = ".".join(filter(None, [request.source_schema_name, request.source_table_name]))
        schema = self._table.schema()
        keys = schema.identifier_field_names()
        self.primary_key: Sequence[str] = [f.name for f in schema.fields if f.name in keys]
        self.source_types: Sequence[str] = [str(f.field_type) for f in schema.fields]
        try:
            self.schema: pa.Schema = schema_to_pyarrow(schema, include_field_ids=False)
        except (UnsupportedPyArrowTypeException, NotImplementedError, TypeError) as error:
            raise UnsupportedTypeError(
                f"Table {self.name} of source {self._source} has a column that Arrow has no type for: {reason(error)}."
            ) from None

    def clock(self) -> datetime:
        # S3 has no clock to ask for; a snapshot is no younger than this machine's time when it was found.
        return self._clock

    def local_clock(self) -> datetime:
        return self._clock.replace(tzinfo=None)

    def count(self, where: Predicate) -> int:
        with self._errors():
            return sum(batch.num_rows for batch in self._read([], where)) if where else self._scan().count()

    def bounds(self, column: str, where: Predicate) -> tuple[Any, Any]:
        import pyarrow as pa
        import pyarrow.compute as pc

        least = greatest = None
        with self._errors():
            for batch in self._read([column], where):
                ends: Any = pc.min_max(batch.column(0))  # pyright: ignore[reportAttributeAccessIssue]  made at run time
                low, high = ends["min"], ends["max"]
                if low.as_py() is None:
                    continue
                assert isinstance(low, pa.Scalar)
                least = low.as_py() if least is None else min(least, low.as_py())
                greatest = high.as_py() if greatest is None else max(greatest, high.as_py())
        return least, greatest

    def batches(
        self, columns: Sequence[str], where: Predicate, part: tuple[str, Range] | None
    ) -> Iterable[pa.RecordBatch]:
        import pyarrow as pa

        assert part is None  # it is opened for one connection
        schema = pa.schema([self.schema.field(name) for name in columns])
        for batch in self._read(columns, where):
            # PyIceberg keeps the table's order, and may choose larger offsets for text and bytes.
            yield batch.select(list(columns)).cast(schema)

    def explain(self, error: Exception) -> QuaysideError | None:
        return self._meaning(error)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except QuaysideError:
            raise
        except Exception as error:  # noqa: BLE001  PyArrow's, obstore's and PyIceberg's have no base of their own
            raise self._meaning(error) from None

    def _scan(self, columns: Sequence[str] | None = None, where: Predicate = ()) -> DataScan:
        # The table is its metadata of that moment, so this is the same snapshot every time.
        return self._table.scan(
            _filter(where, self.schema), tuple(columns) if columns is not None else ("*",)
        )

    def _read(self, columns: Sequence[str], where: Predicate) -> Iterator[pa.RecordBatch]:
        """Batches of at least these columns."""
        from pyiceberg.io.pyarrow import ArrowScan

        # Rows without a column have no number: one is read to be counted.
        scan = self._scan(columns or [self.schema.names[0]], where)
        reader = ArrowScan(self._table.metadata, self._table.io, scan.projection(), scan.row_filter)
        # Given all the files at once, PyIceberg reads them all at once, into memory.
        for task in scan.plan_files():
            yield from reader.to_record_batches([task])

    def _meaning(self, error: Exception) -> QuaysideError:
        said = without_secrets(reason(error), self._fields)
        words = said.lower()
        if isinstance(error, FileNotFoundError):
            return SourceRefusedError(f"Source {self._source} lacks a file of the table: {said}.")
        if (
            isinstance(error, PermissionError)
            or "access_denied" in words
            or "forbidden" in words
            or "403" in words
        ):
            return SourceRefusedError(f"Source {self._source} refuses: {said}.")
        if isinstance(error, OSError | TimeoutError) or any(sign in words for sign in _LOST):
            return SourceUnavailableError(f"Source {self._source} does not answer: {said}.")
        return InputError(f"Source {self._source} cannot be read: {said}.")


def _newest(request: LoadRequest, fields: Mapping[str, str]) -> str:
    """Where the newest metadata of the table is."""
    import obstore
    from obstore.exceptions import BaseError
    from obstore.store import S3Store

    from quayside.foundation.objects import S3Access

    source, schema, table = request.db_config_key, request.source_schema_name, request.source_table_name
    place = urlsplit(fields["s3_warehouse"])
    if place.scheme not in ("s3", "s3a", "s3n") or not place.netloc:
        raise InputError(f"Field s3_warehouse of source {source} is not s3://bucket/folder.")
    if any(
        part in ("", ".", "..") for name in (schema, table) if name is not None for part in name.split("/")
    ):
        raise InputError(
            f"Table {table!r} leaves the warehouse of source {source}: name something inside it."
        )
    access = S3Access(
        fields["aws_access_key_id"],
        fields["aws_secret_access_key"],
        fields.get("aws_session_token"),
        fields["aws_region"],
        fields.get("aws_endpoint_url"),
    )
    seconds = f"{whole(source, fields, 'connect_timeout_seconds')}s"
    store = S3Store(
        place.netloc,
        config=access.options(),  # pyright: ignore[reportArgumentType]  its names are checked at run time
        client_options={"connect_timeout": seconds, "timeout": "60s", "allow_http": True},
        retry_config={"max_retries": 2},
    )
    base = place.path.strip("/")
    folders = [f"{schema}/{table}", f"{schema}.db/{table}"] if schema else [table]
    try:
        for folder in folders:
            prefix = "/".join(filter(None, [base, folder, "metadata"]))
            found: list[tuple[datetime, int, str]] = []
            hint = False
            for entry in obstore.list_with_delimiter(store, prefix)["objects"]:
                name = entry["path"].rpartition("/")[2]
                hint = hint or name == "version-hint.text"
                if match := _METADATA.fullmatch(name):
                    found.append((entry["last_modified"], int(match[1] or match[2]), name))
            address = f"{place.scheme}://{place.netloc}/{prefix}"
            if hint:
                text = obstore.get(store, f"{prefix}/version-hint.text").bytes().to_bytes()
                version = text.decode("utf-8", "replace").strip()
                wanted = [name for _, _, name in found if name == version or name.startswith(f"v{version}.")]
                if not wanted:
                    raise SourceRefusedError(
                        f"Source {source}: version-hint.text of {folder} names metadata that is not there: {version!r}."
                    )
                return f"{address}/{wanted[0]}"
            if found:
                # S3 tells whole seconds; within one the number decides. It alone does not: a table that was dropped and
                # created again in its old folder starts from nought.
                return f"{address}/{max((at.replace(microsecond=0), number, name) for at, number, name in found)[2]}"
    except BaseError as error:
        said = without_secrets(reason(error), fields)
        denied = any(
            sign in said.lower() for sign in ("403", "forbidden", "accessdenied", "nosuchbucket", "404")
        )
        kind = SourceRefusedError if denied else SourceUnavailableError
        raise kind(f"Source {source} {'refuses' if denied else 'does not answer'}: {said}.") from None
    raise SourceRefusedError(
        f"Source {source} has no Iceberg metadata at {' or '.join(folders)} below {fields['s3_warehouse']}: names are "
        "taken exactly as written."
    )


def _properties(request: LoadRequest, fields: Mapping[str, str]) -> dict[str, str]:
    names = {
        "s3.access-key-id": "aws_access_key_id",
        "s3.secret-access-key": "aws_secret_access_key",
        "s3.session-token": "aws_session_token",
        "s3.region": "aws_region",
        "s3.endpoint": "aws_endpoint_url",
    }
    return {
        **{key: fields[name] for key, name in names.items() if name in fields},
        "s3.connect-timeout": str(whole(request.db_config_key, fields, "connect_timeout_seconds")),
        "s3.request-timeout": "60",
    }


def _filter(where: Predicate, schema: pa.Schema) -> BooleanExpression:
    from pyiceberg import expressions as e

    kinds: dict[str, Any] = {
        "=": e.EqualTo,
        ">": e.GreaterThan,
        ">=": e.GreaterThanOrEqual,
        "<": e.LessThan,
        "<=": e.LessThanOrEqual,
    }
    wanted: BooleanExpression = e.AlwaysTrue()
    for comparison in where:
        # By reference and not by name, which is parsed.
        column: Any = e.Reference(comparison.column)
        if comparison.operator == "is null":
            one: Any = e.IsNull(column)  # pyright: ignore[reportCallIssue]  its metaclass hides the argument
        elif comparison.operator == "is not null":
            one = e.NotNull(column)  # pyright: ignore[reportCallIssue]
        else:
            one = kinds[comparison.operator](
                column, _literal(comparison.value, schema.field(comparison.column).type)
            )
        wanted = e.And(wanted, one)
    return wanted


def _literal(value: Any, type_: pa.DataType) -> Any:
    """A value as PyIceberg converts it to the column: by way of its text, where the kinds differ."""
    import pyarrow as pa

    if pa.types.is_floating(type_):
        return float(value)
    if isinstance(value, datetime):
        zoned = pa.types.is_timestamp(type_) and type_.tz is not None
        return value.isoformat() if zoned and value.tzinfo else value.replace(tzinfo=None).isoformat()
    if isinstance(value, date) and pa.types.is_timestamp(type_):
        zone = "+00:00" if type_.tz is not None else ""
        return f"{value.isoformat()}T00:00:00{zone}"
    return value
