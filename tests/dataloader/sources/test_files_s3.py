"""Parquet on S3, over the wire."""

from __future__ import annotations

from typing import Any

import pytest
from tests.dataloader.servers import load_request
from tests.foundation.s3_server import s3_settings

from quayside.dataloader.errors import SourceRefusedError, SourceUnavailableError
from quayside.foundation.lake import Lake
from quayside.foundation.lake.session import enable_s3
from quayside.foundation.settings import Settings

pytestmark = [pytest.mark.integration, pytest.mark.slow]

__all__ = ["s3_settings"]


def test_a_folder_and_a_file_of_a_bucket(
    s3_settings: Settings, shared_settings: Settings, opened: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
):
    with Lake(shared_settings).connect() as writer:
        enable_s3(writer, s3_settings.model_copy(update={"home": shared_settings.home}))
        for number in (1, 2):
            writer.execute(
                f"COPY (SELECT {number} AS id) TO 's3://lake/in/trade/{number}.parquet' (FORMAT parquet)"
            )
    monkeypatch.setenv("BUCKET_KEY", s3_settings.aws_access_key_id or "")
    monkeypatch.setenv("BUCKET_SECRET", "pl4nted-s3cret")
    values = {
        "path": "s3://lake/in",
        "aws_access_key_id": "BUCKET_KEY",
        "aws_secret_access_key": "BUCKET_SECRET",
        "aws_endpoint_url": s3_settings.aws_endpoint_url,
    }
    with opened(load_request("parquet", values, "trade")) as table:
        assert rows(table) == [(1,), (2,)]
    with opened(load_request("parquet", values, "2.parquet", source_schema_name="trade")) as table:
        assert rows(table) == [(2,)]
    with (
        pytest.raises(SourceRefusedError, match="no parquet file"),
        opened(load_request("parquet", values, "nope")),
    ):
        pass
    values["aws_endpoint_url"] = "http://127.0.0.1:1"
    with (
        pytest.raises(SourceUnavailableError, match="the_source") as raised,
        opened(load_request("parquet", values, "trade")),
    ):
        pass
    assert "pl4nted" not in str(raised.value)
