"""The real location ``dataloader`` with its master sensor switched on and asked every five seconds, for `dataloader_drain`."""

import dagster as dg

from quayside.dataloader.dagster import defs

for _sensor in defs.sensors or []:
    if isinstance(_sensor, dg.SensorDefinition) and _sensor.name.startswith("master_sensor"):
        _sensor._min_interval = 5
        _sensor._default_status = dg.DefaultSensorStatus.RUNNING

__all__ = ["defs"]
