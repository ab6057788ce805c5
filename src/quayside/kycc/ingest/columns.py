"""What is asked of the column names of a table, whatever it was read from."""

from __future__ import annotations

from quayside.foundation.errors import InputError
from quayside.kycc.ingest.contract import LABEL_KEYS, TableContract
from quayside.kycc.ingest.source import Source, shown


def refuse_labels(label: str, table: str, columns: set[str]) -> None:
    """
    Raises:
        InputError: one of the columns carries an outcome.
    """
    if labels := sorted(LABEL_KEYS & {column.lower() for column in columns}):
        raise InputError(
            f"{label} carries {', '.join(labels)} in its {table}: labels must not reach features; remove them and give outcomes in a file of their own."
        )


def report_unused(source: Source, contract: TableContract, columns: set[str]) -> None:
    """Note columns that the table does not have."""
    if unused := sorted(columns - set(contract.sources)):
        source.warnings.append(
            f"Columns of {contract.name} that are not used were left out: {', '.join(shown(c, 30) for c in unused[:10])}."
        )
