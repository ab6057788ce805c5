"""Shared resources hand on plain objects of the foundation."""

from __future__ import annotations

import dagster as dg
import pytest

from quayside.foundation.dagster.resources import LakeResource, PostgresResource, SettingsResource
from quayside.foundation.settings import Settings

pytestmark = pytest.mark.integration


def test_an_asset_reaches_settings_database_and_lake(
    settings: Settings, command_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    for variable in ("QUAYSIDE_HOME", "QUAYSIDE_DATABASE_URL"):
        monkeypatch.setenv(variable, command_environment[variable])

    @dg.asset
    def report(
        platform: SettingsResource, postgres: PostgresResource, lake: LakeResource
    ) -> dg.MaterializeResult:
        with postgres.connection() as connection, postgres.engine().connect() as pooled:
            same = connection.execute("SELECT current_database()").fetchone()
            also = pooled.exec_driver_sql("SELECT current_database()").fetchone()
        with lake.connection() as con:
            threads = con.execute("SELECT current_setting('threads'), current_catalog()").fetchone()
        assert same is not None
        assert also is not None
        return dg.MaterializeResult(
            metadata={"home": str(platform.get().home), "same": same[0] == also[0], "lake": str(threads)}
        )

    resources = {
        "platform": SettingsResource(),
        "postgres": PostgresResource(),
        "lake": LakeResource(threads=1),
    }
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([report], resources=resources, instance=instance)
    [event] = result.get_asset_materialization_events()
    found = {key: value.value for key, value in event.materialization.metadata.items()}
    assert found == {"home": str(settings.home), "same": True, "lake": "(1, 'lake')"}
