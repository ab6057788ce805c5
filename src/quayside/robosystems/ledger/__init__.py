"""The books: accounts, transfers between them, grants and reservations. Who is charged what is decided elsewhere."""

from quayside.robosystems.ledger.expiry import Expired
from quayside.robosystems.ledger.ledger import Ledger
from quayside.robosystems.ledger.model import Balance, Entry, Grant, Reservation

__all__ = ["Balance", "Entry", "Expired", "Grant", "Ledger", "Reservation"]
