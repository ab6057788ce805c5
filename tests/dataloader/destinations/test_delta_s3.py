"""Delta tables on S3, over the wire: the same protocol, with commits that only one of several writers can win."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import duckdb
import pytest
from deltalake import DeltaTable
from tests.dataloader.destinations.test_delta import (
    OPEN,
    content,
    interfering,
    request_of,
    state,
    values,
)
from tests.dataloader.hostile import HOSTILE
from tests.foundation.s3_server import s3_settings

from quayside.dataloader.destinations.delta import DeltaDestination
from quayside.dataloader.destinations.delta_maintain import maintain, tables
from quayside.foundation.settings import Settings

__all__ = ["s3_settings"]
pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def on_s3(s3_settings: Settings) -> Settings:
    return s3_settings.model_copy(update={"delta_url": "s3://lake/delta"})


@pytest.fixture(scope="module")
def con(on_s3: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    folder = str(on_s3.home / "duckdb" / "extensions")
    with closing(duckdb.connect(config={"threads": 2, "extension_directory": folder})) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


def test_a_table_lives_on_s3(
    on_s3: Settings, con: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = DeltaDestination(on_s3, con, request_of(table=HOSTILE[0] + "größe/é %2F"))
    assert table.columns() is None
    table.overwrite(values((1, "a"), (2, "b")), state("2"), OPEN)

    def append_three() -> None:
        other = DeltaDestination(on_s3, con, request_of(config_id=8, table=HOSTILE[0] + "größe/é %2F"))
        other.append(values((3, "c")), state("other", config_id=8), OPEN)

    with interfering(monkeypatch, append_three) as commits:
        written = table.merge(values((2, "B"), (3, "C")), ["id"], state("3"), OPEN)
    assert commits == [0, 0, 1]
    assert (written.inserted, written.updated) == (0, 2)
    shadow = table.sibling("__backfill")
    shadow.append(values((1, "x")), state(), OPEN)
    assert content(table) == [(1, "a"), (2, "B"), (3, "C")]
    table.replace_with(shadow, state("4"), OPEN)
    assert (content(table), shadow.columns()) == ([(1, "x")], None)
    log = table._place.log
    assert DeltaTable(table.url, storage_options=log.storage_options).to_pyarrow_table().num_rows == 1
    assert tables(on_s3) == [table.url.removeprefix("s3://lake/delta/")]
    assert maintain(on_s3, dry_run=True).removed == {tables(on_s3)[0]: []}
    table.drop(OPEN)
    assert (table.columns(), list(log.store.list())) == (None, [])
