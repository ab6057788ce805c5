"""Scores for sensors and auditors."""

from alembic import op

revision = "0001"
down_revision = None

SCORE_REQUESTS = """
CREATE TABLE kycc.score_requests (
    party_id           text NOT NULL,
    batch_id           text NOT NULL,
    scorecard_version  text NOT NULL,
    as_of              timestamptz NOT NULL,
    raw_score          smallint NOT NULL,
    total_score        smallint NOT NULL,
    band               text NOT NULL,
    decision           text NOT NULL,
    flags              text[] NOT NULL,
    reasons            text[] NOT NULL,
    created_at         timestamptz NOT NULL,
    PRIMARY KEY (party_id, batch_id, scorecard_version),
    CONSTRAINT score_requests_total_score CHECK (total_score BETWEEN 300 AND 900),
    CONSTRAINT score_requests_band CHECK (band IN ('excellent', 'good', 'fair', 'poor', 'very_poor')),
    CONSTRAINT score_requests_decision CHECK (decision IN ('approve', 'review', 'decline'))
);
CREATE INDEX score_requests_created_at ON kycc.score_requests (created_at);
CREATE INDEX score_requests_batch ON kycc.score_requests (batch_id, scorecard_version);
"""

SCORE_BATCHES = """
CREATE TABLE kycc.score_batches (
    batch_id           text NOT NULL,
    scorecard_version  text NOT NULL,
    as_of              timestamptz NOT NULL,
    -- of the lake rows that score_requests shows; differs when a run died before it could bring them level
    fingerprint        text NOT NULL,
    parties_scored     integer NOT NULL,
    created_at         timestamptz NOT NULL,
    PRIMARY KEY (batch_id, scorecard_version)
);
"""


def upgrade() -> None:
    for statements in (SCORE_REQUESTS, SCORE_BATCHES):
        op.execute(statements)
