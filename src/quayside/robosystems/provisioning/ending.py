"""The end of a canceled subscription: a last backup, then its graph goes. Its books stay, and so does a shared repository."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quayside.foundation.errors import QuaysideError, sentence
from quayside.foundation.secrets import redact
from quayside.robosystems.graphs.backup import Backup, back_up, get_backup
from quayside.robosystems.periods import utc_now
from quayside.robosystems.provisioning.claims import pause_after
from quayside.robosystems.provisioning.errors import AttemptOverError
from quayside.robosystems.subscriptions import Subscription, Subscriptions

if TYPE_CHECKING:
    import psycopg

    from quayside.foundation.objects import ObjectStore
    from quayside.robosystems.graphs import GraphStore


def final_backup_id(subscription: Subscription) -> str:
    """The id of the backup made at the end: one for each time a subscription was canceled."""
    return f"final-v{subscription.version}"


def end_subscription(
    con: psycopg.Connection[Any], graphs: GraphStore, objects: ObjectStore, subscription_id: str
) -> Backup | None:
    """End a canceled subscription whose end has come; its last backup, None where it never had a graph.

    Killed at any point and run again it goes on: the graph is removed only once its backup is whole.

    Raises:
        AttemptOverError: it is not canceled, or runs on for a while.
        GraphCorruptError: the graph cannot be backed up; it is not removed.
    """
    subscriptions = Subscriptions(con)
    try:
        with con.transaction():
            con.execute(
                "SELECT FROM robosystems.subscriptions WHERE subscription_id = %s FOR NO KEY UPDATE",
                [subscription_id],
            )
            seen = subscriptions.get(subscription_id)
            if seen.state == "ended":
                return None
            if seen.state != "canceled" or seen.ends_at is None or seen.ends_at > utc_now():
                raise AttemptOverError(
                    f"Subscription {subscription_id} is {seen.state}"
                    + (f" and runs until {seen.ends_at:%Y-%m-%d %H:%M} UTC" if seen.ends_at else "")
                    + ": its graph stays."
                )
            backup = None
            if seen.graph_id is not None and seen.resource_type == "graph":
                backup = _last_backup(graphs, objects, seen, seen.graph_id)
                graphs.drop(seen.graph_id)
                con.execute(
                    "UPDATE robosystems.graphs SET deleted_at = now() WHERE graph_id = %s AND deleted_at IS NULL",
                    [seen.graph_id],
                )
            subscriptions.move(
                seen, "ended", f"last backup: {backup.backup_id}" if backup else "it had no graph of its own"
            )
            return backup
    except QuaysideError as error:
        con.execute(
            "UPDATE robosystems.subscriptions SET last_error = %s, next_attempt_at = %s"
            " WHERE subscription_id = %s AND state = 'canceled' AND ends_at <= now()",
            [redact(sentence(error)), utc_now() + pause_after(3), subscription_id],
        )
        raise


def _last_backup(
    graphs: GraphStore, objects: ObjectStore, seen: Subscription, graph_id: str
) -> Backup | None:
    wanted = final_backup_id(seen)
    if graphs.exists(graph_id):
        return back_up(graphs, objects, graph_id, backup_id=wanted)
    # Removed by a run that was killed before it could say so.
    return get_backup(objects, graph_id, wanted)
