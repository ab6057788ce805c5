"""The shipped adapters, each from files made here into a real graph; over HTTP from a server on the loopback address."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from quayside.foundation.errors import (
    ConflictError,
    NotFoundError,
    ServiceUnavailableError,
    SettingsError,
    UsageError,
)
from quayside.robosystems.adapters import AdapterError, Loaded, load
from quayside.robosystems.adapters.plaid import PlaidClient, PlaidProcessor
from quayside.robosystems.adapters.quickbooks import QuickBooksClient, QuickBooksProcessor
from quayside.robosystems.adapters.sec import SecClient, SecProcessor
from quayside.robosystems.graphs import GraphSchema, GraphStore

pytestmark = pytest.mark.unit


@pytest.fixture
def graphs(tmp_path: Path) -> GraphStore:
    store = GraphStore(tmp_path / "graphs", buffer_pool_bytes=64 * 2**20)
    store.create("kg1", GraphSchema("empty"))
    return store


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def write(folder: Path, name: str, document: object) -> None:
    (folder / name).write_text(json.dumps(document))


def counts(graphs: GraphStore) -> dict[str, int]:
    with graphs.reader("kg1") as session:
        return session.counts()


class Server:
    """Answers from a list of (status, document), in order; keeps what was asked."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, Any]] = []
        self.asked: list[tuple[str, dict[str, str], Any]] = []
        self.url = ""


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            state.asked.append((self.path, dict(self.headers), json.loads(body) if body else None))
            status, document = state.answers.pop(0)
            content = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = answer  # noqa: N815  names of the library

        def log_message(self, format: str, *args: object) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{listening.server_address[1]}"
    yield state
    listening.shutdown()
    listening.server_close()
    thread.join()


# -- SEC ------------------------------------------------------------------------------------------------------------


def fact(value: Any, accession: str, end: str = "2025-12-31", **more: Any) -> dict[str, Any]:
    return {
        "end": end,
        "val": value,
        "accn": accession,
        "fy": 2025,
        "fp": "FY",
        "form": "10-K",
        "filed": "2026-02-01",
    } | more


def company(cik: int, name: str, **concepts: list[dict[str, Any]]) -> dict[str, Any]:
    facts = {c: {"label": c.lower(), "units": {"USD": found}} for c, found in concepts.items()}
    return {"cik": cik, "entityName": name, "facts": {"us-gaap": facts}}


def sec(graphs: GraphStore, source: Path) -> Loaded:
    return load(graphs, "kg1", SecClient(str(source)), SecProcessor())


def test_company_facts(graphs: GraphStore, source: Path) -> None:
    revenues = [fact(100, "a-1", start="2025-01-01"), fact(7.25, "a-1", end="2024-12-31", start="2024-01-01")]
    write(source, "CIK0000000001.json", company(1, "One", Revenues=revenues, Assets=[fact(5, "a-1")]))
    write(source, "CIK0000000002.json", company(2, "Two", Revenues=[fact(3, "b-1")]))
    assert sec(graphs, source).rows == 4
    assert counts(graphs) == {
        "Company": 2, "Concept": 2, "Fact": 4, "FILED": 2, "Filing": 2, "OF_CONCEPT": 4, "REPORTS": 4,
    }  # fmt: skip
    found = graphs.query(
        "kg1",
        "MATCH (c:Company {name: 'One'})-[:FILED]->(f:Filing)-[:REPORTS]->(x:Fact)-[:OF_CONCEPT]->(k:Concept {name: $k})"
        " RETURN x.value AS value, x.period_start AS since, f.filed AS filed ORDER BY value",
        {"k": "Revenues"},
    ).to_pylist()
    assert [(r["value"], r["since"]) for r in found] == [(7.25, date(2024, 1, 1)), (100.0, date(2025, 1, 1))]
    assert found[0]["filed"] == date(2026, 2, 1)
    assert sec(graphs, source).rows == 0  # nothing changed
    write(source, "CIK0000000002.json", company(2, "Two & Co", Revenues=[fact(4, "b-1")]))
    assert sec(graphs, source).rows == 1
    changed = graphs.query(
        "kg1", "MATCH (c:Company {cik: '0000000002'})-[*2..2]->(x:Fact) RETURN c.name AS n, x.value AS v"
    )
    assert changed.to_pylist() == [{"n": "Two & Co", "v": 4.0}]


