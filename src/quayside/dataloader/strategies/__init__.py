"""Strategies: what is read and how it is written, one module each. `STRATEGIES` says which function runs."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quayside.dataloader.request import Strategy
    from quayside.dataloader.strategies.strategy import Done, Load


def strategy_of(name: Strategy) -> Callable[[Load], Done]:
    """The function of a strategy: it has the strategy's name, as its module has."""
    return getattr(import_module(f"quayside.dataloader.strategies.{name}"), name)
