"""Subscriptions in PostgreSQL: every change is a compare-and-set on state and version, with its line of history.

All on the caller's connection, so that a move is committed with what it belongs to.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import fields
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Final

from quayside.foundation import audit
from quayside.foundation.errors import ConflictError, NotFoundError, UsageError
from quayside.robosystems.names import named, shown
from quayside.robosystems.periods import in_utc, month_of, previous_month, utc_now
from quayside.robosystems.subscriptions.states import MOVES, State, may_move
from quayside.robosystems.subscriptions.subscription import Subscription, Transition

if TYPE_CHECKING:
    import psycopg

COLUMNS: Final = ", ".join(field.name for field in fields(Subscription))

_MOVE: Final = f"""
UPDATE robosystems.subscriptions
SET state = %(to)s, state_at = %(at)s, version = version + 1,
    activated_at = CASE WHEN %(to)s = 'active' THEN coalesce(activated_at, %(at)s)
                        WHEN %(to)s IN ('provisioning', 'failed') THEN NULL ELSE activated_at END,
    canceled_at = CASE %(to)s WHEN 'canceled' THEN %(at)s WHEN 'active' THEN NULL ELSE canceled_at END,
    ends_at = CASE %(to)s WHEN 'canceled' THEN coalesce(%(ends_at)s, %(at)s) WHEN 'active' THEN NULL
                          WHEN 'ended' THEN least(ends_at, %(at)s) ELSE ends_at END,
    -- A new life is tried afresh, and with a graph of its own: the books of the old one are closed.
    attempt = CASE WHEN %(to)s = 'provisioning' THEN 0 ELSE attempt END,
    graph_id = CASE WHEN %(to)s = 'provisioning' AND resource_type = 'graph' THEN NULL ELSE graph_id END,
    next_attempt_at = NULL,
    last_error = CASE WHEN %(to)s IN ('provisioning', 'active') THEN NULL ELSE last_error END
WHERE subscription_id = %(id)s AND state = %(from)s AND version = %(version)s
RETURNING {COLUMNS}
"""  # noqa: S608 - made of constants of this package
_ORDER: Final = """
INSERT INTO robosystems.subscriptions (subscription_id, customer_id, resource_type, graph_id, plan, plan_at, state, state_at,
                                       request, fees_from, created_by, created_at)