@pytest.mark.parametrize(
    "document, message",
    [
        (b"{", "Company facts of 0000000001 is not JSON"),
        (
            b'{"facts": {"us-gaap": {"A": {"units": {"USD": [{"val": 1}]}}}}}',
            "have another form than expected",
        ),
        (b"[]", "have another form"),
        (json.dumps(company(1, "One", A=[fact("x", "a")])).encode(), "a date or number that is none"),
        (
            json.dumps(company(1, "One", A=[fact(1, "a", end="2025-02-30")])).encode(),
            "a date or number that is none",
        ),
        (b'{"facts": NaN}', "NaN is not a number"),
    ],
)
def test_company_facts_that_cannot_be_used(
    graphs: GraphStore, source: Path, document: bytes, message: str
) -> None:
    (source / "CIK0000000001.json").write_bytes(document)
    with pytest.raises(AdapterError, match=message):
        sec(graphs, source)
    assert counts(graphs) == {}


def test_company_facts_over_http(graphs: GraphStore, server: Server) -> None:
    server.answers = [(200, company(1, "One", Revenues=[fact(1, "a")])), (404, b""), (503, b""), (403, b"")]
    client = SecClient(server.url, ["1"], "who@example.org")
    assert load(graphs, "kg1", client, SecProcessor()).rows == 1
    path, headers, _ = server.asked[0]
    assert (path, headers["User-Agent"]) == ("/CIK0000000001.json", "Quayside who@example.org")
    for kind, message in [
        (NotFoundError, "answers 404"),
        (ServiceUnavailableError, "answers 503 .*try again later"),
        (AdapterError, "answers 403 .*look at the credentials"),
    ]:
        with pytest.raises(kind, match=message):
            load(graphs, "kg1", client, SecProcessor())
    with pytest.raises(SettingsError, match="give an e-mail address"):
        SecClient(ciks=["1"]).connect()
    with pytest.raises(UsageError, match="name their CIKs"):
        SecClient(server.url).connect()
    with pytest.raises(UsageError, match="is no CIK"):
        SecClient(server.url, ["1/../2"])
    with pytest.raises(NotFoundError, match="is no folder"):
        SecClient("/there/is/no/such/folder").connect()


# -- QuickBooks -----------------------------------------------------------------------------------------------------


def account(number: int, changed: str = "2026-01-01T00:00:00Z") -> dict[str, Any]:
    return {
        "Id": str(number),
        "Name": f"A{number}",
        "AccountType": "Bank",
        "MetaData": {"LastUpdatedTime": changed},
    }


def entry(number: int, *lines: tuple[str, Any, int], changed: str = "2026-01-02T00:00:00Z") -> dict[str, Any]:
    return {
        "Id": str(number),
        "TxnDate": "2026-01-02",
        "Line": [{"Id": "note", "Description": "no amount"}]
        + [
            {
                "Id": str(i),
                "Amount": amount,
                "JournalEntryLineDetail": {"PostingType": side, "AccountRef": {"value": str(of)}},
            }
            for i, (side, amount, of) in enumerate(lines)
        ],
        "MetaData": {"LastUpdatedTime": changed},
    }


def answer(kind: str, *records: dict[str, Any]) -> dict[str, Any]:
    return {"QueryResponse": {kind: list(records)}}


def quickbooks(graphs: GraphStore, source: Path | str, **more: str) -> Loaded:
    return load(graphs, "kg1", QuickBooksClient(str(source), **more), QuickBooksProcessor())


BALANCES = (
    "MATCH (l:Line)-[:ON_ACCOUNT]->(a:Account) RETURN a.id AS id,"
    " CAST(sum(CASE l.side WHEN 'Debit' THEN l.amount_cents ELSE -l.amount_cents END) AS INT64) AS cents ORDER BY id"
)


def test_a_ledger(graphs: GraphStore, source: Path) -> None:
    """failure 11: amounts are exact, and an entry that was changed keeps none of its old lines."""
    write(source, "accounts.json", answer("Account", account(1), account(2), account(3)))
    write(
        source,
        "entries.json",
        answer("JournalEntry", entry(1, ("Debit", 0.1, 1), ("Debit", 0.2, 1), ("Credit", 0.3, 2))),
    )
    first = quickbooks(graphs, source)
    assert (first.rows, first.cursor) == (6, "2026-01-02T00:00:00+00:00")
    assert [tuple(r.values()) for r in graphs.query("kg1", BALANCES).to_pylist()] == [("1", 30), ("2", -30)]
    changed = entry(
        1, ("Debit", 5, 3), ("Credit", "5.00", 2), changed="2026-01-01T18:00:00-08:00"
    )  # later, though its text sorts earlier
    write(source, "entries.json", answer("JournalEntry", changed))
    quickbooks(graphs, source)
    assert [tuple(r.values()) for r in graphs.query("kg1", BALANCES).to_pylist()] == [("2", -500), ("3", 500)]
    assert counts(graphs) == {"Account": 3, "Entry": 1, "HAS_LINE": 2, "Line": 2, "ON_ACCOUNT": 2}
    assert (
        quickbooks(graphs, source).rows == 2
    )  # what changed at the very moment of the cursor comes once more
    assert counts(graphs)["Line"] == 2


