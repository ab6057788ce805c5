"""What strategies share: one load with its source, destination, columns and cursor, and how rows are staged.

A strategy is a function from a `Load` to a `Done`. It reads through `Load.rows` (streamed into the table) or `Load.stage`
(a temporary table, where a window has to be looked at before it is merged), and commits through the destination. Belongs
here: what two strategies need. Does not belong here: which rows are read, and the destination's statements.
"""

# ruff: noqa: S608 - names are quoted by `identifier`, values are bound or typed literals of our own

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from quayside.dataloader.cursor import Cursor, CursorValue
from quayside.dataloader.destinations.destination import (
    DELETED_AT,
    IS_DELETE,
    SOFT_DELETE_COLUMNS,
    Destination,
    Fence,
    LoadState,
    Rows,
    Written,
)
from quayside.dataloader.destinations.parallel import threads_for
from quayside.dataloader.destinations.profile import rows_into
from quayside.dataloader.errors import CountMismatchError
from quayside.dataloader.schema_contract import SchemaPlan, plan
from quayside.dataloader.sources.source import Divisible
from quayside.dataloader.strategies.distinct import duplicates
from quayside.foundation.errors import InputError
from quayside.foundation.lake.sql import identifier

if TYPE_CHECKING:
    from quayside.dataloader.request import LoadRequest
    from quayside.dataloader.sources.source import Portions, Predicate, SourceTable
    from quayside.foundation.settings import Settings

#: A large table is read in portions of about so many rows, several at once where the source can be.
PORTION_ROWS: Final = 1_000_000

STAGE: Final = "temp.main.quayside_stage"

#: Deletes at the source are looked for by these strategies; the others replace the table.
_SOFT_DELETE_STRATEGIES: Final = frozenset(
    {"incremental", "append_only", "rolling", "check_and_load", "chunked_backfill"}
)


@dataclass(frozen=True)
class Done:
    """What a strategy did. `cursor` is the cursor afterwards, as text."""

    written: Written = field(default_factory=Written)
    cursor: str | None = None
    strategy: str | None = None
    handed_over: bool = False
    backfill_cursor: str | None = None
    deletes_checked_at: datetime | None = None


