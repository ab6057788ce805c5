"""Accounts and journal entries by the QuickBooks query API, or from a folder of its answers (``*.json``).

The cursor is the time of the last change that was read. What changed at that very moment is read once more, so nothing
is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from quayside.foundation.errors import UsageError
from quayside.foundation.secrets import resolve
from quayside.robosystems.adapters import documents
from quayside.robosystems.adapters.protocol import AdapterError, Batch

if TYPE_CHECKING:
    import pyarrow as pa

_PAGE: Final = 1000
#: Accounts first: the lines of entries lead to them.
_KINDS: Final = ("Account", "JournalEntry")


class QuickBooksClient:
    """One company's ledger. `source` is a folder or ``https://…/v3/company/<realm>``; `token_secret` names its token."""

    def __init__(self, source: str, *, company: str = "", token_secret: str = "") -> None:
        self.source, self.company, self._token_secret = source, company, token_secret

    @property
    def name(self) -> str:
        """A cursor for each company that feeds the graph."""
        return f"quickbooks:{self.company}" if self.company else "quickbooks"

    def connect(self) -> None:
        """A folder has to be there; a URL needs a token."""
        if documents.is_url(self.source):
            self._headers()
        else:
            documents.folder_of(self.source)

    def extract(self, cursor: str | None) -> Iterator[Batch]:
        """Accounts, then entries, that changed since."""
        since = None if cursor is None else datetime.fromisoformat(cursor)
        found = {kind: list(self._records(kind, cursor)) for kind in _KINDS}
        changed = {
            kind: [r for r in records if since is None or _changed(r) >= since]
            for kind, records in found.items()
        }
        last = max((_changed(r) for records in changed.values() for r in records), default=None)
        end = "" if last is None else last.isoformat()
        parts = [
            (kind, records[start : start + _PAGE])
            for kind, records in changed.items()
            for start in range(0, len(records), _PAGE)
        ]
        for number, (kind, part) in enumerate(parts, 1):
            rows = _accounts(part) if kind == "Account" else _lines(part)
            # One cursor for both kinds, and so only after the last of them.
            yield Batch(kind, rows, end if number == len(parts) else cursor or "")

    def _records(self, kind: str, cursor: str | None) -> Iterator[dict[str, Any]]:
        for where, document in self._documents(kind, cursor):
            try:
                records = document["QueryResponse"].get(kind, [])
                for record in records:
                    str(record["Id"])
                    _changed(record)
                yield from records
            except (KeyError, TypeError, AttributeError) as error:
                raise AdapterError(f"{where} has another form than a query's answer ({error!r}).") from None

    def _documents(self, kind: str, cursor: str | None) -> Iterator[tuple[str, Any]]:
        if not documents.is_url(self.source):
            for path in sorted(documents.folder_of(self.source).glob("*.json")):
                yield path.name, documents.parse(documents.read_file(path), path.name)
            return
        start = 1
        while True:
            query = f"SELECT * FROM {kind}"  # noqa: S608 - not SQL; the kind is ours, the cursor is what we kept
            if cursor:
                query += f" WHERE MetaData.LastUpdatedTime >= '{cursor}'"
            query += f" STARTPOSITION {start} MAXRESULTS {_PAGE}"
            url = f"{self.source.rstrip('/')}/query?query={quote(query)}"
            document = documents.parse(documents.fetch(url, self._headers()), f"The answer to {kind}")
            yield f"The answer to {kind}", document
            response = document.get("QueryResponse") if isinstance(document, dict) else None
            if not isinstance(response, dict) or len(response.get(kind, [])) < _PAGE:
                return
            start += _PAGE

    def _headers(self) -> dict[str, str]:
        if not self._token_secret:
            raise UsageError("QuickBooks over HTTP needs a token: name its secret (env:NAME or file:/path).")
        return {"Authorization": f"Bearer {resolve(self._token_secret).get_secret_value()}"}


def _changed(record: dict[str, Any]) -> datetime:
    """When a record was last changed, in UTC: the service writes it with the offset of wherever the company is."""
    text = str(record["MetaData"]["LastUpdatedTime"])
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        raise AdapterError(f"Record {record['Id']} was changed at {text!r}, which is no time.") from None


def _accounts(records: list[dict[str, Any]]) -> pa.Table:
    import pyarrow as pa

    return pa.table(
        {
            "id": pa.array([str(r["Id"]) for r in records], pa.string()),
            "name": pa.array([_text(r, "Name") for r in records], pa.string()),
            "kind": pa.array([_text(r, "AccountType") for r in records], pa.string()),
            "classification": pa.array([_text(r, "Classification") for r in records], pa.string()),
            "currency": pa.array([(r.get("CurrencyRef") or {}).get("value") for r in records], pa.string()),
        }
    )


def _lines(records: list[dict[str, Any]]) -> pa.Table:
    """One row for each line of an entry; amounts in cents."""
    import pyarrow as pa

    rows: list[dict[str, Any]] = []
    for record in records:
        entry = str(record["Id"])
        try:
            for line in record["Line"]:
                detail = line.get("JournalEntryLineDetail")
                if detail is None:  # a description without an amount
                    continue
                rows.append(
                    {
                        "entry_id": entry,
                        "posted_on": record["TxnDate"],
                        "number": _text(record, "DocNumber"),
                        "memo": _text(record, "PrivateNote"),
                        "line_id": str(line["Id"]),
                        "description": _text(line, "Description"),
                        "side": str(detail["PostingType"]),
                        "amount_cents": documents.cents(
                            line["Amount"], f"Line {line['Id']} of entry {entry}"
                        ),
                        "account_id": str(detail["AccountRef"]["value"]),
                    }
                )
        except (KeyError, TypeError, AttributeError) as error:
            raise AdapterError(f"Journal entry {entry} has another form than expected ({error!r}).") from None
    kinds = {"amount_cents": pa.int64()}
    names = [
        "entry_id",
        "posted_on",
        "number",
        "memo",
        "line_id",
        "description",
        "side",
        "amount_cents",
        "account_id",
    ]
    return pa.Table.from_pylist(
        rows, schema=pa.schema([(name, kinds.get(name, pa.string())) for name in names])
    )


def _text(record: dict[str, Any], name: str) -> str | None:
    return None if record.get(name) is None else str(record[name])
