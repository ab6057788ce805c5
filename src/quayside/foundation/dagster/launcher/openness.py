"""What a process has open that must not be forked, each as a phrase a person can act on.

A fork copies memory but only the calling thread. A lock another thread held stays locked in the child for ever; a
connection is then used by two processes at once; DuckDB and gRPC wait for threads that are not there; a CUDA context
does not survive. So nothing of that may exist when runs are forked. Standard library only.
"""

from __future__ import annotations

import gc
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection

#: Objects that hold a thread or a file of their own, by the first part of their module and their class.
_HOLDERS: Final = {
    ("_duckdb", "DuckDBPyConnection"): "a DuckDB connection",
    ("duckdb", "DuckDBPyConnection"): "a DuckDB connection",
    ("grpc", "Channel"): "a gRPC channel",
    ("grpc", "_Server"): "a gRPC server",
    ("sqlite3", "Connection"): "an SQLite connection",
    ("psycopg2", "connection"): "a psycopg2 connection",
    ("psycopg", "Connection"): "a psycopg connection",
}
#: Threads of libraries that handle forks themselves (pthread_atfork): jemalloc, which Arrow and Polars bring.
_FORK_SAFE: Final = {"jemalloc_bg_thd"}
#: What tells whether a DuckDB connection has been used; each gives other rows then than for a new one.
_DUCKDB_STATE: Final = (
    "SELECT name, value FROM duckdb_settings() ORDER BY ALL",
    "SELECT database_name, path FROM duckdb_databases() ORDER BY ALL",
    "SELECT database_name, schema_name, table_name FROM duckdb_tables() WHERE NOT internal ORDER BY ALL",
    "SELECT database_name, schema_name, view_name FROM duckdb_views() WHERE NOT internal ORDER BY ALL",
    "SELECT schema_name, function_name FROM duckdb_functions() WHERE NOT internal ORDER BY ALL",
    "SELECT extension_name FROM duckdb_extensions() WHERE loaded ORDER BY ALL",
)
_DEVICES: Final = ("/dev/nvidia", "/dev/kfd", "/dev/dri/")


def what_is_open(own: Collection[int] = ()) -> list[str]:
    """Everything that forbids a fork; empty when nothing does. Tens of milliseconds: it looks at every object.

    Args:
        own: file descriptors the caller knows of and closes in the child.
    """
    found = settle_duckdb() + held_objects()
    settle_threads()
    return found + threads() + descriptors(own)


def threads() -> list[str]:
    """Threads beside the calling one, Python's or a library's, by name."""
    names = []
    for task in Path("/proc/self/task").iterdir():
        if int(task.name) != os.getpid():
            with suppress(OSError):
                name = (task / "comm").read_text("utf-8", "replace").strip()
                if name not in _FORK_SAFE:
                    names.append(name)
    return (
        [f"{len(names)} thread{'s' if len(names) > 1 else ''} ({', '.join(sorted(set(names)))})"]
        if names
        else []
    )


def descriptors(own: Collection[int]) -> list[str]:
    """Sockets, event queues and GPUs among the open file descriptors."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        name = link.name
        if int(name) in own or int(name) <= 2:
            continue
        try:
            target = str(link.readlink())
        except FileNotFoundError:  # the one that read the folder
            continue
        if target.startswith("socket:"):
            found.append(f"a socket (descriptor {name})")
        elif target.startswith("anon_inode:") and (
            "eventpoll" in target or "uring" in target or "eventfd" in target
        ):
            found.append(
                f"an event queue ({target.removeprefix('anon_inode:').strip('[]')}, descriptor {name})"
            )
        elif target.startswith(_DEVICES):
            found.append(f"a GPU ({target})")
    return found


def held_objects() -> list[str]:
    """Connections, channels and clients that live as objects, also those no descriptor shows (DuckDB in memory)."""
    gc.collect()
    found: set[str] = set()
    tracked = gc.get_objects()
    # A second step down, because objects of C++ libraries are not tracked themselves: their holders are. Unless these
    # are tuples and dicts that hold nothing else: the collector leaves those out as well, so their holders count.
    layers = [tracked, gc.get_referents(*tracked)]
    while hidden := {
        id(thing): thing for thing in layers[-1] if type(thing) in {tuple, dict} and not gc.is_tracked(thing)
    }:
        layers.append(gc.get_referents(*hidden.values()))
    for objects in layers:
        for kind in {type(thing) for thing in objects}:
            # The bases too, so that a subclass is found; read past the class, which may define __module__ itself.
            for base in kind.__mro__:
                module = str(type.__dict__["__module__"].__get__(base))
                if (phrase := _HOLDERS.get((module.partition(".")[0], base.__name__))) is not None:
                    if any(type(thing) is kind and _is_open(thing) for thing in objects):
                        found.add(phrase)
                    break
    return sorted(found)


def settle_duckdb() -> list[str]:
    """Close the connection that ``import duckdb`` opens by itself, with a thread; DuckDB opens another when asked to.

    Returns:
        What to say when that connection has been used: closing it would lose what it holds.
    """
    duckdb = sys.modules.get("duckdb")
    if duckdb is None:
        return []
    own, new = duckdb.default_connection(), duckdb.connect()
    try:
        used = any(own.execute(query).fetchall() != new.execute(query).fetchall() for query in _DUCKDB_STATE)
    finally:
        new.close()
    if used:
        return ["DuckDB's default connection, with what was done on it"]
    own.close()
    return []


def settle_threads() -> None:
    """Let libraries put their threads away.

    OpenBLAS (NumPy, SciPy) starts its threads at import but ends them before any fork and starts them anew when next
    used. A first fork therefore shows which threads would really be there at the second.
    """
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def _is_open(thing: object) -> bool:
    """False for a connection that says it is closed."""
    closed = getattr(thing, "closed", None)
    if isinstance(closed, bool | int):
        return not closed
    if type(thing).__name__ == "DuckDBPyConnection" or type(thing).__module__ == "sqlite3":
        try:
            thing.cursor().close()  # pyright: ignore[reportAttributeAccessIssue] - both have it
        except Exception:  # noqa: BLE001 - each library has its own error for "closed", none of them imported here
            return False
    return True
