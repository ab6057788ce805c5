"""Alerts, audit, flags; usage events."""

from alembic import op

revision = "0001"
down_revision = None

ALERTS = """
CREATE TABLE ops.alerts (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at            timestamptz NOT NULL DEFAULT now(),
    severity      text NOT NULL CHECK (severity IN ('info', 'warning', 'error', 'critical')),
    source        text NOT NULL,
    title         text NOT NULL,
    body          text NOT NULL DEFAULT '',
    -- Alerts of one cause share a fingerprint; within a quiet period they are counted in the first one's row.
    fingerprint   text NOT NULL,
    folded_count  integer NOT NULL DEFAULT 0 CHECK (folded_count >= 0),
    last_at       timestamptz NOT NULL DEFAULT now(),
    run_id        text,
    link          text,
    channel       text,
    delivered_by  text[] NOT NULL DEFAULT '{}',
    delivery_error text
);
CREATE INDEX alerts_at ON ops.alerts (at DESC);
CREATE INDEX alerts_fingerprint ON ops.alerts (fingerprint, at DESC);
"""

AUDIT = """
CREATE TABLE ops.audit (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at            timestamptz NOT NULL DEFAULT now(),
    actor         text NOT NULL CHECK (actor <> ''),
    action        text NOT NULL CHECK (action <> ''),
    subject_type  text NOT NULL,
    subject       text NOT NULL,
    details       jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX audit_at ON ops.audit (at DESC);
CREATE INDEX audit_subject ON ops.audit (subject_type, subject, at DESC);

CREATE FUNCTION ops.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%.% is append-only: % is refused', TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ops.audit
    FOR EACH STATEMENT EXECUTE FUNCTION ops.refuse_change();
"""

FLAGS = """
CREATE TABLE ops.flags (
    name             text PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9_.-]{0,99}$'),
    enabled          boolean NOT NULL DEFAULT false,
    rollout_percent  numeric(5, 2) NOT NULL DEFAULT 100 CHECK (rollout_percent BETWEEN 0 AND 100),
    audience         text NOT NULL DEFAULT '',
    owner            text NOT NULL DEFAULT '',
    description      text NOT NULL DEFAULT '',
    expires_on       date,
    updated_at       timestamptz NOT NULL DEFAULT now()
);
"""

USAGE = """
CREATE SCHEMA usage;
CREATE TABLE usage.events (
    event_id     text PRIMARY KEY CHECK (event_id <> ''),
    source       text NOT NULL,
    kind         text NOT NULL,
    quantity     numeric NOT NULL CHECK (quantity >= 0 AND quantity < 'Infinity'),
    subject      text NOT NULL,
    occurred_at  timestamptz NOT NULL,
    recorded_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX events_recorded_at ON usage.events (recorded_at, event_id);
"""


def upgrade() -> None:
    for statements in (ALERTS, AUDIT, FLAGS, USAGE):
        op.execute(statements)
