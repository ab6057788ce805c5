"""Subscriptions move only as allowed and never without a line in their history; keys say what they were hashed with."""

from alembic import op

revision = "0002"
down_revision = "0001"

# The same table as quayside.robosystems.subscriptions.states; a test holds one to the other.
MOVES = """
CREATE TABLE robosystems.subscription_moves (from_state text, to_state text NOT NULL, UNIQUE (from_state, to_state));
INSERT INTO robosystems.subscription_moves (from_state, to_state) VALUES
    ('pending', 'pending_payment'), ('pending', 'provisioning'), ('pending', 'canceled'),
    ('pending_payment', 'provisioning'), ('pending_payment', 'canceled'), ('pending_payment', 'failed'),
    ('provisioning', 'active'), ('provisioning', 'failed'), ('provisioning', 'canceled'),
    ('active', 'past_due'), ('active', 'paused'), ('active', 'canceled'),
    ('past_due', 'active'), ('past_due', 'paused'), ('past_due', 'canceled'),
    ('paused', 'active'), ('paused', 'past_due'), ('paused', 'canceled'),
    ('canceled', 'active'), ('canceled', 'ended'),
    ('failed', 'provisioning'), ('failed', 'ended');
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON robosystems.subscription_moves
    FOR EACH STATEMENT EXECUTE FUNCTION robosystems.refuse_change();

CREATE FUNCTION robosystems.check_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM robosystems.subscription_moves AS m
                   WHERE m.from_state = OLD.state AND m.to_state = NEW.state) THEN
        RAISE EXCEPTION 'subscription % is % and cannot become %', OLD.subscription_id, OLD.state, NEW.state
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF NEW.version <> OLD.version + 1 THEN
        RAISE EXCEPTION 'subscription % moves from version % to the next, not to %', OLD.subscription_id, OLD.version,
            NEW.version USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER allowed_move BEFORE UPDATE ON robosystems.subscriptions FOR EACH ROW
    WHEN (NEW.state <> OLD.state) EXECUTE FUNCTION robosystems.check_move();

CREATE FUNCTION robosystems.check_history() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM robosystems.subscription_transitions AS t
                   WHERE t.subscription_id = NEW.subscription_id AND t.version = NEW.version
                     AND t.from_state = OLD.state AND t.to_state = NEW.state) THEN
        RAISE EXCEPTION 'subscription % became % and its history does not say so', NEW.subscription_id, NEW.state
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER in_history AFTER UPDATE ON robosystems.subscriptions DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.state <> OLD.state) EXECUTE FUNCTION robosystems.check_history();
CREATE FUNCTION robosystems.keep_subscription() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'subscriptions are not deleted: end it' USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER kept BEFORE DELETE ON robosystems.subscriptions
    FOR EACH ROW EXECUTE FUNCTION robosystems.keep_subscription();
CREATE INDEX subscriptions_ends_at ON robosystems.subscriptions (ends_at) WHERE state = 'canceled';
"""

# Whoever caches keys listens: a key that was changed or deleted is told at the moment of the commit.
KEYS = """
ALTER TABLE robosystems.api_keys
    -- Tells which secret the hash was made with, so that another secret is said to be that and not a wrong key.
    ADD COLUMN secret_id text NOT NULL DEFAULT '';
CREATE FUNCTION robosystems.tell_key_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('robosystems_api_keys', OLD.key_id);
    RETURN NULL;
END
$$;
CREATE TRIGGER tell AFTER DELETE ON robosystems.api_keys
    FOR EACH ROW EXECUTE FUNCTION robosystems.tell_key_change();
CREATE TRIGGER tell_update AFTER UPDATE ON robosystems.api_keys FOR EACH ROW
    WHEN ((NEW.key_hash, NEW.expires_at, NEW.deactivated_at) IS DISTINCT FROM
          (OLD.key_hash, OLD.expires_at, OLD.deactivated_at))
    EXECUTE FUNCTION robosystems.tell_key_change();
"""


def upgrade() -> None:
    for statements in (MOVES, KEYS):
        op.execute(statements)
