"""What is charged, given and invoiced, for all accounts at once: one unit of work per graph and period, each done once.

Every function takes a period and can be run again, by two at once, dry, or over a range; it writes through `quayside.robosystems.ledger`.
"""

from quayside.robosystems.billing.allowance import Allocation, allocate, first_allowance
from quayside.robosystems.billing.expiry import Expiry, expire_credits
from quayside.robosystems.billing.invoicing import (
    Invoice,
    get_invoice,
    invoice_lines,
    invoices,
    pay,
    void_invoice,
    write_off,
)
from quayside.robosystems.billing.month import MonthBilling, bill_month
from quayside.robosystems.billing.overage import Overage, bill_overage
from quayside.robosystems.billing.storage import StorageBilling, bill_storage
from quayside.robosystems.billing.upgrades import Upgrades, apply_upgrades

__all__ = [
    "Allocation",
    "Expiry",
    "Invoice",
    "MonthBilling",
    "Overage",
    "StorageBilling",
    "Upgrades",
    "allocate",
    "apply_upgrades",
    "bill_month",
    "bill_overage",
    "bill_storage",
    "expire_credits",
    "first_allowance",
    "get_invoice",
    "invoice_lines",
    "invoices",
    "pay",
    "void_invoice",
    "write_off",
]