@dataclass
class Load:
    """One load while it runs. `warnings` and `changes` collect sentences, `rows_read` what the source gave."""

    settings: Settings
    request: LoadRequest
    source: SourceTable
    destination: Destination
    fence: Fence
    cursor: Cursor | None
    tell: Callable[[int, int | None], None] = lambda done, total: None  # rows committed so far, and to come
    joined: bool = False  # the transaction is somebody else's, around this load and others
    warnings: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    rows_read: int = 0
    capped: bool = False
    cursor_capped: bool = False

    @property
    def name(self) -> str:
        return self.destination.name

    @cached_property
    def state(self) -> LoadState | None:
        """The state before this load."""
        return self.destination.state()

    @cached_property
    def before(self) -> CursorValue | None:
        """How far the table was loaded: what its last commit says, else the control row's mirror of it.

        None when that was another column. A value beyond the source's clock (of a row from the future, by whoever does
        not cap) counts as the clock.
        """
        if self.cursor is None or self.destination.columns() is None:
            return None
        if self.state is None:
            text = self.request.incremental_value
        elif self.state.extra.get("cursor_column") == self.cursor.column:
            text = self.state.cursor
        else:
            return None
        return self.capped_at_clock(self.cursor.parse(text)) if text is not None else None

    @property
    def is_first(self) -> bool:
        """Whether everything has to be read: no table yet, a forced full load, or no knowledge of how far it is."""
        return self.request.load_full or self.destination.columns() is None or self.before is None

    @property
    def is_new(self) -> bool:
        """Whether there is no table to go on from, or it is not wanted."""
        return self.request.load_full or self.destination.columns() is None

    @property
    def lookback_hours(self) -> int:
        hours = self.request.incremental_lookback_hours
        return self.settings.dataloader_incremental_lookback_hours if hours is None else hours

    @property
    def soft(self) -> bool:
        """Whether rows that are gone at the source are marked and not removed."""
        request = self.request
        return (
            request.is_delete
            and request.delete_mode != "hard"
            and request.load_strategy in _SOFT_DELETE_STRATEGIES
        )

    @property
    def own_columns(self) -> dict[str, str]:
        """Columns of ours beside the source's."""
        if self.request.load_strategy == "scd2":
            from quayside.dataloader.strategies.scd2 import COLUMNS

            return dict(COLUMNS)
        return dict(SOFT_DELETE_COLUMNS) if self.soft else {}

    @cached_property
    def source_key(self) -> list[str]:
        """The key's columns as the source calls them.

        Raises:
            InputError: there is no key, or a column of it is not there.
        """
        wanted = self.request.primary_key_cols or tuple(self.source.primary_key)
        if not wanted:
            raise InputError(
                f"{self.request.source_table_name} has no primary key and strategy {self.request.load_strategy} needs one: "
                "name its columns in primary_key_cols."
            )
        names = {c.name.lower(): c.name for c in self.source.columns}
        exact = {c.name for c in self.source.columns}
        if missing := [k for k in wanted if k not in exact and k.lower() not in names]:
            raise InputError(
                f"{self.request.source_table_name} has no column {', '.join(map(identifier, missing))}: "
                "correct primary_key_cols."
            )
        return [k if k in exact else names[k.lower()] for k in wanted]

    @property
    def has_key(self) -> bool:
        return bool(self.request.primary_key_cols or self.source.primary_key)

    def plan(self, *, replaced: bool) -> SchemaPlan:
        """The columns of this load; what changes is noted once."""
        made = plan(
            self.name,
            self.source.columns,
            self.destination.columns(),
            self.request.schema_contract,
            self.destination.stored_type,
            own=self.own_columns,
            replaced=replaced,
            forced=self.request.load_full,
            replaceable=self.request.load_strategy != "scd2",
        )
        self.changes += [change for change in made.changes if change not in self.changes]
        if self.cursor is not None and made.name_of(self.cursor.column) not in made.expressions:
            raise InputError(f"{self.name} leaves out cursor column {identifier(self.cursor.column)}.")
        return made

    def key(self, columns: SchemaPlan) -> list[str]:
        """The key's columns as they are stored."""
        return [columns.name_of(k) for k in self.source_key]

    def cursor_column(self, columns: SchemaPlan) -> str:
        """The cursor's column as it is stored."""
        assert self.cursor is not None
        return columns.name_of(self.cursor.column)

    def rows(self, columns: SchemaPlan, where: Predicate = (), own: Mapping[str, str] | None = None) -> Rows:
        """Rows streamed from the source; `own` are SQL values for columns of ours."""
        own = self._live() if own is None else own

        def select() -> str:
            return self._limited(columns.select(self.source.relation(where), own), columns)

        def portions() -> Portions | None:
            # A window is small beside its table; what a cap leaves is chosen among all rows.
            if where or self.request.row_cap is not None or not isinstance(self.source, Divisible):
                return None
            found = self.source.portions(PORTION_ROWS)
            return found and replace(found, selects=[columns.select(each, own) for each in found.selects])

        def written(rows: int) -> None:
            if not where:
                self.tell(self.rows_read + rows, self.source.estimate())

        given = [*columns.expressions, *own]
        return Rows(columns.columns, given, select, self.source.one_stream, portions, written)

    def staged(self, columns: SchemaPlan, own: Mapping[str, str] | None = None) -> Rows:
        """Rows of the stage; `own` as for `rows`."""
        own = self._live() if own is None else own
        given = ", ".join(map(identifier, columns.expressions))
        extra = "".join(f", {sql} AS {identifier(name)}" for name, sql in own.items())
        select = f"SELECT {given}{extra} FROM {STAGE}"
        return Rows(columns.columns, [*columns.expressions, *own], lambda: select)

    def stage(self, columns: SchemaPlan, where: Predicate = (), *, only: str | None = None) -> int:
        """Read rows into the stage; how many. `only`: a relation of keys, others are left out.

        Raises:
            CountMismatchError: not all that was read arrived.
        """
        with self.transaction():
            select = self._limited(columns.select(self.source.relation(where)), columns)
            if only is not None:
                key = ", ".join(map(identifier, self.key(columns)))
                select = f"SELECT s.* FROM ({select}) s SEMI JOIN {only} USING ({key})"
            made = f"CREATE OR REPLACE TEMP TABLE {STAGE.split('.')[-1]} AS {select}"
            with threads_for(self.con, one_stream=self.source.one_stream):
                read = rows_into(self.con, made).given
        staged = self.scalar(f"SELECT count(*) FROM {STAGE}")
        if staged != read:
            raise CountMismatchError(
                f"{self.name}: {read} rows were read and {staged} staged. Nothing was committed."
            )
        self.count_read(read)
        return read

    def count_read(self, rows: int) -> None:
        self.rows_read += rows
        if self.request.row_cap is not None and rows >= self.request.row_cap:
            self.capped = True

    def unique_stage(self, columns: SchemaPlan) -> None:
        """See that every staged row has a key of its own: of several rows of one key the latest stays.

        Raises:
            InputError: a column of the key is null.
        """
        key = ", ".join(map(identifier, self.key(columns)))
        self._check_null_keys(STAGE, columns)
        if not duplicates(self.con, STAGE, key):
            return
        order = [f"{identifier(c)} DESC NULLS LAST" for c in self._order(columns)]
        self.con.execute(
            f"CREATE OR REPLACE TEMP TABLE quayside_losers AS SELECT rowid AS row FROM {STAGE} QUALIFY "
            f"row_number() OVER (PARTITION BY {key} ORDER BY {', '.join(order)}) > 1"
        )
        if losers := self.scalar("SELECT count(*) FROM temp.main.quayside_losers"):
            self.con.execute(
                f"DELETE FROM {STAGE} WHERE rowid IN (SELECT row FROM temp.main.quayside_losers)"
            )
            self.warnings.append(
                f"{losers} rows had the key ({key}) of another row: the latest of each key was loaded. "
                "Correct primary_key_cols if they are different rows."
            )

    def drop_unchanged(self, columns: SchemaPlan, lower: CursorValue, upper: CursorValue | None) -> bool:
        """Take staged rows away that the table holds as they are, looking only among rows from `lower` of the cursor to
        `upper` (None = to the end).

        Those are few and mostly in the files of the last commits, where comparing in the merge would read every column of
        the whole table. False when it cannot be told, since columns change with this load.
        """
        stored, given = self.destination.columns() or {}, list(columns.expressions)
        if any(stored.get(name) != columns.columns[name] for name in given):
            return False
        assert self.cursor is not None
        cursor = identifier(self.cursor_column(columns))
        window = f"{cursor} >= {self.cursor.literal(lower)}"
        if upper is not None:
            window += f" AND {cursor} <= {self.cursor.literal(upper)}"
        live = f" AND {IS_DELETE} IS NOT TRUE" if self.soft and IS_DELETE in stored else ""
        same = " AND ".join(f"t.{name} IS NOT DISTINCT FROM s.{name}" for name in map(identifier, given))
        # EXISTS would be planned with a second join and a grouping, over all columns each.
        self.con.execute(
            f"DELETE FROM {STAGE} WHERE rowid IN (SELECT s.rowid FROM {STAGE} s SEMI JOIN "
            f"(SELECT * FROM {self.destination.relation()} WHERE {window}{live}) t ON {same} WHERE {window})"
        )
        return True

    def overwrite(
        self,
        columns: SchemaPlan,
        where: Predicate = (),
        *,
        unique: bool,
        state: Callable[[str], LoadState],
        own: Mapping[str, str] | None = None,
    ) -> Written:
        """Replace the table by rows streamed from the source.

        With `unique`, rows are held to the key; where the source does not vouch for it and several rows have one key,
        they are read once more, through the stage.
        """
        vouched = unique and list(self.source.primary_key) == self.source_key

        def checked(relation: str) -> LoadState:
            if unique and not vouched:
                self._check_null_keys(relation, columns)
                key = ", ".join(map(identifier, self.key(columns)))
                if duplicates(self.con, relation, key):
                    raise _DuplicateKeysError
            return state(relation)

        try:
            written = self.destination.overwrite(self.rows(columns, where, own), checked, self.fence)
            self.count_read(written.inserted)
        except _DuplicateKeysError:
            self.stage(columns, where)
            self.unique_stage(columns)
            rows = self.staged(columns, own)
            written = self.destination.overwrite(rows, state, self.fence)
        return written

    def new_state(self, cursor: str | None = None, boundary: Sequence[str] = (), **extra: Any) -> LoadState:
        if self.cursor is not None:
            extra |= {"cursor_column": self.cursor.column, "cursor_capped": self.cursor_capped}
        return LoadState(self.request.config_id, self.request.attempt, cursor, boundary, extra)

    def cursor_of(self, relation: str, columns: SchemaPlan) -> str | None:
        """The greatest cursor of a relation as text: never beyond the source's clock, never before the one there was."""
        assert self.cursor is not None
        column = self.cursor_column(columns)
        row = self.con.execute(
            f"SELECT {self.cursor.greatest(column)}, count(*) FILTER (WHERE {identifier(column)} IS NULL) FROM {relation}"
        ).fetchone()
        assert row is not None
        if row[1]:
            self.warnings.append(
                f"{row[1]} rows have no value in cursor {identifier(column)}: changes of them are not seen until they have one."
            )
        before = None if self.is_first else self.before
        if row[0] is None:
            return None if before is None else self.cursor.text(before)
        greatest = self.cursor.parse(row[0])
        after = self.capped_at_clock(greatest)
        self.cursor_capped = after != greatest
        if self.cursor_capped:
            self.warnings.append(
                f"Cursor {identifier(column)} has values up to {row[0]}, beyond the source's clock: it is kept at "
                f"{self.cursor.text(after)}."
            )
        if before is not None and before > after:  # pyright: ignore[reportOperatorIssue]  one column, one type
            after = before
        return self.cursor.text(after)

    def capped_at_clock(self, value: CursorValue) -> CursorValue:
        assert self.cursor is not None
        clock = self.cursor.clock(self.source)
        return clock if clock is not None and value > clock else value  # pyright: ignore[reportOperatorIssue]

    @property
    def con(self) -> Any:
        return self.destination.con

    def scalar(self, sql: str, values: Sequence[Any] = ()) -> Any:
        row = self.con.execute(sql, list(values)).fetchone()
        assert row is not None
        return row[0]

    def transaction(self) -> AbstractContextManager[None]:
        """A DuckDB transaction around reads of the source, so that all are of its snapshot; nothing of the lake."""
        return nullcontext() if self.joined else _Transaction(self.con)

    def _live(self) -> dict[str, str]:
        if not self.soft:
            return {}
        return {IS_DELETE: "false", DELETED_AT: f"NULL::{SOFT_DELETE_COLUMNS[DELETED_AT]}"}

    def _limited(self, select: str, columns: SchemaPlan) -> str:
        if self.request.row_cap is None:
            return select
        # The lowest cursors, so that the next load goes on from there.
        order = f" ORDER BY {identifier(self.cursor_column(columns))}" if self.cursor is not None else ""
        return f"SELECT * FROM ({select}){order} LIMIT {int(self.request.row_cap)}"

    def _order(self, columns: SchemaPlan) -> list[str]:
        names = list(columns.expressions)
        return [self.cursor_column(columns), *names] if self.cursor is not None else names

    def _check_null_keys(self, relation: str, columns: SchemaPlan) -> None:
        key = self.key(columns)
        null = " OR ".join(f"{identifier(k)} IS NULL" for k in key)
        if number := self.scalar(f"SELECT count(*) FROM {relation} WHERE {null}"):
            raise InputError(
                f"{number} rows of {self.request.source_table_name} have no value in their key "
                f"({', '.join(map(identifier, key))}), so they cannot be told apart: correct primary_key_cols, or leave "
                "them out in the row's query."
            )


class _DuplicateKeysError(Exception):
    """Several rows of one key were about to be committed."""


class _Transaction:
    def __init__(self, con: Any) -> None:
        self._con = con

    def __enter__(self) -> None:
        self._con.execute("BEGIN")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._con.execute("COMMIT" if kind is None else "ROLLBACK")
