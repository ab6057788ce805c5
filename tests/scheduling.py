"""Which tests share a worker, and in which order workers take them.

A worker takes whole files, some folders whole, so that what a file's tests share (a code server, a Spark, a MariaDB) is
started once. The longest come first, then all others with slow tests, so that no worker is alone with one at the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

#: Folders whose tests share what is costly to start.
TOGETHER = ("tests/kycc/spark/", "tests/dataloader/sources/")
#: Half a minute and more each, the longest first.
LONGEST = (
    "tests/kycc/test_faults.py",
    "tests/dataloader/test_faults.py",
    "tests/foundation/test_up.py",
    "tests/foundation/dagster/launcher/test_servers.py",
    "tests/foundation/dagster/launcher/test_services.py",
    "tests/kycc/spark/",
    "tests/kycc/dagster/test_unattended.py",
    "tests/dataloader/sources/",
    "tests/dataloader/dagster/test_loads.py",
    "tests/robosystems/test_faults.py",
    "tests/kycc/dagster/test_jobs.py",
    "tests/kycc/dagster/test_learning.py",
    "tests/kycc/dagster/test_monitoring.py",
    "tests/foundation/dagster/launcher/test_runs.py",
    "tests/foundation/dagster/launcher/test_coordinator.py",
)


def unit(nodeid: str) -> str:
    """What a worker takes as a whole with this test."""
    file = nodeid.split("::", 1)[0]
    return next((folder for folder in TOGETHER if file.startswith(folder)), file)


def in_order(items: list[pytest.Item]) -> None:
    """Sort the tests, units as wholes."""
    slow = {unit(item.nodeid) for item in items if item.get_closest_marker("slow")}
    places = {name: place for place, name in enumerate(LONGEST)}

    def place(item: pytest.Item) -> int:
        of = unit(item.nodeid)
        return places.get(of, len(places) + (of not in slow))

    items.sort(key=place)


def scheduler(config: pytest.Config, log: Any) -> Any:
    """pytest-xdist's scheduler that hands out units in our order."""
    from xdist.scheduler import LoadScopeScheduling

    class Units(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return unit(nodeid)

    config.option.loadscopereorder = False
    return Units(config, log)
