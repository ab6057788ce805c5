"""Invented names, people and addresses, from the words in ``words.toml``. Domains and phone numbers are reserved ones."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from quayside.kycc.generate.columns import TEXT, compute, digits, fixed_text, joined
from quayside.kycc.generate.tiers import PARTY_TYPES

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Fields a party may lack, besides its tax id.
FIELDS = ("contact_person", "email", "phone", "address", "registration_number")


@cache
def _words() -> dict[str, Any]:
    """The lists of ``words.toml`` as string columns; `suffixes` in the order of `PARTY_TYPES`, with its sizes."""
    lists = tomllib.loads((files("quayside.kycc.generate") / "words.toml").read_text("utf-8"))
    suffixes = lists.pop("suffixes")
    words: dict[str, Any] = {}
    for name, entries in lists.items():
        pairs = [
            (entry, entry.lower().replace("'", "")) if isinstance(entry, str) else entry for entry in entries
        ]
        words[name] = pa.array([spelling for spelling, _ in pairs], TEXT)
        words[f"{name}_plain"] = pa.array([plain for _, plain in pairs], TEXT)
    words["suffixes"] = pa.array([word for name in PARTY_TYPES for word in suffixes[name]], TEXT)
    words["suffix_counts"] = np.array([len(suffixes[name]) for name in PARTY_TYPES])
    return words


def draw(
    rng: np.random.Generator, type_: NDArray[np.int8], share: NDArray[np.float64]
) -> dict[str, pa.Array]:
    """Names and contact fields of n parties.

    Args:
        type_: code of `PARTY_TYPES` per party.
        share: probability of each contact field, per party; the name is always there.

    Returns:
        name and each of `FIELDS`: string columns, null where absent.
    """
    n = len(type_)
    words = _words()

    def pick(name: str) -> pa.Array:
        return pa.array(rng.integers(len(words[name]), size=n))

    first, second, given, family = pick("first"), pick("second"), pick("given"), pick("family")
    counts = words["suffix_counts"]
    suffix = (np.cumsum(counts) - counts)[type_] + (rng.random(n) * counts[type_]).astype(np.int64)
    columns = {
        "contact_person": joined(words["given"].take(given), " ", words["family"].take(family)),
        "email": joined(
            words["given_plain"].take(given),
            ".",
            words["family_plain"].take(family),
            "@",
            words["first_plain"].take(first),
            words["second"].take(second),
            ".example",
        ),
        # 555-0100 to 555-0199 are set aside for fiction.
        "phone": fixed_text(
            b"+1-",
            digits(rng.integers(201, 990, size=n), 3),
            b"-555-01",
            digits(rng.integers(100, size=n), 2),
            rows=n,
        ),
        "address": joined(
            pa.array(rng.integers(1, 240, size=n)).cast(TEXT),
            " ",
            words["streets"].take(pick("streets")),
            ", ",
            words["cities"].take(pick("cities")),
        ),
        "registration_number": fixed_text(b"REG-", digits(rng.integers(10**9, size=n), 9), rows=n),
    }
    absent = pa.scalar(None, TEXT)
    text = {
        field: compute.if_else(pa.array(rng.random(n) < share), columns[field], absent) for field in FIELDS
    }
    text["name"] = joined(
        words["first"].take(first),
        words["second"].take(second),
        " ",
        words["suffixes"].take(pa.array(suffix)),
        " ",
        words["forms"].take(pick("forms")),
    )
    return text
