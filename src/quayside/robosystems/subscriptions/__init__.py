"""Subscriptions: the states they may be in, the moves between them, and their history. Makes no graph and books nothing."""

from quayside.robosystems.subscriptions.states import MOVES, State, may_move
from quayside.robosystems.subscriptions.store import Subscriptions
from quayside.robosystems.subscriptions.subscription import Subscription, Transition

__all__ = ["MOVES", "State", "Subscription", "Subscriptions", "Transition", "may_move"]
