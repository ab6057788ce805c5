"""What a batch consists of: the fields of each table as a file may give them, and the bounds of their values.

Data only. How a field is read from a source is in `decode`, what is checked across rows in `validate`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from quayside.kycc import tables

#: id: text that identifies a row; reference: the id of a row of another table; code: one of a closed set, with
#: synonyms; flag: 0 or 1.
Kind = Literal["id", "reference", "text", "code", "currency", "money", "time", "flag"]

MAX_ID_BYTES: Final = 200
MAX_TEXT_BYTES: Final = 10_000
#: Amounts are smaller than this: a million million of any currency in one transaction is an error of the file.
AMOUNT_LIMIT: Final = 1_000_000_000_000
#: Dates lie in [EARLIEST, LATEST): before the one no company of today was founded, after the other nothing is due.
EARLIEST: Final = "1800-01-01"
LATEST: Final = "2100-01-01"

#: Keys that carry an outcome. A file that has one in a party is refused: labels must not reach features.
LABEL_KEYS: Final = frozenset({"will_default", "default_outcome", "label"})

#: Keys beside the tables that are kept as the batch's provenance.
PROVENANCE_KEYS: Final = ("seed", "generated_at", "distribution", "counts", "profile_breakdown")


@dataclass(frozen=True)
class Field:
    """One field. `aliases` are other names a source may use; `refers_to` is the table a reference points into."""

    name: str
    kind: Kind
    required: bool = False
    refers_to: str | None = None
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class TableContract:
    """One table of a batch. `key` is the field that identifies its rows within the batch."""

    table: tables.Table
    key: str
    fields: tuple[Field, ...]

    @property
    def name(self) -> str:
        return self.table.name

    @property
    def sources(self) -> tuple[str, ...]:
        """Every column name a source may use for this table."""
        return (*(n for f in self.fields for n in (f.name, *f.aliases)), "batch_id")


PARTIES: Final = TableContract(
    tables.PARTIES,
    "party_id",
    (
        Field("party_id", "id", required=True),
        Field("name", "text", required=True, aliases=("company_name",)),
        Field("party_type", "code", required=True),
        Field("kyc_verified", "flag", required=True),
        Field("tax_id", "text"),
        Field("registration_number", "text"),
        Field("contact_person", "text"),
        Field("email", "text"),
        Field("phone", "text"),
        Field("address", "text"),
        Field("created_at", "time"),
        Field("profile", "text"),
    ),
)

ACCOUNTS: Final = TableContract(
    tables.ACCOUNTS,
    "account_id",
    (
        Field("account_id", "id", required=True),
        Field("party_id", "reference", required=True, refers_to="parties"),
        Field("account_type", "code", required=True),
        Field("currency", "currency", required=True),
        Field("balance", "money"),
    ),
)

TRANSACTIONS: Final = TableContract(
    tables.TRANSACTIONS,
    "txn_id",
    (
        Field("txn_id", "id", required=True),
        Field("party_id", "reference", required=True, refers_to="parties"),
        # A cash deposit has no counterparty, a barter no account; one that is named has to exist.
        Field("counterparty_id", "reference", refers_to="parties"),
        Field("account_id", "reference", refers_to="accounts"),
        Field("amount", "money", required=True),
        Field("currency", "currency", required=True),
        Field("txn_type", "code", required=True),
        Field("ts", "time", required=True),
        Field("reference", "text"),
        Field("due_date", "time"),
        Field("settles_txn_id", "text"),  # may settle a transaction of an earlier batch
    ),
)

RELATIONSHIPS: Final = TableContract(
    tables.RELATIONSHIPS,
    "relationship_id",
    (
        Field("relationship_id", "id", required=True),
        Field("from_party_id", "reference", required=True, refers_to="parties"),
        Field("to_party_id", "reference", required=True, refers_to="parties"),
        Field("relationship_type", "code", required=True),
        Field("established_date", "time", required=True),
    ),
)

#: In the order of their references: a table refers only to those before it.
CONTRACT: Final[dict[str, TableContract]] = {
    t.name: t for t in (PARTIES, ACCOUNTS, TRANSACTIONS, RELATIONSHIPS)
}
