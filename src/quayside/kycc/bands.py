"""The one band table: what a total score is called and what is decided on it by default."""

from __future__ import annotations

from typing import Final, Literal

Band = Literal["excellent", "good", "fair", "poor", "very_poor"]
Decision = Literal["approve", "review", "decline"]

SCORE_MIN: Final = 300
SCORE_MAX: Final = 900

#: Lowest total score of each band, best first.
BANDS: Final[tuple[tuple[Band, int], ...]] = (
    ("excellent", 800),
    ("good", 700),
    ("fair", 600),
    ("poor", 450),
    ("very_poor", SCORE_MIN),
)

#: What a band decides when no flag asks for a person.
DECISIONS: Final[dict[Band, Decision]] = {
    "excellent": "approve",
    "good": "approve",
    "fair": "review",
    "poor": "review",
    "very_poor": "decline",
}


def band_of(total_score: float) -> Band:
    """Band of one clamped total score."""
    return next(band for band, floor in BANDS if total_score >= floor)
