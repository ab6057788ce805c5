"""Portions of a table read at once: a statement, a cursor of DuckDB and a thread for each.

DuckDB runs the branches of a UNION ALL that is written to files or tables one after the other, since such a writer counts
as depending on their order; and while one of its threads reads a single stream, the one that waits spins and takes the CPU
from the source's server. So each portion is a statement of its own, and meanwhile DuckDB has no threads but ours.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager, suppress
from threading import Event
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import duckdb

    from quayside.dataloader.sources.source import Portions

#: Rows that DuckDB gives to one thread: a row group.
ONE_TASK_ROWS: Final = 122_880
_LOOK_EVERY_SECONDS: Final = 1.0
#: Between two interrupts: the first may have met no statement.
_AFTER_INTERRUPT_SECONDS: Final = 0.1


@contextmanager
def threads_for(con: duckdb.DuckDBPyConnection, *, one_stream: bool) -> Iterator[None]:
    """One thread for statements that read one stream; setting it takes a millisecond."""
    if not one_stream:
        yield
        return
    with closing(con.cursor()) as apart:  # one in which no transaction can have failed
        [threads] = apart.execute("SELECT current_setting('threads')").fetchone() or [1]
        if threads > 1:
            apart.execute("SET threads = 1")
        try:
            yield
        finally:
            if threads > 1:
                apart.execute(f"SET threads = {int(threads)}")


def each(
    con: duckdb.DuckDBPyConnection,
    portions: Portions,
    write: Callable[[duckdb.DuckDBPyConnection, str], None],
    check: Callable[[], None],
) -> None:
    """Call `write` with a cursor of `con` and each SELECT of the portions, on as many threads as there are readers.

    `check` is called about once a second, to raise when this is to end. The first error ends all readers and is raised.
    """
    left = deque(portions.selects)
    stop = Event()

    def read(cursor: duckdb.DuckDBPyConnection) -> None:
        cursor.execute("SET TimeZone = 'UTC'")
        cursor.execute("BEGIN")
        try:
            portions.join(cursor)
            while not stop.is_set():
                try:
                    select = left.popleft()
                except IndexError:
                    return
                write(cursor, select)
        finally:
            _roll_back(cursor)

    cursors = [con.cursor() for _ in range(min(portions.readers, len(left)))]
    try:
        with threads_for(con, one_stream=True), ThreadPoolExecutor(len(cursors), "reader") as pool:
            running = [pool.submit(read, cursor) for cursor in cursors]
            try:
                _watch(running, check)
            except BaseException:
                stop.set()
                while wait(running, _AFTER_INTERRUPT_SECONDS).not_done:
                    for cursor in cursors:
                        cursor.interrupt()
                raise
    finally:
        for cursor in cursors:
            cursor.close()


def _watch(running: list[Future[None]], check: Callable[[], None]) -> None:
    while True:
        ended = wait(running, _LOOK_EVERY_SECONDS, return_when=FIRST_EXCEPTION)
        for one in ended.done:
            one.result()
        if not ended.not_done:
            return
        check()


def _roll_back(cursor: duckdb.DuckDBPyConnection) -> None:
    import duckdb

    # An interrupt may meet the ROLLBACK; the cursor is closed soon after, and its transaction with it.
    with suppress(duckdb.Error):
        cursor.execute("ROLLBACK")
