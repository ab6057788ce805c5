"""What a source's row says about its protection is how a load behaves there."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from quayside.dataloader.sources.mark import mark
from quayside.dataloader.sources.source import open_source
from quayside.foundation.settings import Settings

if TYPE_CHECKING:
    import duckdb

pytestmark = pytest.mark.integration

QUERY = "SELECT current_setting('application_name') AS who, current_setting('statement_timeout') AS long"


def test_the_columns_of_a_source_reach_its_connections(
    source_pg: Any, shared_settings: Settings, shared_con: duckdb.DuckDBPyConnection
) -> None:
    request = replace(
        source_pg.request(query=QUERY),
        application_name="night loads",
        statement_timeout_seconds=77,
        max_connections=3,
    )
    with open_source(shared_settings, shared_con, request) as table:
        assert shared_con.execute(f"FROM {table.relation()}").fetchall() == [(f"night loads {mark()}", "77s")]
    values = source_pg.values | {"application_name": "more precisely"}
    with open_source(shared_settings, shared_con, replace(request, db_config_value=values)) as table:
        assert shared_con.execute(f"FROM {table.relation()}").fetchall() == [
            (f"more precisely {mark()}", "77s")
        ]
