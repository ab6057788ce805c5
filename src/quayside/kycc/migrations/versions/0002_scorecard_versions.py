"""Scorecard versions with their life cycle, and the trainings they came from."""

from alembic import op

revision = "0002"
down_revision = "0001"

TRAININGS = """
CREATE TABLE kycc.trainings (
    training_id  text PRIMARY KEY,
    status       text NOT NULL CHECK (status IN ('trained', 'skipped')),
    reason       text NOT NULL DEFAULT '' CHECK ((status = 'skipped') = (reason <> '')),
    -- json, not jsonb: what was stored is given back to the byte
    model        json CHECK ((status = 'trained') = (model IS NOT NULL)),
    details      jsonb NOT NULL DEFAULT '{}',
    created_by   text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    -- The same data and settings give the same training; it is kept once.
    last_run_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
"""

VERSIONS = """
CREATE TABLE kycc.scorecard_versions (
    version       text PRIMARY KEY,
    status        text NOT NULL CHECK (status IN ('draft', 'active', 'retired', 'rejected', 'rolled_back')),
    card          json NOT NULL,
    content_hash  text NOT NULL,
    direction     text NOT NULL DEFAULT 'higher_is_safer' CHECK (direction = 'higher_is_safer'),
    base_version  text REFERENCES kycc.scorecard_versions,
    model_id      text REFERENCES kycc.trainings,
    blend_factor  double precision CHECK (blend_factor BETWEEN 0 AND 1),
    gates         jsonb NOT NULL DEFAULT '[]',
    details       jsonb NOT NULL DEFAULT '{}',
    created_by    text NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    -- The first of two persons, where activation needs two.
    requested_by  text,
    activated_by  text,
    activated_at  timestamptz,
    -- Which version was active before this one: where rolling it back leads.
    predecessor   text REFERENCES kycc.scorecard_versions,
    ended_at      timestamptz,
    note          text NOT NULL DEFAULT '',
    CHECK (status <> 'active' OR activated_at IS NOT NULL)
);
CREATE UNIQUE INDEX scorecard_versions_one_active ON kycc.scorecard_versions ((true)) WHERE status = 'active';
-- Refining with the same model, base and blend again finds the version it made before.
CREATE UNIQUE INDEX scorecard_versions_origin ON kycc.scorecard_versions (model_id, base_version, blend_factor);
"""

EXACTLY_ONE = """
CREATE FUNCTION kycc.require_active_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM kycc.scorecard_versions WHERE status = 'active') THEN
        RAISE EXCEPTION 'no scorecard version would be active' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER exactly_one_active AFTER INSERT OR UPDATE OR DELETE ON kycc.scorecard_versions
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION kycc.require_active_version();
"""

IMMUTABLE = """
CREATE FUNCTION kycc.keep_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR (NEW.version, NEW.card::text, NEW.content_hash, NEW.base_version, NEW.model_id,
        NEW.blend_factor, NEW.gates, NEW.details, NEW.created_by, NEW.created_at) IS DISTINCT FROM
       (OLD.version, OLD.card::text, OLD.content_hash, OLD.base_version, OLD.model_id,
        OLD.blend_factor, OLD.gates, OLD.details, OLD.created_by, OLD.created_at) THEN
        RAISE EXCEPTION 'scorecard version % is kept as it was made', OLD.version USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF OLD.status = 'rejected' AND NEW.status <> 'rejected' THEN
        RAISE EXCEPTION 'scorecard version % was rejected', OLD.version USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER keep_version BEFORE UPDATE OR DELETE ON kycc.scorecard_versions
    FOR EACH ROW EXECUTE FUNCTION kycc.keep_version();
"""


def upgrade() -> None:
    for statements in (TRAININGS, VERSIONS, EXACTLY_ONE, IMMUTABLE):
        op.execute(statements)
