"""One scorecard version as PostgreSQL keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from quayside.kycc.scorecard import Scorecard

Status = Literal["draft", "active", "retired", "rejected", "rolled_back"]

#: Stands for whichever version is active, wherever a version is asked for.
ACTIVE: Final = "active"
#: The expert card, active on a platform that has activated nothing else.
SEED: Final = "v1"


@dataclass(frozen=True)
class Version:
    """A card, where it came from and what became of it.

    Attributes:
        base_version, model_id, blend_factor: what it was refined from; None for a card a person wrote.
        gates: the gates it went through, each with its numbers and ``passed``.
        details: what else the refinement reported: comparison of points, data identity, label source.
        requested_by: who asked for its activation where that takes two persons.
        predecessor: the version that was active before it.
        ended_at: when it was retired, rejected or rolled back.
        note: the reason given with the last change.
    """

    version: str
    status: Status
    card: Scorecard
    content_hash: str
    base_version: str | None
    model_id: str | None
    blend_factor: float | None
    gates: list[dict[str, Any]]
    details: dict[str, Any]
    created_by: str
    created_at: datetime
    requested_by: str | None
    activated_by: str | None
    activated_at: datetime | None
    predecessor: str | None
    ended_at: datetime | None
    note: str

    @property
    def decides(self) -> bool:
        """Whether it is or was the card decisions are made by; any other scores in shadow alone."""
        return self.activated_at is not None

    def as_dict(self) -> dict[str, Any]:
        """All of it but the card's content, fit for JSON."""
        return {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in vars(self).items()
            if name != "card"
        }


@dataclass(frozen=True)
class Training:
    """One training run: the model as JSON text, or the reason why there is none.

    Attributes:
        training_id: derived from the outcome, so that the same data and settings give the same.
        details: the window of its labels, the batches, and whether it is circular.
    """

    training_id: str
    status: Literal["trained", "skipped"]
    reason: str
    model: str | None
    details: dict[str, Any]
