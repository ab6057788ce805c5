"""Vendors' databases without their servers: what a driver and a parser of SQL can show. docs/dataloader/sources.md says so.

Nothing here pretends to be a server's answer.
"""

from __future__ import annotations

import importlib
import socket
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from tests.conftest import make_settings
from tests.dataloader.hostile import HOSTILE
from tests.dataloader.servers import load_request

from quayside.dataloader.errors import DriverMissingError, SourceUnavailableError, UnsupportedTypeError
from quayside.dataloader.request import LoadRequest
from quayside.dataloader.sources import clickhouse, mssql, oracle, registry, snowflake
from quayside.dataloader.sources.drivers import meaning
from quayside.dataloader.sources.fields import PROTECTION
from quayside.dataloader.sources.ranges import Range
from quayside.dataloader.sources.source import Comparison, open_source
from quayside.foundation.errors import InputError, PermanentError, QuaysideError, TransientError

pytestmark = pytest.mark.integration

PASSWORD = "pl4nted;'}\"s3cret"
#: db_type → the driver's module, the extra, and the fields beside host and port.
VENDORS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "mssql": ("mssql_python", "mssql", {"service_name": {"value": "d"}, "password": "VENDOR_PASSWORD"}),
    "oracle": ("oracledb", "oracle", {"service_name": {"value": "d"}, "password": "VENDOR_PASSWORD"}),
    "clickhouse": ("clickhouse_connect", "clickhouse", {"password": "VENDOR_PASSWORD"}),
    "snowflake": (
        "snowflake.connector",
        "snowflake",
        {"service_name": {"value": "d"}, "warehouse": {"value": "w"}, "password": "VENDOR_PASSWORD"},
    ),
    "snowflake_pem": (
        "snowflake.connector",
        "snowflake",
        {"service_name": {"value": "d"}, "warehouse": {"value": "w"}, "pem_private_key": "VENDOR_PEM"},
    ),
}


def request_of(db_type: str, port: int = 1, **values: Any) -> LoadRequest:
    fields = {
        "host": {"value": "127.0.0.1"},
        "port": port,
        "user": {"value": "u"},
        "connect_timeout_seconds": 1,
        **VENDORS[db_type][2],
        **values,
    }
    return load_request(db_type, fields, "t")


def refused(db_type: str, request: LoadRequest) -> QuaysideError:
    with (
        duckdb.connect() as con,
        pytest.raises(QuaysideError) as raised,
        open_source(make_settings(), con, request),
    ):
        pass
    return raised.value


@pytest.fixture(autouse=True)
def _password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VENDOR_PASSWORD", PASSWORD)
    monkeypatch.setenv("VENDOR_PEM", private_key())


def private_key() -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    return (
        ec.generate_private_key(ec.SECP256R1())
        .private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        .decode()
    )


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.parametrize("db_type", ["oracle", "clickhouse"])
def test_a_refused_connection_is_transient(db_type: str, closed_port: int):
    """case 31, with the real driver"""
    error = refused(db_type, request_of(db_type, closed_port))
    assert isinstance(error, SourceUnavailableError)
    assert str(error).startswith("Source the_source does not answer: ")
    assert PASSWORD not in str(error)


def test_a_refused_connection_to_sql_server(closed_port: int):
    """case 31. The driver needs libraries of the system that a slim image lacks, which is said in a sentence too."""
    error = refused("mssql", request_of("mssql", closed_port))
    if isinstance(error, DriverMissingError):
        assert "cannot be loaded: install the system's libraries" in str(error)
    else:
        assert isinstance(error, SourceUnavailableError), error
    assert PASSWORD not in str(error)


@pytest.mark.slow
def test_a_refused_connection_to_snowflake(closed_port: int):
    """case 31"""
    error = refused("snowflake", request_of("snowflake", closed_port))
    assert isinstance(error, SourceUnavailableError), error
    assert PASSWORD not in str(error)


def test_who_cannot_be_told_to_stop_says_so(closed_port: int):
    with duckdb.connect() as con, pytest.raises(SourceUnavailableError) as raised:
        registry.cancel(make_settings(), con, request_of("clickhouse", closed_port), "[3fa9c1-5b2]")
    assert str(raised.value).startswith("Source the_source does not answer: ")
    assert PASSWORD not in str(raised.value)


