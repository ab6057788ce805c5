"""What customers and operators read of the books: statements of account and the monthly usage report."""

from quayside.robosystems.reports.monthly import Report, StoredReport, store, usage_report
from quayside.robosystems.reports.statement import Statement, render, statement

__all__ = ["Report", "Statement", "StoredReport", "render", "statement", "store", "usage_report"]