@pytest.mark.parametrize(
    "wrong, message",
    [
        (entry(1, ("Debit", 1, 1), ("Credit", 2, 1)), "Journal entry 1 is out of balance by -100 cents"),
        (entry(1, ("Debit", 1.005, 1), ("Credit", 1.005, 1)), "at most two decimals"),
        (entry(1, ("Left", 1, 1)), "is 'Left', neither Debit nor Credit"),
        (entry(1) | {"TxnDate": "soon", "Line": entry(1, ("Debit", 0, 1))["Line"]}, "a date that is none"),
        (
            entry(1) | {"Line": [{"Id": "1", "JournalEntryLineDetail": {}}]},
            "Journal entry 1 has another form",
        ),
        ({"Id": "1"}, "has another form than a query's answer"),
        (entry(1, changed="soon"), "Record 1 was changed at 'soon', which is no time"),
    ],
)
def test_a_ledger_that_cannot_be_used(
    graphs: GraphStore, source: Path, wrong: dict[str, Any], message: str
) -> None:
    write(source, "all.json", {"QueryResponse": {"Account": [account(1)], "JournalEntry": [wrong]}})
    with pytest.raises(AdapterError, match=message):
        quickbooks(graphs, source)
    assert counts(graphs) == {}


def test_a_ledger_over_http_page_by_page(
    graphs: GraphStore, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QB_TOKEN", "t0ken-of-the-tests")
    monkeypatch.setattr("quayside.robosystems.adapters.quickbooks.client._PAGE", 2)
    server.answers = [
        (200, answer("Account", account(1), account(2))),
        (200, answer("Account", account(3, "2026-01-03T00:00:00Z"))),
        (200, {"QueryResponse": {}}),
        (200, {"QueryResponse": {}}),
        (200, {"QueryResponse": {}}),
    ]
    assert quickbooks(graphs, server.url, token_secret="env:QB_TOKEN", company="7").rows == 3
    paths = [asked[0] for asked in server.asked]
    assert "STARTPOSITION%201%20" in paths[0]
    assert "STARTPOSITION%203%20" in paths[1]
    assert server.asked[0][1]["Authorization"] == "Bearer t0ken-of-the-tests"
    quickbooks(graphs, server.url, token_secret="env:QB_TOKEN", company="7")
    assert "LastUpdatedTime%20%3E%3D%20%272026-01-03T00%3A00%3A00%2B00%3A00%27" in server.asked[-1][0]
    with pytest.raises(UsageError, match="needs a token"):
        quickbooks(graphs, server.url)


# -- Plaid ----------------------------------------------------------------------------------------------------------


def moved(number: int, amount: Any, merchant: str | None = "Shop", of: str = "acc") -> dict[str, Any]:
    return {
        "transaction_id": f"t{number}",
        "account_id": of,
        "date": "2026-03-01",
        "amount": amount,
        "merchant_name": merchant,
    }


def page(
    cursor: str, *added: Any, modified: Any = (), removed: Any = (), more: bool = False
) -> dict[str, Any]:
    return {
        "accounts": [{"account_id": "acc", "name": "Current", "type": "depository"}],
        "added": list(added),
        "modified": list(modified),
        "removed": [{"transaction_id": each} for each in removed],
        "next_cursor": cursor,
        "has_more": more,
    }


def plaid(graphs: GraphStore, source: Path | str, group: int = 50, **more: str) -> Loaded:
    return load(graphs, "kg1", PlaidClient(str(source), **more), PlaidProcessor(), group=group)


@pytest.mark.parametrize("group", [1, 50])
def test_transactions_follow_the_cursor(graphs: GraphStore, source: Path, group: int) -> None:
    write(source, "1.json", page("c1", moved(1, 10.10), moved(2, 5), moved(3, 1, None)))
    assert plaid(graphs, source, group).cursor == "c1"
    write(
        source,
        "2.json",
        page("c2", moved(4, -3), modified=[moved(2, 6, "Other shop")], removed=["t1", "never seen"]),
    )
    again = plaid(graphs, source, group)
    assert (again.cursor, again.rows) == ("c2", 1 + 2 + 2)
    assert counts(graphs) == {
        "AT_MERCHANT": 2,
        "BankAccount": 1,
        "MOVED_ON": 3,
        "Merchant": 2,
        "Transaction": 3,
    }
    rows = graphs.query(
        "kg1",
        "MATCH (t:Transaction)-[:MOVED_ON]->(a:BankAccount) OPTIONAL MATCH (t)-[:AT_MERCHANT]->(m:Merchant)"
        " RETURN t.id AS id, t.amount_cents AS cents, m.name AS merchant ORDER BY id",
    ).to_pylist()
    assert [tuple(r.values()) for r in rows] == [
        ("t2", 600, "Other shop"),
        ("t3", 100, None),
        ("t4", -300, "Shop"),
    ]
    assert plaid(graphs, source, group).rows == 0
    (source / "2.json").unlink()
    with pytest.raises(AdapterError, match=r"No page in .* ends with the cursor 'c2'"):
        plaid(graphs, source)


def test_a_load_that_dies_goes_on_and_loses_and_repeats_nothing(
    graphs: GraphStore, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1, 4):
        write(source, f"{number}.json", page(f"c{number}", moved(number, number)))
    real: Callable[..., Any] = PlaidProcessor.process

    def dying(self: PlaidProcessor, batch: Any) -> Any:
        if batch.kind == "transactions" and batch.rows["id"].to_pylist() == ["t3"]:
            raise KeyboardInterrupt
        return real(self, batch)

    monkeypatch.setattr(PlaidProcessor, "process", dying)
    with pytest.raises(KeyboardInterrupt):
        plaid(graphs, source, group=2)
    monkeypatch.undo()
    assert 0 < counts(graphs)["Transaction"] < 3
    assert plaid(graphs, source, group=2).cursor == "c3"
    assert counts(graphs)["Transaction"] == 3


def test_two_loads_at_once_do_not_mix_their_cursors(graphs: GraphStore, source: Path) -> None:
    write(source, "1.json", page("c1", moved(1, 1)))

    class Overtaken(PlaidClient):
        def extract(self, cursor: str | None) -> Iterator[Any]:
            found = list(super().extract(cursor))
            plaid(graphs, source)
            yield from found

    with pytest.raises(ConflictError, match="loaded plaid into graph kg1 at the same time"):
        load(graphs, "kg1", Overtaken(str(source)), PlaidProcessor())
    assert counts(graphs)["Transaction"] == 1


def test_transactions_over_http_until_there_are_no_more(
    graphs: GraphStore, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = {
        "client_id_secret": "env:P_ID",
        "api_secret": "env:P_SECRET",
        "access_token_secret": "env:P_TOKEN",
    }
    for name in ("P_ID", "P_SECRET", "P_TOKEN"):
        monkeypatch.setenv(name, f"planted-{name}")
    server.answers = [
        (200, page("c1", moved(1, 1), more=True)),
        (200, page("c2", moved(2, 2))),
        (429, b"planted-P_TOKEN"),
        (200, {"next_cursor": "c3", "has_more": False}),
        (200, page("c4", moved(3, "1.001"))),
    ]
    assert plaid(graphs, server.url, item="i", **secrets).cursor == "c2"
    first, second = (asked[2] for asked in server.asked)
    assert first == {
        "client_id": "planted-P_ID",
        "secret": "planted-P_SECRET",
        "access_token": "planted-P_TOKEN",
        "count": 500,
    }
    assert second["cursor"] == "c1"
    with pytest.raises(ServiceUnavailableError, match="answers 429") as caught:
        plaid(graphs, server.url, item="i", **secrets)
    assert "planted" not in str(caught.value)
    with pytest.raises(AdapterError, match="A page of plaid:i has another form"):
        plaid(graphs, server.url, item="i", **secrets)
    with pytest.raises(AdapterError, match=r"Transaction t3 is '1\.001'"):
        plaid(graphs, server.url, item="i", **secrets)
    with pytest.raises(UsageError, match="need a client_id"):
        plaid(graphs, server.url)