def test_what_sql_server_is_told_to_stop_by_is_there():
    """It is the driver's own, and may go with its next release."""
    try:
        bindings = importlib.import_module("mssql_python.ddbc_bindings")
    except ImportError:
        pytest.skip("the driver's libraries are not installed")
    assert callable(bindings.SqlHandle._cancel)


@pytest.mark.parametrize("db_type", VENDORS)
def test_without_its_driver_the_extra_is_named(db_type: str, monkeypatch: pytest.MonkeyPatch):
    module, extra, _ = VENDORS[db_type]
    monkeypatch.setitem(sys.modules, module, None)
    error = refused(db_type, request_of(db_type))
    assert isinstance(error, DriverMissingError)
    assert str(error) == (
        f"Source the_source is of db_type {db_type}, whose driver is not installed: install quayside[{extra}]."
    )


def test_iceberg_without_its_driver(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pyiceberg", None)
    values = {"s3_warehouse": {"value": "s3://b/w"}, "aws_access_key_id": "VENDOR_PASSWORD"}
    request = load_request("s3_iceberg", {**values, "aws_secret_access_key": "VENDOR_PASSWORD"}, "t")
    assert "install quayside[iceberg]" in str(refused("s3_iceberg", request))


@pytest.mark.parametrize("db_type", [*VENDORS, "s3_iceberg"])
def test_every_server_is_treated_with_care(db_type: str):
    assert set(PROTECTION) <= set(registry.source_module(db_type).FIELDS)


# -- SQL ---------------------------------------------------------------------------------------------------------------

DIALECTS: dict[str, Any] = {
    "tsql": mssql.DIALECT,
    "oracle": oracle.dialect({"at"}),
    "clickhouse": clickhouse.DIALECT,
    "snowflake": snowflake.DIALECT,
}
VALUES: list[Any] = [
    7,
    Decimal("1.50"),
    "it's -- \\ %s {p1:String} :1 ?",
    date(2026, 1, 2),
    datetime(2026, 1, 2, 3, 4, 5, 678901),
    datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
]


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("column", HOSTILE)
def test_a_name_stays_one_name(name: str, column: str):
    """cases 27 and 34: what the vendor's parser, as sqlglot knows it, takes for the name."""
    import sqlglot
    from sqlglot import exp

    statement = f"SELECT {DIALECTS[name].quote(column)} FROM t"
    [parsed] = sqlglot.parse(statement, dialect=name)
    assert parsed is not None
    assert [each.name for each in parsed.find_all(exp.Column)] == [column]


@pytest.mark.parametrize("name", DIALECTS)
def test_values_are_bound_and_never_spliced(name: str):
    """case 47"""
    import sqlglot
    from sqlglot import exp

    where = [Comparison("at", ">=", value) for value in VALUES] + [Comparison("x", "is not null")]
    condition, values = DIALECTS[name].where(where, ("n", Range(None, 10)))
    assert len(values) == len(VALUES) + 1
    assert "it's" not in condition
    [parsed] = sqlglot.parse(f"SELECT 1 FROM t{condition}", dialect=name)
    assert parsed is not None
    assert sum(1 for _ in parsed.find_all(exp.Placeholder, exp.Parameter)) == len(values)
    assert len(list(parsed.find_all(exp.GTE))) == len(VALUES)


def test_an_instant_is_compared_in_its_zone():
    at = datetime(2026, 1, 2, 5, 4, 5, tzinfo=UTC)
    condition, values = oracle.dialect().where([Comparison("at", ">", at)])
    assert (condition, values) == (
        " WHERE \"at\" > FROM_TZ(CAST(:p1 AS TIMESTAMP), 'UTC')",
        [at.replace(tzinfo=None)],
    )
    condition, values = clickhouse.DIALECT.where(
        [Comparison("at", ">", at), Comparison("n", "=", Decimal("-1.250"))]
    )
    assert condition == " WHERE `at` > {p1:DateTime64(6, 'UTC')} AND `n` = {p2:Decimal(76, 3)}"
    assert values == ["2026-01-02 05:04:05.000000", "-1.250"]


def test_a_date_of_oracle_keeps_its_index_where_that_is_exact():
    dialect = oracle.dialect({"D"})
    whole, fraction = datetime(2026, 1, 2, 3, 4, 5), datetime(2026, 1, 2, 3, 4, 5, 1)
    assert dialect.where([Comparison("D", ">", whole)])[0] == ' WHERE "D" > CAST(:p1 AS DATE)'
    assert dialect.where([Comparison("D", ">", fraction)])[0] == ' WHERE "D" > :p1'


def test_the_connection_string_of_sql_server_holds_any_value():
    fields = {"host": "h", "port": "1", "user": "u", "password": PASSWORD, "encrypt": "yes", "trust_server_certificate": "no"}  # fmt: skip
    text = mssql.connecting("s", "a;b", fields)
    assert text.startswith("Server={tcp:h,1};Database={a;b};UID={u};PWD={pl4nted;'}}\"s3cret};Encrypt={yes}")
    from mssql_python.connection_string_parser import _ConnectionStringParser

    parsed = _ConnectionStringParser(validate_keywords=True)._parse(text)
    assert parsed["pwd"] == PASSWORD
    with_tenant = mssql.connecting("s", "d", {**fields, "tenant_id": "t"})
    assert "UID={u@t}" in with_tenant
    assert with_tenant.endswith("Authentication={ActiveDirectoryServicePrincipal}")


def test_snowflake_takes_the_credential_of_its_db_type():
    fields = {
        "url": "https://xy12.eu-west-1.snowflakecomputing.com/", "port": "443", "user": "u", "service_name": "d",
        "warehouse": "w", "application_name": "a", "connect_timeout_seconds": "5", "statement_timeout_seconds": "60",
    }  # fmt: skip
    pem, plain = request_of("snowflake_pem"), request_of("snowflake")
    arguments = snowflake.connecting(pem, {**fields, "pem_private_key": "k", "pem_passphrase": "p"})
    assert (arguments["account"], arguments["host"]) == (
        "xy12.eu-west-1",
        "xy12.eu-west-1.snowflakecomputing.com",
    )
    assert (arguments["authenticator"], arguments["private_key"]) == ("SNOWFLAKE_JWT", "k")
    assert "password" not in arguments
    assert snowflake.connecting(plain, {**fields, "password": "p", "url": "xy12"})["account"] == "xy12"
    with pytest.raises(InputError, match="pem_private_key is missing"):
        snowflake.connecting(pem, fields)
    with pytest.raises(InputError, match="takes no pem_private_key"):
        snowflake.connecting(plain, {**fields, "password": "p", "pem_private_key": "k"})


# -- types -------------------------------------------------------------------------------------------------------------


def test_declared_precision_survives():
    cases: list[tuple[Any, Any]] = [
        (mssql.arrival("[c]", "decimal(15,2)"), (pa.decimal128(15, 2), None)),
        (mssql.arrival("[c]", "money"), (pa.decimal128(19, 4), "CAST([c] AS decimal(19,4))")),
        (mssql.arrival("[c]", "nvarchar(50)"), (pa.large_string(), None)),
        (mssql.arrival("[c]", "sql_variant"), None),
        (oracle.arrival('"C"', "DB_TYPE_NUMBER", 15, 2), (pa.decimal128(15, 2), None)),
        (oracle.arrival('"C"', "DB_TYPE_NUMBER", 18, 0), (pa.int64(), None)),
        (oracle.arrival('"C"', "DB_TYPE_NUMBER", 38, 0), (pa.decimal128(38, 0), None)),
        (oracle.arrival('"C"', "DB_TYPE_NUMBER", 5, -2), (pa.int64(), None)),
        (oracle.arrival('"C"', "DB_TYPE_NUMBER", 3, 5), (pa.decimal128(5, 5), None)),
        (oracle.arrival('"C"', "DB_TYPE_NUMBER", 0, -127), (pa.string(), "TO_CHAR(\"C\", 'TM9')")),
        (oracle.arrival('"C"', "DB_TYPE_NUMBER", None, None), (pa.string(), "TO_CHAR(\"C\", 'TM9')")),
        (oracle.arrival('"C"', "DB_TYPE_OBJECT", None, None), None),
        (snowflake.arrival('"C"', "NUMBER(15,2)"), (pa.decimal128(15, 2), None)),
        (snowflake.arrival('"C"', "NUMBER(9,0)"), (pa.int64(), None)),
        (snowflake.arrival('"C"', "VARIANT"), (pa.string(), 'TO_JSON("C")')),
    ]
    for found, wanted in cases:
        assert found == wanted
    nullable = clickhouse.arrival("`c`", "LowCardinality(Nullable(DateTime('Asia/Tokyo')))")
    assert nullable == clickhouse.Arrival(pa.timestamp("us", "UTC"), "toDateTime64(`c`, 6, 'UTC')", True)
    exact = clickhouse.arrival("`c`", "SimpleAggregateFunction(sum, Decimal(38, 4))")
    assert exact == clickhouse.Arrival(pa.decimal128(38, 4), "`c`", False)
    assert clickhouse.arrival("`c`", "AggregateFunction(sum, UInt8)") is None


@pytest.mark.parametrize("source", [mssql.SqlServerSource, snowflake.SnowflakeSource])
def test_a_batch_is_cast_exactly_or_refused(source: Any):
    made = source.__new__(source)
    made.name, made.source_types = "t", ["decimal(5,2)", "datetime2(7)"]
    made.schema = pa.schema([("a", pa.decimal128(5, 2)), ("at", pa.timestamp("us"))])
    late = pa.array([datetime(9999, 12, 31)], pa.timestamp("us"))
    batch = pa.record_batch([pa.array([Decimal("1.50")]), late], names=["A", "B"])
    assert made.exact(batch, made.schema).to_pylist() == [{"a": Decimal("1.50"), "at": late[0].as_py()}]
    nanoseconds = pa.array([1_234_567_899], pa.timestamp("ns"))
    batch = pa.record_batch([pa.array([1], pa.int8()), nanoseconds], names=["A", "B"])
    [row] = made.exact(batch, made.schema).to_pylist()
    assert (row["a"], row["at"].microsecond) == (Decimal("1.00"), 234567)
    wide = pa.record_batch([pa.array([Decimal("1.505")]), late], names=["A", "B"])
    with pytest.raises(UnsupportedTypeError, match=r"Column 'a' \(decimal\(5,2\)\) of t holds a value"):
        made.exact(wide, made.schema)


# -- errors ------------------------------------------------------------------------------------------------------------

SAID = [
    ("oracle", "ORA-01017: invalid credential or not authorized; logon denied", PermanentError),
    ("oracle", 'ORA-00942: table or view "S"."T" does not exist', PermanentError),
    ("oracle", "ORA-01555: snapshot too old: rollback segment number 1", TransientError),
    ("oracle", "DPY-4024: call timeout of 1000 ms exceeded", TransientError),
    ("oracle", "ORA-12514: Cannot connect to database. Service d is not registered", TransientError),
    ("mssql", "Login failed for user 'u'.", PermanentError),
    ("mssql", "Invalid object name 'dbo.t'.", PermanentError),
    ("mssql", "TCP Provider: Error code 0x2749", TransientError),
    ("mssql", "Transaction was deadlocked on lock resources with another process", TransientError),
    ("snowflake", "250001 (08001): Incorrect username or password was specified.", PermanentError),
    ("snowflake", "002003 (42S02): Object 'D.S.T' does not exist or not authorized.", PermanentError),
    ("snowflake", "000014 (HYT00): Failed to login: login timed out after 2s", TransientError),
    ("clickhouse", "Code: 516. DB::Exception: u: Authentication failed. (AUTHENTICATION_FAILED)", PermanentError),
    ("clickhouse", "Code: 159. DB::Exception: Timeout exceeded. (TIMEOUT_EXCEEDED)", TransientError),
]  # fmt: skip


@pytest.mark.parametrize("db_type, said, kind", SAID)
def test_what_vendors_say_is_transient_or_not(db_type: str, said: str, kind: type[Exception]):
    """As their documentation words it. case 38: a secret among the words is masked, however short it is."""
    module = importlib.import_module(f"quayside.dataloader.sources.{db_type}")
    error = meaning(f"{said} pw", "s", {"password": "pw"}, module._DENIED, module._LOST)
    assert isinstance(error, kind), error
    assert "pw" not in str(error)
