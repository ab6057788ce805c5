"""Company facts from a folder of ``CIK##########.json`` files, or from data.sec.gov.

The cursor holds a digest for each company; one whose document did not change is not read again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from quayside.foundation.errors import SettingsError, UsageError
from quayside.robosystems.adapters import documents
from quayside.robosystems.adapters.protocol import AdapterError, Batch

if TYPE_CHECKING:
    import pyarrow as pa

COMPANY_FACTS: Final = "https://data.sec.gov/api/xbrl/companyfacts"
#: data.sec.gov asks for no more than ten requests a second.
_PAUSE_SECONDS: Final = 0.12

#: Columns of the rows: name → whether a fact has to have it.
COLUMNS: Final = {
    "cik": True,
    "company": True,
    "taxonomy": True,
    "concept": True,
    "label": False,
    "unit": True,
    "period_start": False,
    "period_end": True,
    "value": True,
    "accession": True,
    "fiscal_year": False,
    "fiscal_period": False,
    "form": False,
    "filed": False,
}


class SecClient:
    """Company facts of the companies in a folder, or of those named by `ciks` at a URL (by default the SEC's own).

    `contact` is an e-mail address: data.sec.gov answers only who says who they are.
    """

    def __init__(
        self, source: str = COMPANY_FACTS, ciks: Sequence[str | int] = (), contact: str = ""
    ) -> None:
        self.source = source
        self._ciks = [_cik(each) for each in ciks]
        self._contact = contact

    @property
    def name(self) -> str:
        """One cursor for all companies."""
        return "sec_company_facts"

    def connect(self) -> None:
        """A folder has to be there; a URL needs companies, and the SEC's own a contact."""
        if not documents.is_url(self.source):
            documents.folder_of(self.source)
            return
        if not self._ciks:
            raise UsageError("Company facts come one company at a time over HTTP: name their CIKs.")
        if self.source == COMPANY_FACTS and "@" not in self._contact:
            raise SettingsError("data.sec.gov wants to know who asks: give an e-mail address as contact.")

    def extract(self, cursor: str | None) -> Iterator[Batch]:
        """One batch for each company whose document changed."""
        seen: dict[str, str] = json.loads(cursor) if cursor else {}
        for cik, content in self._documents():
            digest = hashlib.sha256(content).hexdigest()[:16]
            if seen.get(cik) == digest:
                continue
            rows = _rows(documents.parse(content, f"Company facts of {cik}"), cik)
            seen[cik] = digest
            yield Batch("facts", rows, json.dumps(seen, sort_keys=True))

    def _documents(self) -> Iterator[tuple[str, bytes]]:
        if documents.is_url(self.source):
            for number, cik in enumerate(self._ciks):
                if number:
                    time.sleep(_PAUSE_SECONDS)
                headers = {"User-Agent": f"Quayside {self._contact}".strip()}
                yield cik, documents.fetch(f"{self.source.rstrip('/')}/CIK{cik}.json", headers)
            return
        for path in sorted(documents.folder_of(self.source).glob("CIK*.json")):
            cik = _cik(path.stem.removeprefix("CIK"))
            if not self._ciks or cik in self._ciks:
                yield cik, documents.read_file(path)


def _cik(text: str | int) -> str:
    digits = str(text).strip()
    if not digits.isascii() or not digits.isdigit() or len(digits) > 10:
        raise UsageError(f"{text!r} is no CIK: it has up to ten digits.")
    return digits.zfill(10)


def _rows(document: Any, cik: str) -> pa.Table:
    import pyarrow as pa

    rows: list[dict[str, Any]] = []
    try:
        company = str(document.get("entityName") or cik)
        for taxonomy, concepts in document["facts"].items():
            for concept, about in concepts.items():
                for unit, facts in about["units"].items():
                    rows += [
                        {
                            "cik": cik,
                            "company": company,
                            "taxonomy": taxonomy,
                            "concept": concept,
                            "label": about.get("label"),
                            "unit": unit,
                            "period_start": fact.get("start"),
                            "period_end": fact["end"],
                            "value": str(fact["val"]),
                            "accession": fact["accn"],
                            "fiscal_year": None if fact.get("fy") is None else str(fact["fy"]),
                            "fiscal_period": fact.get("fp"),
                            "form": fact.get("form"),
                            "filed": fact.get("filed"),
                        }
                        for fact in facts
                    ]
    except (KeyError, AttributeError, TypeError) as error:
        raise AdapterError(f"Company facts of {cik} have another form than expected ({error!r}).") from None
    schema = pa.schema([pa.field(name, pa.string(), nullable=not needed) for name, needed in COLUMNS.items()])
    try:
        return pa.Table.from_pylist(rows, schema=schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise AdapterError(f"Company facts of {cik} hold a value of another kind: {error}") from None
