"""Making the graph of a paid subscription, and taking it away when the subscription ends. Each step can be repeated."""

from quayside.robosystems.provisioning.claims import MAX_ATTEMPTS, Claim, claim
from quayside.robosystems.provisioning.ending import end_subscription
from quayside.robosystems.provisioning.errors import AttemptOverError, GivenUpError
from quayside.robosystems.provisioning.provisioner import STEPS, Order, Provisioner, provision
from quayside.robosystems.provisioning.repositories import make_repository, may_read, readers

__all__ = [
    "MAX_ATTEMPTS",
    "STEPS",
    "AttemptOverError",
    "Claim",
    "GivenUpError",
    "Order",
    "Provisioner",
    "claim",
    "end_subscription",
    "make_repository",
    "may_read",
    "provision",
    "readers",
]
