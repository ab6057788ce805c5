"""Invented names, people and addresses. No real company or person is meant; domains and numbers are reserved ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from quayside.kycc.generate.columns import TEXT, digits, fixed_text
from quayside.kycc.generate.tiers import PARTY_TYPES

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Two syllables make a company's word: spelling and the plain letters for its domain.
_FIRST: Final = tuple(
    "Al Ar Bel Bran Cal Cor Dal Del Dor El Fal Fen Gal Gor Hal Hol Il Jor Kal Kel Lan Lor Mar Mel Mor Nor Ol Or Pel "
    "Quin Ral Ros Sal Sel Sol Tal Tor Ul Val Ver Vil Wes Yar Zan Ør Çel Łan Šar Żel Ĺub".split()
)
_FIRST_PLAIN: Final = tuple(
    "al ar bel bran cal cor dal del dor el fal fen gal gor hal hol il jor kal kel lan lor mar mel mor nor ol or pel "
    "quin ral ros sal sel sol tal tor ul val ver vil wes yar zan or cel lan sar zel lub".split()
)
_SECOND: Final = tuple(
    "bay berg bridge by crest dale den dor field ford gate ham haven holm hurst ia is ix land ley line mark mere mond "
    "mont more nia non ora os port ra rand ria ridge ring ron sen shaw sted stone ton vale via vik ward way wick wood".split()
)
_SUFFIXES: Final = {
    "supplier": (
        "Supplies",
        "Raw Materials",
        "Components",
        "Minerals",
        "Agro Supply",
        "Packaging",
        "Forest Products",
    ),
    "manufacturer": (
        "Works",
        "Industries",
        "Manufacturing",
        "Mills",
        "Foundry",
        "Textiles",
        "Precision Tools",
    ),
    "distributor": (
        "Distribution",
        "Logistics",
        "Wholesale",
        "Trading House",
        "Freight & Trade",
        "Import-Export",
    ),
    "retailer": ("Stores", "Retail", "Markets", "Home & Garden", "Outfitters", "Electronics", "Bazaar"),
    "customer": ("Services", "Clinics", "Schools", "Hotels", "Kitchens", "Builders", "Studio"),
}
_FORMS: Final = ("Ltd", "LLC", "Inc", "GmbH", "S.A.", "AB", "Pvt Ltd", "Co.", "Oy", "S.r.l.")
#: Shown name and its plain form in an address.
_GIVEN: Final = (
    "Ada Amir Anika Bela Bruno Carla Chidi Dalia Daniel Dewi Elena Emre Farah Felix Grace Hana Hugo Ines Ivan Jana "
    "Jonas Kavya Kofi Lars Leila Lena Luis Maja Marco Mei Nadia Nikhil Olga Omar Paula Petra Rafael Rosa Samir Sofia "
    "Sunil Tariq Tomas Vera Viktor Wanda Yara Zoltan José Zoë Søren Łukasz"
).split()
_GIVEN_PLAIN: Final = (*(name.lower() for name in _GIVEN[:-4]), "jose", "zoe", "soren", "lukasz")
_FAMILY: Final = (
    "Abara Adler Almeida Anders Bakshi Baran Berger Castell Cole Dahl Demir Duarte Eker Farkas Ferro Gale Garza Haas "
    "Holt Ibarra Iyer Jansen Kade Kaplan Keller Kumar Lange Leone Lindt Maro Mehta Moreau Nagy Novak Okoro Olsen Park "
    "Pereira Quist Rana Rossi Sato Silva Tamm Torres Ueda Vance Vogel Weiss Yilmaz Müller Núñez Ström Çelik"
).split()
_FAMILY_PLAIN: Final = (*(name.lower() for name in _FAMILY[:-4]), "muller", "nunez", "strom", "celik")
_STREETS: Final = (
    "Harbour Road,Mill Lane,Market Street,Station Road,Quay Street,Foundry Lane,Canal Street,Orchard Way,Bridge Street,"
    "Park Avenue,Warehouse Row,Linden Street,Customs Road,Depot Road,Silk Road,Weaver Street,Hafenstraße,Rua do Cais"
).split(",")
_CITIES: Final = (
    "Northhaven,Eastmere,Port Alden,Westbridge,Kingsholm,Lakefield,Riverton,Stonegate,Goldcrest,Silverbay,Marlow Point,"
    "Ashby Cross,Velmont,Torrance Bay,Grünau,São Vale,Østerby,Újfalva"
).split(",")


def draw(
    rng: np.random.Generator, type_: NDArray[np.int8], share: NDArray[np.float64]
) -> dict[str, pa.Array]:
    """Names and contact fields of n parties.

    Args:
        type_: code of `PARTY_TYPES` per party.
        share: probability of each contact field, per party; the name is always there.

    Returns:
        name, contact_person, email, phone, address, registration_number: string columns, null where absent.
    """
    n = len(type_)

    def pick(values: int) -> NDArray[np.int64]:
        return rng.integers(values, size=n)

    first, second, form = pick(len(_FIRST)), pick(len(_SECOND)), pick(len(_FORMS))
    suffixes = [suffix for name in PARTY_TYPES for suffix in _SUFFIXES[name]]
    sizes = np.array([len(_SUFFIXES[name]) for name in PARTY_TYPES])
    suffix = (np.cumsum(sizes) - sizes)[type_] + (rng.random(n) * sizes[type_]).astype(np.int64)
    given, family = pick(len(_GIVEN)), pick(len(_FAMILY))
    present = {
        field: rng.random(n) < share
        for field in ("contact_person", "email", "phone", "address", "registration_number")
    }
    name = _join(
        _take(_FIRST, first), _take(_SECOND, second), " ", _take(suffixes, suffix), " ", _take(_FORMS, form)
    )
    columns = {
        "contact_person": _join(_take(_GIVEN, given), " ", _take(_FAMILY, family)),
        "email": _join(
            _take(_GIVEN_PLAIN, given),
            ".",
            _take(_FAMILY_PLAIN, family),
            "@",
            _take(_FIRST_PLAIN, first),
            _take(_SECOND, second),
            ".example",
        ),
        # 555-0100 to 555-0199 are set aside for fiction.
        "phone": fixed_text(b"+1-", digits(201 + pick(789), 3), b"-555-01", digits(pick(100), 2), rows=n),
        "address": _join(
            pc.cast(pa.array(1 + pick(240)), TEXT),
            " ",
            _take(_STREETS, pick(len(_STREETS))),
            ", ",
            _take(_CITIES, pick(len(_CITIES))),
        ),
        "registration_number": fixed_text(b"REG-", digits(pick(10**9), 9), rows=n),
    }
    absent = pa.scalar(None, TEXT)
    return {"name": name} | {
        field: pc.if_else(pa.array(present[field]), values, absent) for field, values in columns.items()
    }


def _take(values: tuple[str, ...] | list[str], codes: NDArray[np.int64]) -> pa.Array:
    return pa.array(values, TEXT).take(pa.array(codes))


def _join(*parts: pa.Array | str) -> pa.Array:
    return pc.binary_join_element_wise(*parts, "")
