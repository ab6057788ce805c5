"""Who may write to a graph: a file lock, which the kernel gives back when its holder is gone, whatever ended it.

Lock files stay: one that were removed while somebody waits for it would be held by two.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quayside.foundation import processes
from quayside.robosystems.graphs.errors import GraphBusyError


@contextmanager
def writing(folder: Path, graph_id: str, wait_seconds: float) -> Iterator[None]:
    """Hold the right to write to one graph of a folder.

    Raises:
        GraphBusyError: somebody else held it for longer than `wait_seconds`.
    """
    locks = folder / ".locks"
    processes.private_folder(folder)
    locks.mkdir(exist_ok=True)
    path = locks / f"{graph_id}.lock"
    held: list[int] = []

    def take() -> bool:
        lock = processes.try_lock(path)
        if lock is not None:
            held.append(lock)
        return lock is not None

    if not processes.wait_until(take, wait_seconds):
        raise GraphBusyError(
            f"Graph {graph_id} is being written to by another process; waited {wait_seconds:g} s for it."
        )
    try:
        yield
    finally:
        os.close(held.pop())
