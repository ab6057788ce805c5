"""The ledger's verbs for one account at a time, on the caller's connection.

On an autocommit connection every call is a transaction of its own; otherwise it joins the caller's. A call with a key that is
in the books already writes nothing and answers as the first one did, so everything here can be tried again. Jobs over
all accounts are in `quayside.robosystems.billing`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from quayside.foundation import audit
from quayside.foundation.errors import UsageError
from quayside.robosystems.amounts import credits_of
from quayside.robosystems.errors import InsufficientCreditsError, KeyReusedError
from quayside.robosystems.ledger import accounts, posting, reservations, reversals
from quayside.robosystems.ledger.expiry import Expired, expire
from quayside.robosystems.ledger.model import Balance, Entry, Grant, Reservation, Source
from quayside.robosystems.ledger.posting import Author
from quayside.robosystems.periods import in_utc, utc_now

if TYPE_CHECKING:
    import psycopg

# One statement and so one round trip: it waits for the account's lock, sees the balance as it is then, and writes the
# transfer that continues it; or nothing, for one of the reasons that `Ledger._not_consumed` then finds out.
_CONSUME: Final = f"""
WITH account AS (
    SELECT id, balance, held, seq, booked_at, may_overdraw FROM robosystems.accounts
    WHERE graph_id = {accounts.PAYER} FOR NO KEY UPDATE
)
INSERT INTO robosystems.transfers (key, kind, operation, from_account, to_account, amount, seq, balance_after,
                                   effective_at, booked_at, period, actor, run_id, metadata)
SELECT %(key)s, 'consumption', %(operation)s, a.id, {posting.CONSUMPTION}, %(amount)s, a.seq + 1, a.balance - %(amount)s,
       %(effective_at)s, greatest(%(at)s, a.booked_at), (%(effective_at)s::timestamptz AT TIME ZONE 'UTC')::date,
       %(actor)s, %(run_id)s, %(metadata)s::jsonb
FROM account AS a
WHERE (a.may_overdraw OR a.balance - a.held >= %(amount)s)
  AND coalesce((SELECT min(g.expires_at) FROM robosystems.grants AS g WHERE g.account_id = a.id AND g.remaining > 0)
               > %(at)s, true)
  AND (NOT %(alone)s OR set_config('synchronous_commit', 'off', true) IS NOT NULL)
