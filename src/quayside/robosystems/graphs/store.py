"""A folder of LadybugDB databases: many readers, one writer of each at a time.

``<folder>/<graph_id>/current`` is a symbolic link to the database file that counts, ``<number>.lbug``. A session that
writes gets a copy of that file (instant on file systems that share blocks, such as XFS and Btrfs; else about a second
per GB) and publishes it by moving the link when it ends without an error. So readers see one state from beginning to
end and never wait, a killed writer leaves nothing but a file that the next one removes, and what a session did is there
as a whole or not at all, COPY included, which LadybugDB's own log does not hold.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from quayside.foundation.errors import NotFoundError, sentence
from quayside.robosystems.graphs.errors import GraphCorruptError
from quayside.robosystems.graphs.locks import writing
from quayside.robosystems.graphs.names import checked
from quayside.robosystems.graphs.session import GraphSession

if TYPE_CHECKING:
    import ladybug
    import pyarrow as pa

    from quayside.robosystems.graphs.schema import GraphSchema

_CURRENT: Final = "current"
_SUFFIX: Final = ".lbug"
_MAGIC: Final = b"LBUG"
_FICLONE: Final = 0x40049409
WAIT_SECONDS: Final = 60.0


class GraphStore:
    """The databases of one folder. Making the object touches nothing."""

    def __init__(self, folder: Path | str, *, buffer_pool_bytes: int = 256 * 2**20, threads: int = 2) -> None:
        self.folder = Path(folder)
        self._options: dict[str, Any] = {"buffer_pool_size": buffer_pool_bytes, "max_num_threads": threads}

    def graph_ids(self) -> list[str]:
        """Every graph that has a database, in order of their ids."""
        return sorted(p.parent.name for p in self.folder.glob(f"[!.]*/{_CURRENT}"))

    def exists(self, graph_id: str) -> bool:
        """Whether there is a database of that id."""
        return (self.folder / checked(graph_id) / _CURRENT).is_file()

    def create(self, graph_id: str, schema: GraphSchema, *, wait_seconds: float = WAIT_SECONDS) -> bool:
        """Make a database with its tables. Again, it only sees to the tables; whether it was made."""
        made = not self.exists(graph_id)
        with self.session(graph_id, create=True, wait_seconds=wait_seconds) as session:
            session.install(schema)
        return made

    @contextmanager
    def session(
        self, graph_id: str, *, create: bool = False, wait_seconds: float = WAIT_SECONDS
    ) -> Iterator[GraphSession]:
        """A session that may write. What it did is published at the end of the block; nothing is when it raises.

        Raises:
            NotFoundError: there is no such graph, and it is not to be made.
            GraphBusyError: another process wrote to it for longer than `wait_seconds`.
            GraphCorruptError: the file is no usable database.
        """
        home = self.folder / checked(graph_id)
        with writing(self.folder, graph_id, wait_seconds):
            before = self._current(graph_id, missing_ok=create)
            _tidy(home, keep=before)
            home.mkdir(parents=True, exist_ok=True)
            draft = home / f"{_number(before) + 1:08d}{_SUFFIX}"
            try:
                if before is not None:
                    _clone(before, draft)
                with self._open(graph_id, draft, read_only=False) as session:
                    yield session
                    # Refused when a statement failed before, so that nothing of it is kept.
                    session.query("CHECKPOINT")
                self._publish(graph_id, draft)
            finally:
                _tidy(home, keep=self._current(graph_id, missing_ok=True))

    @contextmanager
    def reader(self, graph_id: str) -> Iterator[GraphSession]:
        """A session that sees the graph as it is now, and writes nothing; it waits for nobody.

        Raises:
            NotFoundError: there is no such graph.
            GraphCorruptError: the file is no usable database.
        """
        for attempt in range(10):
            path = self._current(graph_id)
            try:
                opened = self._open(graph_id, path, read_only=True)
                session = opened.__enter__()
                break
            except GraphCorruptError:
                # Published over between the look at the link and the opening: then the file is gone.
                if attempt == 9 or self._current(graph_id) == path:
                    raise
        else:  # pragma: no cover - the loop either breaks or raises
            raise AssertionError
        try:
            yield session
        finally:
            opened.__exit__(None, None, None)

    def query(
        self,
        graph_id: str,
        query: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        timeout_seconds: float | None = None,
    ) -> pa.Table:
        """The rows of one Cypher statement that writes nothing; see `GraphSession.query`."""
        with self.reader(graph_id) as session:
            return session.query(query, parameters, timeout_seconds=timeout_seconds)

    def write(self, graph_id: str, query: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
        """Run one Cypher statement that writes, in a session of its own; for more than a few use `session`."""
        with self.session(graph_id) as session:
            return session.write(query, parameters)

    def size_bytes(self, graph_id: str) -> int:
        """Size of the database on disk.

        Raises:
            NotFoundError: there is no such graph.
            GraphCorruptError: the file is no database, so its size says nothing.
        """
        path = self._current(graph_id)
        try:
            with path.open("rb") as file:
                if file.read(len(_MAGIC)) != _MAGIC:
                    raise GraphCorruptError(_corrupt(graph_id, "it does not begin as one does"))
                return os.fstat(file.fileno()).st_size
        except FileNotFoundError:  # published over meanwhile
            return self.size_bytes(graph_id)
        except OSError as error:
            raise GraphCorruptError(_corrupt(graph_id, sentence(error))) from None

    def drop(self, graph_id: str, *, wait_seconds: float = WAIT_SECONDS) -> bool:
        """Remove a database; whether there was one. Readers that have it open read on."""
        home = self.folder / checked(graph_id)
        with writing(self.folder, graph_id, wait_seconds):
            existed = home.exists()
            with suppress(FileNotFoundError):
                (home / _CURRENT).unlink()  # from here on it does not exist, whatever becomes of the rest
            shutil.rmtree(home, ignore_errors=True)
        return existed

    def snapshot(self, graph_id: str, into: Path) -> None:
        """Copy the database as it is now to a file; raises as `reader` does."""
        while True:
            path = self._current(graph_id)
            try:
                _clone(path, into)
            except FileNotFoundError:  # published over meanwhile
                continue
            return

    @contextmanager
    def opened(self, graph_id: str, file: Path) -> Iterator[GraphSession]:
        """Read a database file that stands for a graph: a copy, a backup. Raises as `reader` does."""
        with self._open(graph_id, file, read_only=True) as session:
            yield session

    def replace(self, graph_id: str, file: Path, *, wait_seconds: float = WAIT_SECONDS) -> None:
        """Put a database file in the place of a graph's, or make it; the old one stays when the new one is unusable.

        Raises:
            GraphCorruptError: the file is no usable database.
        """
        home = self.folder / checked(graph_id)
        with writing(self.folder, graph_id, wait_seconds):
            before = self._current(graph_id, missing_ok=True)
            _tidy(home, keep=before)
            home.mkdir(parents=True, exist_ok=True)
            draft = home / f"{_number(before) + 1:08d}{_SUFFIX}"
            try:
                _clone(file, draft)
                self._publish(graph_id, draft)
            finally:
                _tidy(home, keep=self._current(graph_id, missing_ok=True))

    # -- files ----------------------------------------------------------------------------------------------------

    def _current(self, graph_id: str, missing_ok: bool = False) -> Any:
        link = self.folder / checked(graph_id) / _CURRENT
        try:
            return link.parent / link.readlink()
        except FileNotFoundError:
            if missing_ok:
                return None
            raise NotFoundError(f"There is no graph {graph_id} in {self.folder}.") from None

    def _publish(self, graph_id: str, draft: Path) -> None:
        with self._open(graph_id, draft, read_only=True) as session:  # what cannot be opened is not published
            session.query("CALL show_tables() RETURN name")
        _sync(draft)
        link = draft.parent / f"{_CURRENT}.new"
        with suppress(FileNotFoundError):
            link.unlink()
        link.symlink_to(draft.name)
        link.replace(draft.parent / _CURRENT)
        _sync(draft.parent)

    @contextmanager
    def _open(self, graph_id: str, path: Path, *, read_only: bool) -> Iterator[GraphSession]:
        import ladybug

        try:
            # Closing must not checkpoint: after a failed COPY that crashes the process. `session` does it before.
            database = ladybug.Database(path, read_only=read_only, auto_checkpoint=False, **self._options)
        except Exception as error:  # noqa: BLE001 - damaged bytes become whatever they become
            raise GraphCorruptError(_corrupt(graph_id, sentence(error))) from None
        connection: ladybug.Connection | None = None
        try:
            connection = ladybug.Connection(database)
            connection.execute("CALL force_checkpoint_on_close=false")
            yield GraphSession(graph_id, connection)
        finally:
            if connection is not None:
                connection.close()
            database.close()


def _corrupt(graph_id: str, why: str) -> str:
    return (
        f"Graph {graph_id} is not a usable database ({why.rstrip('.')}): restore its last backup with "
        f"`quayside credits provision restore {graph_id}`."
    )


def _number(path: Path | None) -> int:
    return 0 if path is None else int(path.stem)


def _tidy(home: Path, keep: Path | None) -> None:
    """Remove what a writer left, or what was replaced."""
    if not home.is_dir():
        return
    for path in home.iterdir():
        if path.name == _CURRENT or (keep is not None and path.name == keep.name):
            continue
        path.unlink(missing_ok=True)
    if keep is None:
        with suppress(OSError):
            home.rmdir()


def _clone(source: Path, target: Path) -> None:
    """Copy a file, sharing its blocks where the file system can."""
    with source.open("rb") as read, target.open("wb") as written:
        try:
            fcntl.ioctl(written.fileno(), _FICLONE, read.fileno())
        except OSError:  # another file system, or one that cannot share
            shutil.copyfileobj(read, written, 8 * 2**20)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