VALUES (%(id)s, %(customer)s, %(type)s, %(account)s, %(plan)s, %(at)s, 'pending', %(at)s, %(request)s, %(fees_from)s, %(actor)s, %(at)s)
ON CONFLICT DO NOTHING
"""
_HISTORY: Final = (
    "INSERT INTO robosystems.subscription_transitions (subscription_id, from_state, to_state, version, at, actor, reason)"
    " VALUES (%(id)s, %(from)s, %(to)s, %(version)s, %(at)s, %(actor)s, %(reason)s)"
)
_PLAN: Final = (
    "INSERT INTO robosystems.plan_changes (subscription_id, effective_at, from_plan, plan, actor)"
    " VALUES (%(id)s, %(at)s, %(from)s, %(plan)s, %(actor)s)"
)


class Subscriptions:
    """The subscriptions of one database, on one psycopg connection. ``at`` is when something happens, by default now."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection

    def create(
        self,
        customer_id: str,
        plan: str,
        *,
        subscription_id: str | None = None,
        resource_type: str = "graph",
        request: Mapping[str, Any] | None = None,
        invoiced: bool = True,
        at: datetime | None = None,
    ) -> Subscription:
        """Take an order: a subscription in ``pending``. With an id that is there already, that one is returned.

        Args:
            request: what is ordered; for a repository it names ``repository`` and ``user``.
            invoiced: whether the plan's monthly price is invoiced here, or paid elsewhere.

        Raises:
            NotFoundError: there is no such customer, plan or repository.
            UsageError: the plan is of the other kind of resource, or the id, plan or user makes no sense.
            ConflictError: the id stands for another order, or the user has the repository already.
        """
        moment = _moment(at)
        if subscription_id is not None:
            named(subscription_id, "The id of a subscription")
        self._check_plan(plan, resource_type, moment)
        account = self._repository_account(request or {}) if resource_type == "repository" else None
        con, wanted = self.connection, subscription_id or f"sub_{secrets.token_hex(10)}"
        known = con.execute("SELECT FROM robosystems.customers WHERE customer_id = %s", [customer_id])
        if known.fetchone() is None:
            raise NotFoundError(f"There is no customer {shown(customer_id)}.")
        bound = {
            "id": wanted,
            "customer": customer_id,
            "type": resource_type,
            "account": account,
            "fees_from": moment.date() if invoiced else None,
            "plan": plan,
            "from": None,
            "at": moment,
            "request": json.dumps(dict(request or {})),
            "actor": audit.actor(),
        }
        with con.transaction():
            made = con.execute(_ORDER, bound).rowcount
            if made:
                self._note(wanted, None, "pending", 1, moment, "ordered")
                con.execute(_PLAN, bound)
        taken = None if made or account is None else self._of_account(account)
        if taken not in (None, wanted):
            raise ConflictError(
                f"{account} has subscription {taken} already: change its plan, or end it first."
            )
        found = self.get(wanted)
        if not made and (customer_id, resource_type, plan) != (
            found.customer_id,
            found.resource_type,
            self._ordered_plan(wanted) or plan,
        ):
            raise ConflictError(f"Subscription {wanted} is another order already: give this one another id.")
        return found

    def get(self, subscription_id: str) -> Subscription:
        """A subscription by its id. Raises: NotFoundError."""
        row = self.connection.execute(
            f"SELECT {COLUMNS} FROM robosystems.subscriptions WHERE subscription_id = %s".encode(),  # noqa: S608 - constants
            [subscription_id],
        ).fetchone()
        if row is None:
            raise NotFoundError(f"There is no subscription {shown(subscription_id)}.")
        return Subscription(*row)

    def history(self, subscription_id: str) -> list[Transition]:
        """Every state it was in, oldest first."""
        rows = self.connection.execute(
            "SELECT from_state, to_state, version, at, actor, reason FROM robosystems.subscription_transitions"
            " WHERE subscription_id = %s ORDER BY version",
            [subscription_id],
        )
        return [Transition(*row) for row in rows]

    def move(
        self,
        seen: Subscription,
        to: State,
        reason: str = "",
        *,
        at: datetime | None = None,
        ends_at: datetime | None = None,
    ) -> Subscription:
        """Move a subscription from the state and version it was seen in.

        Raises:
            UsageError: the table of moves does not allow it.
            ConflictError: it was changed since it was seen; nothing was changed now.
        """
        if not may_move(seen.state, to):
            allowed = ", ".join(sorted(MOVES[seen.state])) or "nothing else"
            raise UsageError(
                f"Subscription {seen.subscription_id} is {seen.state} and cannot become {to}, only {allowed}."
            )
        if to == "active" and seen.graph_id is None:
            raise UsageError(
                f"Subscription {seen.subscription_id} has no graph yet: it cannot become active."
            )
        bound = {
            "id": seen.subscription_id,
            "from": seen.state,
            "to": to,
            "version": seen.version,
            "at": _moment(at),
            "ends_at": None if ends_at is None else in_utc(ends_at),
        }
        if to == "provisioning" and seen.resource_type == "repository" and seen.graph_id is not None:
            other = self._of_account(seen.graph_id)
            if other not in (None, seen.subscription_id):
                raise ConflictError(f"{seen.graph_id} has subscription {other} by now: nothing was changed.")
        with self.connection.transaction():
            row = self.connection.execute(_MOVE.encode(), bound).fetchone()
            if row is None:
                raise self._changed(seen)
            self._note(seen.subscription_id, seen.state, to, seen.version + 1, bound["at"], reason)
        return Subscription(*row)

    # -- verbs ------------------------------------------------------------------------------------------------------

    def await_payment(self, subscription_id: str, *, at: datetime | None = None) -> Subscription:
        """Checkout has begun."""
        return self._to(subscription_id, "pending_payment", "checkout", at)

    def paid(self, subscription_id: str, *, at: datetime | None = None) -> Subscription:
        """Paid, or on account: from now on `pending_subscription_sensor` makes its graph. Told again, nothing changes;
        a past-due subscription is active again."""
        seen = self.get(subscription_id)
        if seen.state in ("provisioning", "active"):
            return seen
        return self.move(seen, "active" if seen.state == "past_due" else "provisioning", "paid", at=at)

    def past_due(self, subscription_id: str, reason: str = "payment failed") -> Subscription:
        """A payment failed: no more allowances until it is paid."""
        return self._to(subscription_id, "past_due", reason)

    def pause(self, subscription_id: str, reason: str = "") -> Subscription:
        """Keep the graph, give no allowance."""
        return self._to(subscription_id, "paused", reason)

    def resume(self, subscription_id: str, reason: str = "", *, at: datetime | None = None) -> Subscription:
        """Back to active: from paused, or from canceled while it runs.

        Raises:
            UsageError: it is over, or past due, which only a payment ends.
        """
        seen = self.get(subscription_id)
        if seen.state == "past_due":
            raise UsageError(
                f"Subscription {subscription_id} is past_due: say that it is paid (`quayside credits provision paid`)."
            )
        if seen.state == "canceled" and seen.ends_at is not None and seen.ends_at <= _moment(at):
            raise UsageError(
                f"Subscription {subscription_id} ran until {seen.ends_at:%Y-%m-%d %H:%M} UTC: order again."
            )
        return self._to(subscription_id, "active", reason, at)

    def cancel(
        self,
        subscription_id: str,
        *,
        ends_at: datetime | None = None,
        reason: str = "",
        at: datetime | None = None,
    ) -> Subscription:
        """Cancel: it runs until `ends_at` (default: at once), then its graph is backed up and removed.

        Raises:
            UsageError: it is over, or `ends_at` lies in the past.
            ConflictError: its graph is being made right now.
        """
        seen, moment = self.get(subscription_id), _moment(at)
        if seen.state == "canceled":
            return seen
        if ends_at is not None and in_utc(ends_at) < moment:
            raise UsageError(
                f"Subscription {subscription_id} cannot end in the past ({ends_at.isoformat()})."
            )
        if seen.state == "provisioning" and seen.attempt > 0:
            raise ConflictError(
                f"The graph of subscription {subscription_id} is being made: cancel when that is over."
            )
        return self.move(seen, "canceled", reason, at=moment, ends_at=ends_at)

    def retry(self, subscription_id: str, reason: str = "") -> Subscription:
        """Make the graph of a failed subscription once more, with five attempts of its own.

        Raises:
            UsageError: it has not failed.
        """
        seen = self.get(subscription_id)
        if seen.state not in ("failed", "provisioning"):
            raise UsageError(
                f"Subscription {subscription_id} is {seen.state}: only one that failed is tried again."
            )
        return self._to(subscription_id, "provisioning", reason)

    def change_plan(
        self,
        subscription_id: str,
        plan: str,
        *,
        effective_at: datetime | None = None,
        at: datetime | None = None,
    ) -> Subscription:
        """Change the plan from a moment on, which may lie ahead; hours before it are billed by the plan they had.

        Raises:
            UsageError: it is over, or `effective_at` lies before now or before another change of plan.
            ConflictError: it was changed at the same moment.
        """
        seen, now = self.get(subscription_id), _moment(at)
        moment = now if effective_at is None else in_utc(effective_at)
        if seen.state in ("ended", "failed", "canceled"):
            raise UsageError(f"Subscription {subscription_id} is {seen.state}: its plan cannot change.")
        if moment < now:
            raise UsageError(
                "A plan changes now or later: hours that are over keep the plan they were billed by."
            )
        self._check_plan(plan, seen.resource_type, moment)
        con = self.connection
        with con.transaction():
            # Also takes the row's lock, so that of two changes at once the second sees the first.
            changed = con.execute(
                "UPDATE robosystems.subscriptions SET version = version + 1 WHERE subscription_id = %s AND version = %s",
                [subscription_id, seen.version],
            ).rowcount
            if not changed:
                raise self._changed(seen)
            last = con.execute(
                "SELECT max(effective_at), (array_agg(plan ORDER BY effective_at DESC))[1]"
                " FROM robosystems.plan_changes WHERE subscription_id = %s",
                [subscription_id],
            ).fetchone()
            assert last is not None
            if last[0] is not None and last[0] >= moment:
                raise UsageError(
                    f"Subscription {subscription_id} changes to {last[1]} at {last[0]:%Y-%m-%d %H:%M:%S} UTC: "
                    "the next change comes after that."
                )
            bound = {"id": subscription_id, "at": moment, "from": last[1] or seen.plan, "plan": plan}
            con.execute(_PLAN, bound | {"actor": audit.actor()})
            apply_plan_changes(con, now)
        return self.get(subscription_id)

    def invoice_fees(
        self, subscription_id: str, since: date | None, *, at: datetime | None = None
    ) -> Subscription:
        """Invoice the plan's price from a day on; with None it is paid elsewhere. What was invoiced stays.

        Raises:
            UsageError: the day lies before the first of last month, whose invoices are sent.
        """
        self.get(subscription_id)
        first = previous_month(month_of(_moment(at)))
        if since is not None and since < first:
            raise UsageError(f"Fees are invoiced from {first} on at the earliest, not from {since}.")
        with self.connection.transaction():
            self.connection.execute(
                "UPDATE robosystems.subscriptions SET fees_from = %s, version = version + 1 WHERE subscription_id = %s",
                [since, subscription_id],
            )
            audit.record(
                self.connection,
                audit.actor(),
                "invoice fees" if since else "fees are paid elsewhere",
                "subscription",
                subscription_id,
                {"since": since and str(since)},
            )
        return self.get(subscription_id)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _repository_account(self, request: Mapping[str, Any]) -> str:
        repository, user = str(request.get("repository", "")), str(request.get("user", ""))
        named(f"{repository}:{user}", "A repository with its user")
        if not user or any(c.isspace() for c in user):
            raise UsageError(f"{user!r} is no user of a repository: give an id without spaces.")
        check_repository(self.connection, repository)
        return f"{repository}:{user}"

    def _ordered_plan(self, subscription_id: str) -> str | None:
        row = self.connection.execute(
            "SELECT plan FROM robosystems.plan_changes WHERE subscription_id = %s AND from_plan IS NULL",
            [subscription_id],
        ).fetchone()
        return row[0] if row else None

    def _of_account(self, graph_id: str) -> str | None:
        row = self.connection.execute(
            "SELECT subscription_id FROM robosystems.subscriptions WHERE graph_id = %s AND state NOT IN ('ended', 'failed')",
            [graph_id],
        ).fetchone()
        return row[0] if row else None

    def _to(self, subscription_id: str, to: State, reason: str, at: datetime | None = None) -> Subscription:
        seen = self.get(subscription_id)
        return seen if seen.state == to else self.move(seen, to, reason, at=at)

    def _note(
        self, subscription_id: str, before: State | None, to: State, version: int, at: datetime, reason: str
    ) -> None:
        bound = {
            "id": subscription_id,
            "from": before,
            "to": to,
            "version": version,
            "at": at,
            "reason": reason,
        }
        self.connection.execute(_HISTORY, bound | {"actor": audit.actor()})

    def _changed(self, seen: Subscription) -> ConflictError:
        now = self.get(seen.subscription_id)
        return ConflictError(
            f"Subscription {seen.subscription_id} was {seen.state} (version {seen.version}) and is {now.state} (version "
            f"{now.version}) now: somebody else was faster. Nothing was changed; look again and repeat."
        )

    def _check_plan(self, plan: str, resource_type: str, at: datetime) -> None:
        rows = self.connection.execute(
            "SELECT DISTINCT plan, family FROM robosystems.plans WHERE effective_from <= %s ORDER BY plan",
            [at],
        ).fetchall()
        families = dict(rows)
        if plan not in families:
            raise NotFoundError(f"There is no plan {plan!r}: there are {', '.join(families)}.")
        if families[plan] != resource_type:
            raise UsageError(f"Plan {plan} is for a {families[plan]}, not for a {resource_type}.")


