"""KYCC's tables in the lake: names, columns and order of columns, each once.

Everything is in lake schema ``kycc`` and partitioned by ``batch_id``, so that reading or replacing one batch touches that
batch's files alone, whatever else is stored. A batch is one observation of its parties: rows are keyed by
(``batch_id``, the row's own id), and the same ``party_id`` in two batches is one party observed twice.

Times are ``TIMESTAMP WITH TIME ZONE`` (UTC), money is ``DECIMAL(18,2)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SCHEMA: Final = "kycc"
MONEY: Final = "DECIMAL(18,2)"
TIME: Final = "TIMESTAMP WITH TIME ZONE"


@dataclass(frozen=True)
class Table:
    """One lake table. `columns` maps name to DuckDB type in stored order; `key` identifies a row."""

    name: str
    columns: dict[str, str]
    key: tuple[str, ...]
    partition_by: str | None = "batch_id"

    @property
    def qualified(self) -> str:
        return f"{SCHEMA}.{self.name}"

    def ddl(self) -> list[str]:
        """Statements that make the table where it is missing."""
        columns = ", ".join(f'"{name}" {type_}' for name, type_ in self.columns.items())
        statements = [f"CREATE TABLE IF NOT EXISTS {self.qualified} ({columns})"]
        if self.partition_by:
            statements.append(f"ALTER TABLE {self.qualified} SET PARTITIONED BY ({self.partition_by})")
        return statements


PARTIES: Final = Table(
    "parties",
    {
        "batch_id": "VARCHAR",
        "party_id": "VARCHAR",
        "name": "VARCHAR",
        "party_type": "VARCHAR",
        "kyc_verified": "TINYINT",
        "tax_id": "VARCHAR",
        "registration_number": "VARCHAR",
        "contact_person": "VARCHAR",
        "email": "VARCHAR",
        "phone": "VARCHAR",
        "address": "VARCHAR",
        "created_at": TIME,
        "profile": "VARCHAR",
    },
    ("batch_id", "party_id"),
)

ACCOUNTS: Final = Table(
    "accounts",
    {
        "batch_id": "VARCHAR",
        "account_id": "VARCHAR",
        "party_id": "VARCHAR",
        "account_type": "VARCHAR",
        "currency": "VARCHAR",
        "balance": MONEY,
    },
    ("batch_id", "account_id"),
)

TRANSACTIONS: Final = Table(
    "transactions",
    {
        "batch_id": "VARCHAR",
        "txn_id": "VARCHAR",
        "party_id": "VARCHAR",
        "counterparty_id": "VARCHAR",
        "account_id": "VARCHAR",
        "amount": MONEY,
        "currency": "VARCHAR",
        # amount converted to the base currency at the rate of the transaction's day
        "amount_base": MONEY,
        "txn_type": "VARCHAR",
        "ts": TIME,
        "reference": "VARCHAR",
        "due_date": TIME,
        "settles_txn_id": "VARCHAR",
    },
    ("batch_id", "txn_id"),
)

RELATIONSHIPS: Final = Table(
    "relationships",
    {
        "batch_id": "VARCHAR",
        "relationship_id": "VARCHAR",
        "from_party_id": "VARCHAR",
        "to_party_id": "VARCHAR",
        "relationship_type": "VARCHAR",
        "established_date": TIME,
    },
    ("batch_id", "relationship_id"),
)

#: One row per load of a batch, the latest counts: written in the same transaction as the rows it speaks of.
BATCHES: Final = Table(
    "batches",
    {
        "batch_id": "VARCHAR",
        "content_sha256": "VARCHAR",
        "source": "VARCHAR",
        "as_of": TIME,  # default moment of the features: the file's generated_at
        "base_currency": "VARCHAR",
        "rates_sha256": "VARCHAR",  # of the exchange rates it was converted with, '' when nothing was
        "provenance": "JSON",  # seed, distribution, counts, profile_breakdown as the file gave them
        "rows_read": "JSON",  # per table
        "rows_kept": "JSON",
        "rows_quarantined": "JSON",
        "loaded_at": TIME,
    },
    ("batch_id", "loaded_at"),
    partition_by=None,  # a row per load: a folder and a file for each would make finding the last one slower and slower
)

#: Rows that were not used, of every content that was tried, loaded or refused as a whole.
QUARANTINE: Final = Table(
    "quarantine",
    {
        "batch_id": "VARCHAR",
        "content_sha256": "VARCHAR",
        "table_name": "VARCHAR",
        "row_number": "BIGINT",  # 0-based position in the input
        "row_key": "VARCHAR",
        "reason": "VARCHAR",  # a code of quayside.kycc.ingest, e.g. unknown_currency
        "detail": "VARCHAR",
        "row": "JSON",
    },
    ("batch_id", "content_sha256", "table_name", "row_number", "reason"),
)

FX_RATES: Final = Table(
    "fx_rates",
    {"currency": "VARCHAR", "base_currency": "VARCHAR", "day": "DATE", "rate": "DECIMAL(18,8)"},
    ("currency", "base_currency", "day"),
    partition_by=None,
)

#: What has been computed for a batch, one row per stage: written in the transaction that wrote the stage's rows, so
#: that "the last batch that has features" is one small read whatever is stored.
STAGES: Final = Table(
    "stages",
    {
        "batch_id": "VARCHAR",
        "stage": "VARCHAR",  # features | scores | shadow | labels
        "scorecard_version": "VARCHAR",  # '' for features and labels
        "as_of": TIME,
        "rows": "BIGINT",
        "fingerprint": "VARCHAR",
        "completed_at": TIME,
    },
    ("batch_id", "stage", "scorecard_version"),
    partition_by=None,
)

SCORES: Final = Table(
    "scores",
    {
        "batch_id": "VARCHAR",
        "party_id": "VARCHAR",
        "as_of": TIME,
        "scorecard_version": "VARCHAR",
        "raw_score": "SMALLINT",
        "total_score": "SMALLINT",
        "band": "VARCHAR",
        "decision": "VARCHAR",
        "flags": "VARCHAR[]",
        "rules": "VARCHAR[]",  # decision rules that fired, in the order they were applied
        "reasons": "VARCHAR[]",  # characteristics that lost most points, worst first, at most four
        "features": "JSON",  # the values the card and its rules read
        "created_at": TIME,
    },
    ("batch_id", "scorecard_version", "party_id"),
)

#: Score rows that a later scoring of the same batch and version replaced.
SCORE_HISTORY: Final = Table(
    "score_history",
    {**SCORES.columns, "superseded_at": TIME},
    ("batch_id", "scorecard_version", "party_id", "superseded_at"),
)

#: What became of parties after their batch: events, and verdicts ({party_id, will_default}) where a source gives no event.
#: Rows are facts and only ever added; which of them count is decided when labels are made.
OUTCOMES: Final = Table(
    "outcomes",
    {
        "batch_id": "VARCHAR",
        "party_id": "VARCHAR",
        "event": "VARCHAR",  # overdue_90 | write_off | collection, NULL for a verdict
        "event_date": TIME,
        "amount": MONEY,  # in the batch's base currency
        "will_default": "TINYINT",  # a verdict's 0 or 1
        "observed_through": TIME,  # until when a verdict's source had looked, NULL for an event
    },
    ("batch_id", "party_id", "event", "event_date", "amount", "will_default", "observed_through"),
)

#: One row per outcome file that was loaded, written in the transaction of its rows.
OUTCOME_FILES: Final = Table(
    "outcome_files",
    {
        "batch_id": "VARCHAR",
        "content_sha256": "VARCHAR",
        "source": "VARCHAR",
        "observed_through": TIME,
        "covers": "VARCHAR",  # batch: who is not named had no event; listed: it speaks of the parties it names alone
        "rows_read": "BIGINT",
        "rows_kept": "BIGINT",
        "rows_quarantined": "BIGINT",
        "loaded_at": TIME,
    },
    ("batch_id", "content_sha256"),
    partition_by=None,
)

#: Good (0) or bad (1) of a party as of a moment, over a window after it. Observed and simulated labels of one key stand
#: side by side.
LABELS: Final = Table(
    "labels",
    {
        "batch_id": "VARCHAR",
        "party_id": "VARCHAR",
        "as_of": TIME,
        "observation_window_days": "SMALLINT",
        "label_source": "VARCHAR",  # observed | simulated
        "label": "TINYINT",
        "reason": "VARCHAR",  # the event that made it bad, 'verdict', 'invoice_overdue_90', 'none', or 'simulated'
        "event_date": TIME,  # of the first event, NULL without one or without its date
        "window_over": "BOOLEAN",  # whether the whole window was observed; false only for an event seen early
        "observed_through": TIME,  # until when outcomes of the party were known, NULL for simulated ones
        "scorecard_version": "VARCHAR",  # whose scores a simulated label was drawn from
        "default_rate": "DOUBLE",  # and at which rate
        "created_at": TIME,
    },
    ("batch_id", "party_id", "as_of", "observation_window_days", "label_source"),
)

ALL: Final = (
    PARTIES,
    ACCOUNTS,
    TRANSACTIONS,
    RELATIONSHIPS,
    BATCHES,
    QUARANTINE,
    FX_RATES,
    STAGES,
    SCORES,
    SCORE_HISTORY,
    OUTCOMES,
    OUTCOME_FILES,
    LABELS,
)
