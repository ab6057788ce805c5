"""The lake, and exports, on S3: moto's server over the wire, through httpfs, delta-rs and obstore."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta

import pytest
from deltalake import DeltaTable
from tests.foundation.lake.conftest import ROWS
from tests.foundation.s3_server import s3_settings  # noqa: F401  a fixture

from quayside.foundation.errors import InputError, SettingsError, UsageError
from quayside.foundation.lake import Lake
from quayside.foundation.lake import maintain as maintain_module
from quayside.foundation.lake.export import export_table
from quayside.foundation.lake.maintain import maintain
from quayside.foundation.lake.query import run_query
from quayside.foundation.objects import ObjectStore, S3Access
from quayside.foundation.settings import Settings

pytestmark = pytest.mark.integration


@pytest.fixture
def lake(settings: Settings, s3_settings: Settings) -> Lake:  # noqa: F811
    aws = {name: getattr(s3_settings, name) for name in Settings.model_fields if name.startswith("aws_")}
    prefix = f"s3://lake/{settings.home.parent.name}/data"
    return Lake(settings.model_copy(update={**aws, "lake_url": prefix}))


@pytest.mark.slow
def test_rows_are_written_read_exported_and_kept_in_order(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = ObjectStore(lake.settings.lake_data_path, lake.settings)
    with closing(lake.connect()) as con:
        lake.ensure_tables([ROWS], con)
        for n in range(4):
            lake.transaction(lambda c, n=n: c.execute("INSERT INTO s.rows SELECT 'a', ?", [n]), con)
        con.execute("DELETE FROM s.rows WHERE n = 3")
        assert len(list(objects.list())) >= 4
        with run_query(lake, "SELECT sum(n) FROM s.rows") as result:
            assert list(result.rows) == [(3,)]
        with run_query(lake, "SELECT 1") as result:
            assert list(result.rows) == [(1,)]

        target = lake.settings.lake_data_path.removesuffix("/data") + "/out"
        for _ in range(2):
            assert export_table(lake, "s.rows", target=f"{target}.parquet").rows == 3
            assert export_table(lake, "s.rows", target=target, format="delta").rows == 3
        assert con.execute(f"SELECT sum(n) FROM '{target}.parquet'").fetchall() == [(3,)]
        delta = DeltaTable(target, storage_options=S3Access.of(lake.settings).options())
        assert delta.version() == 1
        assert delta.to_pyarrow_table().num_rows == 3
        with pytest.raises(UsageError, match="overlaps"):
            export_table(lake, "s.rows", target=f"{lake.settings.lake_data_path}/out.parquet")

    orphan = "s/rows/batch=x/ducklake-00000000-0000-0000-0000-000000000000.parquet"
    objects.put(orphan, b"PAR1")
    assert maintain(lake).removed_orphans == []
    monkeypatch.setattr(maintain_module, "_CLOCKS", timedelta(seconds=-5))
    maintain(lake, keep=timedelta(0), grace=timedelta(seconds=-5))
    done = maintain(lake, keep=timedelta(0), grace=timedelta(seconds=-5))
    assert not objects.exists(orphan)
    assert done.expired_snapshots == 0
    assert len([o for o in objects.list() if o.key.endswith(".parquet")]) == 1
    with run_query(lake, "SELECT count(*), sum(n) FROM s.rows") as result:
        assert list(result.rows) == [(3, 3)]


def test_query_reaches_no_other_bucket(lake: Lake) -> None:
    other = ObjectStore("s3://lake/elsewhere", lake.settings)
    other.put("x.csv", b"a,b\n1,2\n")
    with pytest.raises(InputError), run_query(lake, "FROM 's3://lake/elsewhere/x.csv'") as result:
        list(result.rows)


def test_local_lake_exports_to_s3(settings: Settings, lake: Lake) -> None:
    local = Lake(lake.settings.model_copy(update={"lake_url": None}))
    local.ensure_tables([ROWS])
    target = f"s3://lake/{settings.home.parent.name}/local.parquet"
    assert export_table(local, "s.rows", target=target).rows == 0


def test_credentials_are_asked_for_and_never_shown(lake: Lake) -> None:
    with pytest.raises(SettingsError, match="AWS_ACCESS_KEY_ID"):
        Lake(lake.settings.model_copy(update={"aws_secret_access_key": None})).connect()
    with closing(lake.connect()) as con:
        assert "pl4nted" not in str(con.execute("FROM duckdb_secrets()").fetchall())
        assert "pl4nted" not in str(con.execute("FROM duckdb_settings()").fetchall())
