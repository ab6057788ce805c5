"""What can be wrong with a graph database."""

from __future__ import annotations

from quayside.foundation.errors import ConflictError, InputError, PermanentError


class GraphQueryError(InputError):
    """The database refused a statement: its syntax, a name, a value, a broken uniqueness."""


class GraphBusyError(ConflictError):
    """Another process writes to this graph."""


class GraphCorruptError(PermanentError):
    """The file of a graph is not a usable database."""
