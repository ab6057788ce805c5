"""What ends a provisioning for good."""

from __future__ import annotations

from quayside.foundation.errors import PermanentError


class AttemptOverError(PermanentError):
    """The subscription is no longer this attempt's: another one works on it, or it is finished or canceled."""


class GivenUpError(PermanentError):
    """The last attempt is over: what was made is undone and the subscription failed."""
