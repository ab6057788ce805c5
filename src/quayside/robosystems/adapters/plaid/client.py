"""Transactions by the service's sync call, page by page, or from a folder of its answers.

The cursor is the service's own (``next_cursor``). In a folder the pages are files: the first page is the one whose name
sorts first, the page after a cursor is the file that comes after the one that ends with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from quayside.foundation.errors import UsageError
from quayside.foundation.secrets import resolve
from quayside.robosystems.adapters import documents
from quayside.robosystems.adapters.protocol import AdapterError, Batch

if TYPE_CHECKING:
    import pyarrow as pa


class PlaidClient:
    """One item (a login at a bank). Over HTTP each of the three secrets is named, as ``env:NAME`` or ``file:/path``."""

    def __init__(
        self,
        source: str,
        *,
        item: str = "",
        client_id_secret: str = "",
        api_secret: str = "",
        access_token_secret: str = "",
    ) -> None:
        self.source, self.item = source, item
        self._names = {
            "client_id": client_id_secret,
            "secret": api_secret,
            "access_token": access_token_secret,
        }

    @property
    def name(self) -> str:
        """A cursor for each item that feeds the graph."""
        return f"plaid:{self.item}" if self.item else "plaid"

    def connect(self) -> None:
        """A folder has to be there; a URL needs its three secrets."""
        if documents.is_url(self.source):
            self._credentials()
        else:
            documents.folder_of(self.source)

    def extract(self, cursor: str | None) -> Iterator[Batch]:
        """Each page as three batches (accounts, transactions, removed); the cursor moves with the last of them."""
        for page in self._pages(cursor):
            try:
                after = str(page["next_cursor"])
                batches = (
                    ("accounts", _accounts(page.get("accounts", []))),
                    ("transactions", _transactions([*page["added"], *page["modified"]])),
                    ("removed", _removed(page["removed"])),
                )
            except (KeyError, TypeError, AttributeError) as error:
                raise AdapterError(
                    f"A page of {self.name} has another form than expected ({error!r})."
                ) from None
            for kind, rows in batches:
                yield Batch(kind, rows, after if kind == "removed" else cursor or "")
            cursor = after

    def _pages(self, cursor: str | None) -> Iterator[dict[str, Any]]:
        if not documents.is_url(self.source):
            yield from self._files(cursor)
            return
        more = True
        while more:
            body = self._credentials() | ({"cursor": cursor} if cursor else {}) | {"count": 500}
            content = documents.fetch(f"{self.source.rstrip('/')}/transactions/sync", body=body)
            page = documents.parse(content, f"A page of {self.name}")
            yield page
            cursor, more = page["next_cursor"], bool(page["has_more"])

    def _files(self, cursor: str | None) -> Iterator[dict[str, Any]]:
        found = [
            (path.name, documents.parse(documents.read_file(path), path.name))
            for path in sorted(documents.folder_of(self.source).glob("*.json"))
        ]
        ends = [page.get("next_cursor") if isinstance(page, dict) else None for _, page in found]
        if cursor and cursor not in ends:
            raise AdapterError(
                f"No page in {self.source} ends with the cursor {cursor!r} that the graph came to."
            )
        yield from (page for _, page in found[ends.index(cursor) + 1 if cursor else 0 :])

    def _credentials(self) -> dict[str, str]:
        if missing := [name for name, secret in self._names.items() if not secret]:
            raise UsageError(
                f"Transactions over HTTP need a {missing[0]}: name its secret (env:NAME or file:/path)."
            )
        return {name: resolve(secret).get_secret_value() for name, secret in self._names.items()}


def _accounts(records: list[dict[str, Any]]) -> pa.Table:
    import pyarrow as pa

    rows = [
        {
            "id": str(r["account_id"]),
            "name": r.get("name"),
            "kind": r.get("type"),
            "currency": (r.get("balances") or {}).get("iso_currency_code"),
        }
        for r in records
    ]
    return pa.Table.from_pylist(
        rows, schema=pa.schema([(n, pa.string()) for n in ("id", "name", "kind", "currency")])
    )


def _transactions(records: list[dict[str, Any]]) -> pa.Table:
    import pyarrow as pa

    rows = [
        {
            "id": str(r["transaction_id"]),
            "account_id": str(r["account_id"]),
            "happened_on": r["date"],
            "amount_cents": documents.cents(r["amount"], f"Transaction {r['transaction_id']}"),
            "currency": r.get("iso_currency_code"),
            "merchant": r.get("merchant_name") or r.get("name"),
            "pending": bool(r.get("pending", False)),
        }
        for r in records
    ]
    kinds = {"amount_cents": pa.int64(), "pending": pa.bool_()}
    names = ("id", "account_id", "happened_on", "amount_cents", "currency", "merchant", "pending")
    return pa.Table.from_pylist(rows, schema=pa.schema([(n, kinds.get(n, pa.string())) for n in names]))


def _removed(records: list[dict[str, Any]]) -> pa.Table:
    import pyarrow as pa

    return pa.table({"id": pa.array([str(r["transaction_id"]) for r in records], pa.string())})
