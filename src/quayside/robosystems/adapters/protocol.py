"""What an adapter is: a client that extracts rows, and a processor that makes nodes and relationships of them.

Both are plain classes with these methods; they inherit nothing and register nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from quayside.foundation.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

    from quayside.robosystems.graphs import GraphSchema


class AdapterError(InputError):
    """What a service sent cannot be used."""


@dataclass(frozen=True)
class Batch:
    """Rows of one kind, and how far the source is read once they are in the graph (text that only the client understands)."""

    kind: str
    rows: pa.Table
    cursor: str


class Client(Protocol):
    """One source. `name` is what its cursor is kept under in the graph: one for each source that feeds the same graph."""

    @property
    def name(self) -> str: ...

    def connect(self) -> None:
        """Find out whether the source answers, before anything is written. Raises an error with one clear sentence."""
        ...

    def extract(self, cursor: str | None) -> Iterator[Batch]:
        """What is new since a cursor, oldest first; all of it where the cursor is None.

        The same rows may come twice (they are merged by key); rows may not be left out.
        """
        ...


@dataclass(frozen=True)
class GraphRows:
    """What becomes of a batch, in this order.

    Attributes:
        removed: keys by node table; these nodes go, with their relationships.
        replaced: keys by relationship table; the nodes that these relationships lead to from nodes with those keys go.
        nodes: rows by node table.
        relationships: rows by relationship table, with ``from`` and ``to``.
    """

    nodes: Mapping[str, pa.Table] = field(default_factory=dict["str", Any])
    relationships: Mapping[str, pa.Table] = field(default_factory=dict["str", Any])
    removed: Mapping[str, Sequence[Any]] = field(default_factory=dict["str", Any])
    replaced: Mapping[str, Sequence[Any]] = field(default_factory=dict["str", Any])


class Processor(Protocol):
    """Makes nodes and relationships of a batch. Pure: the same batch gives the same rows."""

    @property
    def schema(self) -> GraphSchema: ...

    def process(self, batch: Batch) -> GraphRows:
        """The rows of one batch. Raises: AdapterError: the batch cannot be used, with which record and why."""
        ...
