"""A run that takes more memory than its group may have: killed by the kernel, and said so."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.foundation.dagster.launcher.bench import Bench, until

pytestmark = [pytest.mark.integration, pytest.mark.slow]
LIMIT_MB = 400


def usable_hierarchy() -> tuple[Path, str] | None:
    """Where memory groups can be made, and the name of the file with their limit."""
    for root, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        group = Path(root) / f"warm-launcher-{secrets.token_hex(4)}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / limit).write_text(str(LIMIT_MB << 20))
        except OSError:
            continue
        finally:
            group.rmdir()
        return Path(root), limit
    return None


@pytest.fixture
def group() -> Iterator[Path]:
    """A memory group with a limit, without processes."""
    found = usable_hierarchy()
    if found is None:
        pytest.skip("no memory cgroup can be made here (needs root and a writable /sys/fs/cgroup)")
    group = found[0] / f"warm-launcher-{secrets.token_hex(4)}"
    group.mkdir()
    (group / found[1]).write_text(str(LIMIT_MB << 20))
    for swap in ("memory.swappiness", "memory.swap.max"):
        if (group / swap).exists():
            (group / swap).write_text("0")
    yield group
    until(lambda: not (group / "cgroup.procs").read_text())
    group.rmdir()


def test_a_run_killed_for_memory_says_so(group: Path, fresh: Callable[..., Bench]):
    """Server, warden and runs are in the group, as in a container. The run is what the kernel ends."""
    bench = fresh()
    assert bench.finished(bench.submit("count")) == "SUCCESS"
    server, warden = bench.server_process(), bench.warden()
    for process in (server, warden):
        (group / "cgroup.procs").write_text(str(process.pid))
    # The warden compares with what it read at its start: it is replaced by one that starts inside.
    os.kill(warden.pid, 9)
    until(lambda: not warden.alive() and bench.warden() != warden)
    warden = bench.warden()
    run_id = bench.submit("fill")
    assert bench.finished(run_id) == "FAILURE"
    assert bench.said(run_id, "The kernel has killed 1 process of this memory group meanwhile.")
    assert bench.said(run_id, "SIGKILL")
    assert server.alive()
    assert warden.alive()
    assert bench.finished(bench.submit("count")) == "SUCCESS"
