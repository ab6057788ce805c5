"""The steps that make a graph: each finds what an earlier try left and ends in the same single result.

A subscription to a shared repository gets an account and, with its activation, access; no database is made for it.

Every step holds the subscription's row while it works and checks that the attempt is still its own; so of two runs the
older one stops, and nothing is made for a subscription that was given up meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from quayside.foundation import alerts, audit
from quayside.foundation.errors import NotFoundError, PermanentError, sentence
from quayside.foundation.secrets import redact
from quayside.robosystems.billing.allowance import first_allowance
from quayside.robosystems.graphs import SCHEMAS, GraphSchema, GraphStore
from quayside.robosystems.graphs.names import new_graph_id
from quayside.robosystems.ledger import Ledger
from quayside.robosystems.periods import utc_now
from quayside.robosystems.provisioning.claims import LEASE, MAX_ATTEMPTS, pause_after
from quayside.robosystems.provisioning.errors import AttemptOverError, GivenUpError
from quayside.robosystems.subscriptions import Subscription, Subscriptions
from quayside.robosystems.subscriptions.store import check_repository

if TYPE_CHECKING:
    import psycopg

    from quayside.foundation.settings import Settings

_log = logging.getLogger(__name__)

#: Methods of `Provisioner`, in order.
STEPS: Final = ("create_database", "install_schema", "register_graph", "open_account", "activate")


@dataclass(frozen=True)
class Order:
    """What one attempt makes: plain values that one step hands to the next."""

    subscription_id: str
    attempt: int
    graph_id: str


class Provisioner:
    """Provisioning on one autocommit connection and one graph store.

    ``at``: since when a graph is there for its customer, by default since it is.
    """

    def __init__(
        self,
        settings: Settings,
        connection: psycopg.Connection[Any],
        graphs: GraphStore,
        *,
        run_id: str | None = None,
        at: datetime | None = None,
    ) -> None:
        self.settings, self.connection, self.graphs, self.run_id = settings, connection, graphs, run_id
        self.at = at
        self.subscriptions = Subscriptions(connection)

    def begin(self, subscription_id: str, attempt: int = 0) -> Order:
        """Take up an attempt that was handed out; 0 hands out the next one here, for a run that a person starts.

        Raises:
            NotFoundError: there is no such subscription.
            AttemptOverError: it is not waiting for its graph, or another attempt works on it.
            GivenUpError: all attempts are used up; what they made is undone.
        """
        with self.connection.transaction():
            seen = self._locked(subscription_id)
            if attempt:
                self._check(seen, attempt)
            elif seen.state == "provisioning":
                attempt = seen.attempt + 1
            else:
                raise AttemptOverError(_not_provisioning(seen))
            graph_id = seen.graph_id or new_graph_id()
            if seen.state == "provisioning":
                self.connection.execute(
                    "UPDATE robosystems.subscriptions SET graph_id = %s, attempt = %s, next_attempt_at = %s"
                    " WHERE subscription_id = %s",
                    [graph_id, attempt, utc_now() + LEASE, subscription_id],
                )
        order = Order(subscription_id, attempt, graph_id)
        if attempt > MAX_ATTEMPTS:
            reason = f"{MAX_ATTEMPTS} attempts failed or were lost"
            self.give_up(order, f"{reason}; last: {seen.last_error}" if seen.last_error else reason)
            raise GivenUpError(f"Subscription {subscription_id} was given up: {reason}.")
        return order

    # -- the steps --------------------------------------------------------------------------------------------------

    def create_database(self, order: Order) -> None:
        """An empty database; for a shared repository there has to be one. Raises: NotFoundError: there is none."""
        with self._own(order) as seen:
            if seen.resource_type == "repository":
                check_repository(self.connection, str(seen.request.get("repository", "")))
            elif seen.state == "provisioning":
                self.graphs.create(order.graph_id, GraphSchema("empty"))

    def install_schema(self, order: Order) -> None:
        """The tables of the schema that was ordered. Raises: NotFoundError: there is no such schema."""
        with self._own(order) as seen:
            if seen.state == "provisioning" and seen.resource_type == "graph":
                self.graphs.create(order.graph_id, _schema_of(seen))

    def register_graph(self, order: Order) -> None:
        """The row of the graph. From when that says it is there, the customer pays and has credits."""
        with self._own(order) as seen:
            if seen.resource_type == "repository":
                self.connection.execute(
                    "UPDATE robosystems.subscriptions SET activated_at = coalesce(activated_at, %s, now())"
                    " WHERE subscription_id = %s",
                    [self.at, order.subscription_id],
                )
                return
            self.connection.execute(
                "INSERT INTO robosystems.graphs (graph_id, customer_id, name, kind, schema_name, created_at)"
                " VALUES (%s, %s, %s, %s, %s, coalesce(%s, now())) ON CONFLICT (graph_id) DO NOTHING",
                [
                    order.graph_id,
                    seen.customer_id,
                    str(seen.request.get("name", "")),
                    str(seen.request.get("kind", "generic")),
                    _schema_of(seen).name,
                    self.at,
                ],
            )

    def open_account(self, order: Order) -> None:
        """The account, with the allowance of what is left of the month."""
        with self._own(order) as seen:
            if seen.state != "provisioning":
                return
            overdraw = bool(seen.request.get("may_overdraw", False))
            Ledger(self.connection, run_id=self.run_id).open_account(order.graph_id, may_overdraw=overdraw)
            first_allowance(
                self.connection, order.graph_id, seen.plan, self._start(order, seen), run_id=self.run_id
            )

    def activate(self, order: Order) -> None:
        """From here on the subscription is active, since its graph was registered."""
        with self._own(order) as seen:
            if seen.state != "provisioning":
                return
            self.connection.execute(
                "UPDATE robosystems.subscriptions SET activated_at = %s WHERE subscription_id = %s",
                [self._start(order, seen), order.subscription_id],
            )
            made = "was made" if seen.resource_type == "graph" else "has access"
            self.subscriptions.move(seen, "active", f"{order.graph_id} {made}", at=self.at)

    # -- when it fails ----------------------------------------------------------------------------------------------

    def failed(self, order: Order, error: BaseException) -> None:
        """Note why an attempt failed, and when the next one is due.

        After the last attempt, and after an error that trying again cannot mend, the subscription is given up.
        """
        if isinstance(error, AttemptOverError | GivenUpError):
            return
        cause = redact(sentence(error))
        if isinstance(error, PermanentError) or order.attempt >= MAX_ATTEMPTS:
            self.give_up(order, cause)
            return
        self.connection.execute(
            "UPDATE robosystems.subscriptions SET last_error = %s, next_attempt_at = %s"
            " WHERE subscription_id = %s AND attempt = %s AND state = 'provisioning'",
            [cause, utc_now() + pause_after(order.attempt), order.subscription_id, order.attempt],
        )

    def give_up(self, order: Order, cause: str) -> None:
        """Undo what was made: the database, the credits (by opposite transfers), the graph's row is closed. Then
        the subscription is ``failed``. Killed in the middle, it is done again by the next attempt."""
        with self._own(order) as seen:
            if seen.state != "provisioning":
                return
            if seen.resource_type == "graph":
                self.graphs.drop(order.graph_id)
            ledger = Ledger(self.connection, run_id=self.run_id)
            # The account of a repository's user may have a life before this one.
            given = self.connection.execute(
                "SELECT t.id FROM robosystems.transfers AS t JOIN robosystems.accounts AS a ON a.id = t.account_id"
                " WHERE a.graph_id = %s AND t.kind = 'allowance' AND t.effective_at >= coalesce(%s::timestamptz, '-infinity')"
                " ORDER BY t.seq",
                [order.graph_id, seen.activated_at],
            ).fetchall()
            for (transfer_id,) in given:
                ledger.void(transfer_id, reason=f"subscription {order.subscription_id} was given up")
            self.connection.execute(
                "UPDATE robosystems.graphs SET deleted_at = now() WHERE graph_id = %s AND deleted_at IS NULL",
                [order.graph_id],
            )
            self.connection.execute(
                "UPDATE robosystems.subscriptions SET last_error = %s WHERE subscription_id = %s",
                [cause, order.subscription_id],
            )
            self.subscriptions.move(seen, "failed", cause)
            audit.record(
                self.connection,
                audit.actor(),
                "give up",
                "subscription",
                order.subscription_id,
                {"graph_id": order.graph_id, "attempt": order.attempt, "cause": cause, "voided": len(given)},
            )
            # Before the commit: it may be said twice, and is not lost.
            self._alert(order, seen, cause)

    def _alert(self, order: Order, seen: Subscription, cause: str) -> None:
        alerts.send(
            self.settings,
            alerts.Alert(
                severity="critical",
                title=f"The graph of subscription {order.subscription_id} could not be made",
                body=f"{cause}\nCustomer {seen.customer_id}, plan {seen.plan}. What was made is undone. Pay back what was "
                f"paid, or mend the cause and run `quayside credits provision retry {order.subscription_id}`.",
                source="robosystems:provisioning",
                fingerprint=f"provisioning:{order.subscription_id}:{seen.version}",
                run_id=self.run_id,
            ),
        )

    # -- inside -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _own(self, order: Order) -> Iterator[Subscription]:
        """The subscription, held until the end of the block, while it is this attempt's."""
        with self.connection.transaction():
            seen = self._locked(order.subscription_id)
            self._check(seen, order.attempt, order.graph_id)
            yield seen

    def _locked(self, subscription_id: str) -> Subscription:
        self.connection.execute(
            "SELECT FROM robosystems.subscriptions WHERE subscription_id = %s FOR NO KEY UPDATE",
            [subscription_id],
        )
        return self.subscriptions.get(subscription_id)

    def _check(self, seen: Subscription, attempt: int, graph_id: str | None = None) -> None:
        # A finished one is no error for the attempt that finished it: it may have been killed right after.
        if seen.state not in ("provisioning", "active"):
            raise AttemptOverError(_not_provisioning(seen))
        if seen.attempt != attempt or (graph_id is not None and seen.graph_id != graph_id):
            raise AttemptOverError(
                f"Attempt {attempt} on subscription {seen.subscription_id} is over: attempt {seen.attempt} works on it now."
            )

    def _start(self, order: Order, seen: Subscription) -> datetime:
        if seen.resource_type == "repository" and seen.activated_at is not None:
            return seen.activated_at
        row = self.connection.execute(
            "SELECT created_at FROM robosystems.graphs WHERE graph_id = %s", [order.graph_id]
        ).fetchone()
        if row is None:
            raise NotFoundError(f"Graph {order.graph_id} is not registered yet: run the step before.")
        return row[0]


def provision(
    provisioner: Provisioner, order: Order, after: Callable[[str], None] = lambda step: None
) -> None:
    """All steps, one after another; `after` is told of each. A failure is noted and raised."""
    try:
        for step in STEPS:
            getattr(provisioner, step)(order)
            after(step)
    except Exception as error:
        provisioner.failed(order, error)
        raise


def _not_provisioning(seen: Subscription) -> str:
    return f"Subscription {seen.subscription_id} is {seen.state}: only one that is provisioning gets a graph."


def _schema_of(subscription: Subscription) -> GraphSchema:
    name = str(subscription.request.get("schema") or subscription.request.get("kind") or "generic")
    if name not in SCHEMAS:
        raise NotFoundError(f"There is no graph schema {name!r}: there are {', '.join(sorted(SCHEMAS))}.")
    return SCHEMAS[name]
