"""The real location ``dataloader`` with faster clocks, everything switched on: what takes minutes takes seconds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Final

import dagster as dg

from quayside.dataloader.dagster import defs, monitors, sensors

if TYPE_CHECKING:
    from quayside.dataloader.request import LoadRequest

EVERY_SECONDS: Final = 2
#: The ticks ask for runs of one table and for batches in turn, so that both are killed.
TABLES_PER_RUN: Final = cycle((1, 4))

_run_requests = sensors.run_requests


def _either(requests: Sequence[LoadRequest], tables_per_run: int) -> list[dg.RunRequest]:
    return _run_requests(requests, next(TABLES_PER_RUN))


sensors.run_requests = _either  # type: ignore[misc]

sensors.FORGOTTEN_SECONDS = 3.0  # type: ignore[misc]
monitors.SETTLE_SECONDS = 4  # type: ignore[misc]
monitors.LOST_MINUTES = 0.25  # type: ignore[misc,assignment]
for _sensor in defs.sensors or []:
    if isinstance(_sensor, dg.SensorDefinition):
        _sensor._min_interval = EVERY_SECONDS
        _sensor._default_status = dg.DefaultSensorStatus.RUNNING

__all__ = ["defs"]
