"""What a person or the retry analysis writes about a row: freeing it, keeping it for review, stopping what runs."""

# ruff: noqa: S608 - statements are made of constants of this package; values are bound
from __future__ import annotations

from typing import Any, Final

from quayside.dataloader.control import attempts
from quayside.foundation.errors import NotFoundError, UsageError

#: How messages begin that the retry analysis wrote; older tools read them.
RETRY_PREFIX: Final = "[AI Analysis - Retry Recommended]"
REVIEW_PREFIX: Final = "[AI Analysis - Requires Review]"

_RESET: Final = """
last_status = NULL, review_required = false,
next_load_date_time = clock_timestamp() + %(delay)s * interval '1 second',
retry_count = CASE WHEN %(forget)s THEN 0 ELSE retry_count END
"""


def reset(con: Any, config_id: int, reason: str, delay_seconds: float, forget_failures: bool) -> None:
    """Failed → null, due after the delay.

    Raises:
        UsageError: the row is not Failed.
        NotFoundError: there is no such row.
    """
    _of_failed(con, config_id, _RESET, reason, {"delay": delay_seconds, "forget": forget_failures})


def review(con: Any, config_id: int, reason: str) -> None:
    """Failed stays Failed and waits for a person. Raises as `reset` does."""
    _of_failed(con, config_id, "review_required = true", reason, {})


def request_stop(con: Any, config_id: int, reason: str) -> bool:
    """Tell what runs for the row to stop at its next heartbeat; False when nothing runs."""
    statement = (
        "UPDATE control.table_control SET stop_requested = %s WHERE config_id = %s "
        "AND last_status IN ('Queued', 'In Progress')"
    )
    return con.execute(statement, (attempts.kept(reason), config_id)).rowcount == 1


def _of_failed(con: Any, config_id: int, change: str, reason: str, values: dict[str, Any]) -> None:
    statement = (
        f"UPDATE control.table_control SET {change}, last_status_message = %(reason)s, "
        "last_status_date_time = clock_timestamp() WHERE config_id = %(config_id)s AND last_status = 'Failed'"
    )
    con.execute("SELECT set_config('control.change_source', 'status_reset', true)")
    if (
        con.execute(statement, values | {"config_id": config_id, "reason": attempts.kept(reason)}).rowcount
        == 1
    ):
        return
    row = attempts.read(con, config_id, 0)
    if row is None:
        raise NotFoundError(f"The control database has no config {config_id}: see `quayside tables list`.")
    raise UsageError(
        f"Config {config_id} is not Failed but {row['last_status'] or 'waiting to be due'}: there is nothing to reset "
        "or review."
    )
