"""The port through which sizes are read: who measures is somebody else's concern."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Sizes:
    """Storage of one graph in bytes, by part; or ``problem``, one sentence that says why it could not be measured."""

    graph_id: str
    files_bytes: int | None = None
    tables_bytes: int | None = None
    graph_bytes: int | None = None
    subgraphs_bytes: int | None = None
    problem: str | None = None

    def __post_init__(self) -> None:
        parts = (self.files_bytes, self.tables_bytes, self.graph_bytes, self.subgraphs_bytes)
        if (self.problem is None) == (None in parts):
            raise ValueError(
                f"Sizes of graph {self.graph_id!r}: give all four parts, or a problem and none of them."
            )


class SizeReader(Protocol):
    """Measures graphs. A graph that does not answer comes back with a problem; it does not stop the others."""

    def read(self, graph_ids: Sequence[str]) -> Iterable[Sizes]:
        """Sizes of these graphs, in any order; one that is left out counts as not measured."""
        ...
