"""Words of a notice: sentences that replace a card's own, and what stands around them. A YAML file, `en.yaml` by default.

Texts never change which reasons are given or in which order; they only say them. What a file leaves out is said in the
card's words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

from quayside.foundation.errors import InputError, NotFoundError
from quayside.kycc.adverse_action.reasons import MOST
from quayside.kycc.bands import Decision
from quayside.kycc.scorecard.files import read_yaml
from quayside.kycc.scorecard.texts import unknown_fields

if TYPE_CHECKING:
    from quayside.kycc.scorecard import Characteristic, Scorecard

#: What may stand in braces in the opening and closing.
LETTER_FIELDS: Final = frozenset({"{party}", "{decision}", "{as_of}"})
#: A refusal rests on facts. "The score was too low" is not one, so no sentence may speak of it.
_MECHANICS: Final = re.compile(r"\b(score[sd]?|points?)\b", re.IGNORECASE)


@dataclass(frozen=True)
class NoticeTexts:
    """Texts of a notice in one language.

    Attributes:
        decisions: which decisions a notice is due for.
        most: reasons given at most.
        reasons: feature → sentence for lost points; ``{lower}`` and ``{upper}`` stand for the bin's edges.
        missing: feature → sentence for a missing value.
        rules: rule id → sentence.
    """

    language: str = "en"
    decisions: tuple[Decision, ...] = ("decline",)
    most: int = MOST
    opening: str = ""
    closing: str = ""
    reasons: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    rules: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= self.most <= MOST:
            raise InputError(f"Notice texts: most is 1 to {MOST}, not {self.most}.")
        if unknown := sorted(set(self.decisions) - set(get_args(Decision))):
            raise InputError(f"Notice texts: {unknown[0]!r} is no decision.")
        for text in (self.opening, self.closing):
            if fields := unknown_fields(text, LETTER_FIELDS):
                raise InputError(
                    f"Notice texts: {fields[0]!r} has no meaning in opening or closing; "
                    f"there are {', '.join(sorted(LETTER_FIELDS))}."
                )
        for sentences in (self.reasons, self.missing, self.rules):
            for name, text in sentences.items():
                if found := _MECHANICS.search(text):
                    raise InputError(
                        f"Notice texts: the sentence of {name!r} speaks of {found[0]!r}; say what was found of the party."
                    )

    def applied_to(self, card: Scorecard) -> Scorecard:
        """The card with these sentences in place of its own; points, bins and rules stay.

        Raises:
            InputError: a sentence is for a feature or rule that is unknown, or uses an edge its bins do not have.
        """
        from quayside.kycc.features import BY_NAME

        for name in (*self.reasons, *self.missing):
            if name not in card.features and name not in BY_NAME:
                raise InputError(
                    f"Notice texts: {name!r} is neither a characteristic of {card.version} nor a feature."
                )
        ids = {rule.id for rule in card.rules}
        if strange := sorted(set(self.rules) - ids):
            raise InputError(f"Notice texts: scorecard {card.version} has no rule {strange[0]!r}.")
        return replace(
            card,
            characteristics=tuple(self._reworded(item) for item in card.characteristics),
            rules=tuple(replace(rule, text=self.rules.get(rule.id, rule.text)) for rule in card.rules),
        )

    def _reworded(self, item: Characteristic) -> Characteristic:
        changes: dict[str, Any] = {}
        if item.feature in self.reasons:
            changes |= {"reason": self.reasons[item.feature], "bin_reasons": ()}
        if item.feature in self.missing:
            changes["missing_reason"] = self.missing[item.feature]
        return replace(item, **changes)


def load_texts(path: Path | str | None = None) -> NoticeTexts:
    """Texts of a YAML file; the shipped English ones when none is named.

    Raises:
        NotFoundError: there is no such file.
        InputError: it is not a valid document of texts.
    """
    if path is None:
        return _shipped()
    path = Path(path)
    if not path.is_file():
        raise NotFoundError(f"There is no file of notice texts at {path}.")
    return parse_texts(path.read_text("utf-8-sig"), str(path))


def parse_texts(text: str, where: str) -> NoticeTexts:
    """Texts written as YAML; `where` names the document in errors."""
    data = read_yaml(text, where)
    known = NoticeTexts.__dataclass_fields__
    if not isinstance(data, dict) or not set(data) <= set(known):
        raise InputError(f"{where}: notice texts are a mapping with any of {', '.join(known)}.")
    for name, value in data.items():
        if name in ("reasons", "missing", "rules"):
            fits = isinstance(value, dict) and all(isinstance(x, str) for pair in value.items() for x in pair)
        elif name == "decisions":
            fits = isinstance(value, list) and all(isinstance(item, str) for item in value)
        else:
            fits = type(value) is (int if name == "most" else str)
        if not fits:
            raise InputError(f"{where}: {name} is not of the form the documentation states.")
    if "decisions" in data:
        data["decisions"] = tuple(data["decisions"])
    return NoticeTexts(**data)


@lru_cache
def _shipped() -> NoticeTexts:
    name = "en.yaml"
    return parse_texts(resources.files(__package__ or "").joinpath(name).read_text("utf-8"), name)