def apply_plan_changes(
    connection: psycopg.Connection[Any], now: datetime | None = None, since: datetime | None = None
) -> int:
    """Let changes of plan that were set for a time that has come take effect; how many subscriptions changed.

    With `since`, only changes after that moment are looked at, which costs the same however long the history is.
    """
    return connection.execute(
        "UPDATE robosystems.subscriptions AS s SET plan = c.plan, plan_at = c.effective_at, version = s.version + 1"
        " FROM (SELECT DISTINCT ON (subscription_id) subscription_id, plan, effective_at FROM robosystems.plan_changes"
        "       WHERE effective_at > %(since)s AND effective_at <= %(now)s ORDER BY subscription_id, effective_at DESC) AS c"
        " WHERE c.subscription_id = s.subscription_id AND c.effective_at > s.plan_at",
        {"now": _moment(now), "since": "-infinity" if since is None else since},
    ).rowcount


def check_repository(connection: psycopg.Connection[Any], repository: str) -> None:
    """Raises: NotFoundError: there is no such shared repository (any more)."""
    found = connection.execute(
        "SELECT FROM robosystems.graphs WHERE graph_id = %s AND kind = 'repository' AND deleted_at IS NULL",
        [repository],
    ).fetchone()
    if found is None:
        raise NotFoundError(
            f"There is no shared repository {repository!r}: `quayside credits provision repository` makes one."
        )


def _moment(at: datetime | None) -> datetime:
    return utc_now() if at is None else in_utc(at)
