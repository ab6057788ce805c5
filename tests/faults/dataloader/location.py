"""The real location ``dataloader`` with faster clocks, everything switched on: what takes minutes takes seconds."""

from typing import Final

import dagster as dg

from quayside.dataloader.dagster import defs, monitors, sensors

EVERY_SECONDS: Final = 2

sensors.FORGOTTEN_SECONDS = 3.0  # type: ignore[misc]
monitors.SETTLE_SECONDS = 4  # type: ignore[misc]
monitors.LOST_MINUTES = 0.25  # type: ignore[misc,assignment]
for _sensor in defs.sensors or []:
    if isinstance(_sensor, dg.SensorDefinition):
        _sensor._min_interval = EVERY_SECONDS
        _sensor._default_status = dg.DefaultSensorStatus.RUNNING

__all__ = ["defs"]
