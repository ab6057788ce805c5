"""`PromptRunCoordinator`: a run queue that is looked at again as soon as there may be room.

Dagster's queue is looked at every second at best, and launches up to ``max_concurrent_runs`` runs each time. With runs
that take a tenth of a second it stands still most of that second: at two concurrent runs, 120 a minute is the most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import dagster as dg
from dagster._core.run_coordinator import QueuedRunCoordinator

if TYPE_CHECKING:
    from dagster._config import UserConfigSchema

#: Less than any look that launches a run takes, and more than one that finds nothing to do. After a shorter look Dagster's
#: daemon sleeps for half a second, whatever the interval; after a longer one it looks again at once.
_INTERVAL_SECONDS: Final = 0.05


class PromptRunCoordinator(QueuedRunCoordinator[dg.DagsterInstance]):
    """Dagster's run queue, for runs that are started by `WarmRunLauncher`.

    The launcher waits up to ``linger_seconds`` for the end of each run it has started, on one of the daemon's dequeuing
    threads. When they have ended, their places are free at the next look, which then follows at once. Longer runs are not
    affected but for starting that much later one after the other, `dequeue_num_workers` at a time.

    In ``dagster.yaml``, in the place of ``run_queue`` and with its settings::

        run_coordinator:
          module: quayside.foundation.dagster.launcher.coordinator
          class: PromptRunCoordinator
          config:
            max_concurrent_runs: 5
    """

    linger_seconds: float = 0.25

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        inherited = super().config_type()
        assert isinstance(inherited, dict)
        return {
            name: field
            for name, field in inherited.items()
            if name not in {"dequeue_interval_seconds", "dequeue_use_threads"}
        }

    @property
    def dequeue_interval_seconds(self) -> float:  # pyright: ignore[reportIncompatibleMethodOverride] - the daemon takes any number
        return _INTERVAL_SECONDS

    @property
    def dequeue_use_threads(self) -> bool:
        return True

    @property
    def dequeue_num_workers(self) -> int:
        return super().dequeue_num_workers or 8
