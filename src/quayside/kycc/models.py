"""KYCC's tables in PostgreSQL, schema ``kycc``: what sensors and auditors ask for.

The full score rows (features used, points, rules) are in the lake; these rows are their index for people and sensors,
written after the lake and brought level again by the next run when a run died in between (see `quayside.kycc.scoring`).
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ARRAY, TIMESTAMP, CheckConstraint, Index, Integer, SmallInteger, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """Declarative base of schema ``kycc``."""


class ScoreRequest(Base):
    """One current score of one party in one batch by one scorecard version.

    Unique per (party, batch, version). A re-scored row that differs replaces this one only together with a row in the
    lake's ``kycc.score_history`` and an audit record.
    """

    __tablename__ = "score_requests"
    __table_args__ = (
        CheckConstraint("total_score BETWEEN 300 AND 900", name="score_requests_total_score"),
        CheckConstraint(
            "band IN ('excellent', 'good', 'fair', 'poor', 'very_poor')", name="score_requests_band"
        ),
        CheckConstraint("decision IN ('approve', 'review', 'decline')", name="score_requests_decision"),
        Index("score_requests_created_at", "created_at"),
        Index("score_requests_batch", "batch_id", "scorecard_version"),
        {"schema": "kycc"},
    )

    party_id: Mapped[str] = mapped_column(Text, primary_key=True)
    batch_id: Mapped[str] = mapped_column(Text, primary_key=True)
    scorecard_version: Mapped[str] = mapped_column(Text, primary_key=True)
    as_of: Mapped[datetime] = mapped_column(TIMESTAMP(timezone=True))
    raw_score: Mapped[int] = mapped_column(SmallInteger)
    total_score: Mapped[int] = mapped_column(SmallInteger)
    band: Mapped[str] = mapped_column(Text)
    decision: Mapped[str] = mapped_column(Text)
    flags: Mapped[list[str]] = mapped_column(ARRAY(Text))
    reasons: Mapped[list[str]] = mapped_column(ARRAY(Text))
    created_at: Mapped[datetime] = mapped_column(TIMESTAMP(timezone=True))


class ScoreBatch(Base):
    """One scored batch: summary figures, and the fingerprint of the lake rows that `ScoreRequest` rows mirror."""

    __tablename__ = "score_batches"
    __table_args__ = ({"schema": "kycc"},)

    batch_id: Mapped[str] = mapped_column(Text, primary_key=True)
    scorecard_version: Mapped[str] = mapped_column(Text, primary_key=True)
    as_of: Mapped[datetime] = mapped_column(TIMESTAMP(timezone=True))
    fingerprint: Mapped[str] = mapped_column(Text)
    parties_scored: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(TIMESTAMP(timezone=True))