ON CONFLICT (key) DO NOTHING
RETURNING id, balance_after
"""  # noqa: S608 - made of constants of this package
# A consumption that is a transaction of its own commits without waiting for the disk, so that whoever wants the account
# next has its lock a disk write earlier, and several are written at once. This statement then waits: its commit is on
# disk (and wherever else the server is told to wait for) only after all before it, and nobody is answered earlier.
_ON_DISK: Final = "SELECT pg_logical_emit_message(true, 'quayside', '')"
_BY_KEY: Final = """
SELECT id, balance_after, account_id, CASE WHEN to_account = account_id THEN amount ELSE -amount END
FROM robosystems.transfers WHERE key = %s
"""
_ROW: Final = (
    "SELECT %(account_id)s, %(key)s, %(kind)s, %(operation)s, %(system_account)s, %(change)s, %(effective_at)s,"
    " (%(effective_at)s::timestamptz AT TIME ZONE 'UTC')::date, %(metadata)s::jsonb, %(source)s, %(priority)s,"
    " %(expires_at)s, %(rollover_credits)s, %(rollover_until)s"
)
_ROW_COLUMNS: Final = (
    "account_id, key, kind, operation, system_account, change, effective_at, period, metadata, source, priority, "
    "expires_at, rollover_credits, rollover_until"
)


class Ledger:
    """Credits of graphs, on one psycopg connection.

    Amounts are credits (`Decimal`, `int` or text; never float). ``at`` is when something is booked, by default now;
    within an account it never goes back. ``graph_id`` may be a subgraph: its parent's account pays. Who acts is
    `quayside.foundation.audit.actor`.
    """

    def __init__(self, connection: psycopg.Connection[Any], *, run_id: str | None = None) -> None:
        self.connection = connection
        self.run_id = run_id

    # -- accounts ---------------------------------------------------------------------------------------------------

    def open_account(self, graph_id: str, *, may_overdraw: bool = False, at: datetime | None = None) -> int:
        """Open the account of a graph; its id. Opening it again changes nothing."""
        author = self._author(at)
        return accounts.open_account(self.connection, graph_id, author.actor, author.at, may_overdraw)

    def allow_overdraft(self, graph_id: str, allowed: bool = True) -> None:
        """Let consumption take an account below 0, or no longer."""
        found = accounts.account_id(self.connection, graph_id)
        with posting.unit(self.connection):
            self.connection.execute(
                "UPDATE robosystems.accounts SET may_overdraw = %s WHERE id = %s", [allowed, found]
            )
            audit.record(
                self.connection,
                audit.actor(),
                "allow overdraft" if allowed else "forbid overdraft",
                "graph",
                graph_id,
            )

    def balance(self, graph_id: str, *, at: datetime | None = None) -> Balance:
        """What the account holds. Raises: UnknownAccountError."""
        return accounts.balance(self.connection, graph_id, self._author(at).at)

    def grants(self, graph_id: str) -> list[Grant]:
        """Every grant of the account with what is left of it, oldest first. Raises: UnknownAccountError."""
        return accounts.grants(self.connection, graph_id)

    # -- credits come and go ----------------------------------------------------------------------------------------

    def grant(
        self,
        graph_id: str,
        amount: Decimal | int | str,
        *,
        key: str,
        source: Source = "promotion",
        priority: int = 50,
        expires_at: datetime | None = None,
        rollover_credits: Decimal | int | str = 0,
        rollover_until: datetime | None = None,
        at: datetime | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Entry:
        """Give credits. They are drawn lowest priority number first, then earliest expiry, then oldest.

        Args:
            rollover_credits: how much of what is left at `expires_at` is carried over, once, until `rollover_until`.

        Raises:
            UnknownAccountError: the graph has no account.
            KeyReusedError: the key stands for another grant.
            UsageError: the amount, the priority or the times make no sense.
        """
        author = self._author(at)
        if not 0 <= priority <= 100:
            raise UsageError(f"The priority of a grant is 0 to 100, not {priority}.")
        expires_at = None if expires_at is None else in_utc(expires_at)
        rollover_until = None if rollover_until is None else in_utc(rollover_until)
        if expires_at is not None and expires_at <= author.at:
            raise UsageError(f"A grant that expires at {expires_at:%Y-%m-%d %H:%M} UTC is over already.")
        carried = Decimal(0) if rollover_credits in (0, "0") else credits_of(rollover_credits, "roll-over")
        if carried and (expires_at is None or rollover_until is None or rollover_until <= expires_at):
            raise UsageError(
                "A grant rolls over from when it expires until a later moment: give both, in that order."
            )
        return self._post(
            graph_id,
            author,
            key=key,
            kind="grant",
            system_account=posting.ADJUSTMENTS,
            change=credits_of(amount),
            operation=source,
            source=source,
            priority=priority,
            expires_at=expires_at,
            rollover_credits=carried,
            rollover_until=rollover_until,
            metadata=metadata,
        )

    def adjust(
        self,
        graph_id: str,
        change: Decimal | int | str,
        *,
        key: str,
        reason: str,
        at: datetime | None = None,
    ) -> Entry:
        """Correct an account by hand: a positive change adds credits, a negative one takes them, also below 0."""
        author = self._author(at)
        negative = str(change).strip().startswith("-")
        amount = credits_of(str(change).strip().lstrip("-"), "change")
        return self._post(
            graph_id,
            author,
            key=key,
            kind="adjustment",
            system_account=posting.ADJUSTMENTS,
            change=-amount if negative else amount,
            operation="adjustment",
            source=None if negative else "adjustment",
            metadata={"reason": reason},
        )

    def consume(
        self,
        graph_id: str,
        amount: Decimal | int | str,
        *,
        key: str,
        operation: str = "",
        effective_at: datetime | None = None,
        at: datetime | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Entry:
        """Take credits for one operation.

        Raises:
            InsufficientCreditsError: the account holds too few and may not overdraw; nothing was taken.
            KeyReusedError: the key stands for another unit of work.
            UnknownAccountError: the graph has no account.
        """
        author = self._author(at)
        exact = credits_of(amount)
        alone = self.connection.autocommit and self.connection.info.transaction_status == 0  # idle
        bound = author.bound | {
            "graph_id": graph_id,
            "alone": alone,
            "key": key,
            "operation": operation,
            "amount": exact,
            "effective_at": author.at if effective_at is None else in_utc(effective_at),
            "metadata": None if metadata is None else json.dumps(metadata, default=str),
        }
        row = self.connection.execute(_CONSUME.encode(), bound).fetchone()
        if row is not None:
            if alone:
                self.connection.execute(_ON_DISK)
            return Entry(*row)
        with posting.unit(self.connection):
            return self._not_consumed(graph_id, author, bound | {"alone": False}, exact)

    def transfer(
        self,
        from_graph: str,
        to_graph: str,
        amount: Decimal | int | str,
        *,
        key: str,
        at: datetime | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Entry:
        """Move credits from one graph's account to another's, where they do not expire; the giver's side is returned.

        Raises:
            InsufficientCreditsError: the giver holds too few.
            KeyReusedError, UnknownAccountError: as `consume`.
        """
        author = self._author(at)
        exact = credits_of(amount)
        con = self.connection
        with posting.unit(con):
            giver, taker = (accounts.account_id(con, graph) for graph in (from_graph, to_graph))
            if giver == taker:
                raise UsageError(f"Graphs {from_graph} and {to_graph} share an account: nothing to move.")
            posting.lock(con, "SELECT unnest(%(ids)s::bigint[])", {"ids": [giver, taker]})
            if (repeated := self._repeated(f"{key}:out", giver, -exact)) is not None:
                return repeated
            self._refresh(giver, author)
            found = accounts.balance(con, from_graph, author.at)
            if found.available < exact:
                raise InsufficientCreditsError(accounts.short(found, exact))
            out = {"to": to_graph} | dict(metadata or {})
            entry = self._post(
                from_graph,
                author,
                key=f"{key}:out",
                kind="adjustment",
                system_account=posting.ADJUSTMENTS,
                change=-exact,
                operation="transfer",
                metadata=out,
            )
            self._post(
                to_graph,
                author,
                key=f"{key}:in",
                kind="adjustment",
                system_account=posting.ADJUSTMENTS,
                change=exact,
                operation="transfer",
                source="adjustment",
                metadata={"from": from_graph} | dict(metadata or {}),
            )
            return entry

    def expire(self, graph_id: str, *, at: datetime | None = None) -> Expired:
        """Let the lapsed grants of one account expire, as consumption from it would."""
        author = self._author(at)
        with posting.unit(self.connection):
            return self._refresh(accounts.account_id(self.connection, graph_id), author)

    # -- reservations ----------------------------------------------------------------------------------------------

    def reserve(
        self,
        graph_id: str,
        amount: Decimal | int | str,
        *,
        key: str,
        operation: str = "",
        time_out: timedelta = timedelta(minutes=15),
        at: datetime | None = None,
    ) -> Reservation:
        """Hold credits for work whose cost is known only afterwards; after `time_out` they are free again.

        Raises:
            InsufficientCreditsError, KeyReusedError, UnknownAccountError: as `consume`.
        """
        author = self._author(at)
        exact = credits_of(amount)
        with posting.unit(self.connection):
            account = accounts.account_id(self.connection, graph_id)
            posting.lock(self.connection, "SELECT %(id)s::bigint", {"id": account})
            self._refresh(account, author)
            return reservations.hold(
                self.connection, graph_id, account, exact, key, operation, time_out, author
            )

    def capture(
        self, key: str, amount: Decimal | int | str | None = None, *, at: datetime | None = None
    ) -> Entry:
        """Take what the work did cost, by default all that is held; the rest is free again.

        Raises:
            UsageError: more than was held.
            ReservationEndedError: it was released, timed out, or captured with another amount.
        """
        author = self._author(at)
        exact = None if amount is None else credits_of(amount)
        with posting.unit(self.connection):
            held, exact = reservations.begin_capture(self.connection, key, exact, author)
            if held.state == "captured":
                row = self.connection.execute(_BY_KEY, [f"capture:{key}"]).fetchone()
                assert row is not None
                return Entry(row[0], row[1], repeated=True)
            # What expired meanwhile is not kept by a reservation.
            expire(self.connection, author, "SELECT %(account)s::bigint", {"account": held.account})
            return self._post(
                held.graph_id,
                author,
                key=f"capture:{key}",
                kind="consumption",
                system_account=posting.CONSUMPTION,
                change=-exact,
                operation=held.operation,
            )

    def release(self, key: str, *, at: datetime | None = None) -> None:
        """Give up a reservation. Releasing it again changes nothing. Raises: ReservationEndedError: it was captured."""
        with posting.unit(self.connection):
            reservations.release(self.connection, key, self._author(at))

    # -- reversals --------------------------------------------------------------------------------------------------

    def refund(
        self,
        transfer_id: int,
        amount: Decimal | int | str | None = None,
        *,
        key: str | None = None,
        reason: str = "",
        at: datetime | None = None,
    ) -> Entry:
        """Give back consumed credits, by default all of a transfer, as a grant that does not expire.

        Raises:
            BooksError: it is no consumption, or more than is left of it would be given back.
        """
        author = self._author(at)
        exact = None if amount is None else credits_of(amount)
        with posting.unit(self.connection):
            return reversals.refund(
                self.connection, transfer_id, exact, key or f"refund:{transfer_id}", reason, author
            )

    def void(self, transfer_id: int, *, reason: str = "", at: datetime | None = None) -> Entry:
        """Undo what is left of a transfer by the opposite one. Voiding it again changes nothing.

        Raises:
            BooksError: it is a void itself, was refunded in full, or belongs to an invoice (void that).
        """
        with posting.unit(self.connection):
            return reversals.void(self.connection, transfer_id, reason, self._author(at))

    # -- inside -----------------------------------------------------------------------------------------------------

    def _author(self, at: datetime | None) -> Author:
        return Author(utc_now() if at is None else in_utc(at), audit.actor(), self.run_id)

    def _refresh(self, account: int, author: Author) -> Expired:
        """Let expire and time out what is due on an account."""
        reservations.time_out(self.connection, author, account)
        return expire(self.connection, author, "SELECT %(account)s::bigint", {"account": account})

    def _repeated(self, key: str, account: int, change: Decimal) -> Entry | None:
        row = self.connection.execute(_BY_KEY, [key]).fetchone()
        if row is None:
            return None
        if row[2:] != (account, change):
            raise KeyReusedError(
                f"The key {key!r} stands for another transfer (number {row[0]}): every unit of work needs its own."
            )
        return Entry(row[0], row[1], repeated=True)

    def _not_consumed(
        self, graph_id: str, author: Author, bound: Mapping[str, Any], amount: Decimal
    ) -> Entry:
        account = accounts.account_id(self.connection, graph_id)
        posting.lock(self.connection, "SELECT %(id)s::bigint", {"id": account})
        if (repeated := self._repeated(bound["key"], account, -amount)) is not None:
            return repeated
        self._refresh(account, author)
        row = self.connection.execute(_CONSUME.encode(), bound).fetchone()
        if row is None:
            found = accounts.balance(self.connection, graph_id, author.at)
            raise InsufficientCreditsError(accounts.short(found, amount))
        return Entry(*row)

    def _post(
        self,
        graph_id: str,
        author: Author,
        *,
        key: str,
        kind: str,
        system_account: int,
        change: Decimal,
        operation: str = "",
        source: Source | None = None,
        priority: int = 50,
        expires_at: datetime | None = None,
        rollover_credits: Decimal = Decimal(0),
        rollover_until: datetime | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Entry:
        con = self.connection
        with posting.unit(con):
            account = accounts.account_id(con, graph_id)
            bound = {
                "account_id": account,
                "key": key,
                "kind": kind,
                "operation": operation,
                "system_account": system_account,
                "change": change,
                "effective_at": author.at,
                "metadata": None if metadata is None else json.dumps(metadata, default=str),
                "source": source,
                "priority": priority,
                "expires_at": expires_at or "infinity",
                "rollover_credits": rollover_credits,
                "rollover_until": rollover_until,
            }
            written = posting.post(con, _ROW_COLUMNS, _ROW, bound, author)
            entry = self._repeated(key, account, change)
            assert entry is not None
            return Entry(entry.transfer_id, entry.balance_after, repeated=not written.transfers)
