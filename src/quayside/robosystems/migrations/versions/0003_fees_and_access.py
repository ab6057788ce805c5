"""Monthly prices of plans become invoice lines; who may read which shared repository."""

from alembic import op

revision = "0003"
down_revision = "0002"

FEES = """
-- The first day whose share of the plan's monthly price is invoiced here. Null: it is paid elsewhere, as all were so far.
ALTER TABLE robosystems.subscriptions ADD COLUMN fees_from date;
CREATE INDEX plan_changes_effective ON robosystems.plan_changes (effective_at);

-- A fee is billed once per subscription, month and plan, and again only in the place of a line that was voided.
ALTER TABLE robosystems.invoice_lines
    ADD COLUMN plan text,
    ADD COLUMN replaces bigint UNIQUE REFERENCES robosystems.invoice_lines,
    ADD CHECK ((kind = 'subscription') = (subscription_id IS NOT NULL AND plan IS NOT NULL)),
    ADD CHECK (replaces IS NULL OR kind = 'subscription');
DROP INDEX robosystems.invoice_lines_fee_once;
CREATE UNIQUE INDEX invoice_lines_fee_once ON robosystems.invoice_lines (subscription_id, period, plan)
    WHERE kind = 'subscription' AND replaces IS NULL;
CREATE INDEX invoice_lines_fees ON robosystems.invoice_lines (subscription_id, period) WHERE kind = 'subscription';

CREATE FUNCTION robosystems.check_replaced() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM robosystems.invoice_lines AS l JOIN robosystems.invoices AS i ON i.id = l.invoice_id
                   WHERE l.id = NEW.replaces AND i.state = 'void'
                     AND (l.subscription_id, l.period, l.plan) = (NEW.subscription_id, NEW.period, NEW.plan)) THEN
        RAISE EXCEPTION 'line % is not the voided one of the same subscription, month and plan', NEW.replaces
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER replaces_voided BEFORE INSERT ON robosystems.invoice_lines FOR EACH ROW
    WHEN (NEW.replaces IS NOT NULL) EXECUTE FUNCTION robosystems.check_replaced();
"""

# Access to a shared repository is what the state of the subscription says, so there is nothing to grant or to take back.
ACCESS = """
CREATE VIEW robosystems.repository_access AS
    SELECT g.graph_id AS repository, substr(s.graph_id, strpos(s.graph_id, ':') + 1) AS user_id, s.graph_id AS account,
           s.subscription_id, s.customer_id, s.plan, s.activated_at AS since, s.ends_at AS until
    FROM robosystems.subscriptions AS s
    JOIN robosystems.graphs AS g ON g.graph_id = split_part(s.graph_id, ':', 1) AND g.kind = 'repository'
    WHERE s.resource_type = 'repository' AND s.activated_at IS NOT NULL AND g.deleted_at IS NULL
      AND (s.state IN ('active', 'past_due') OR (s.state = 'canceled' AND s.ends_at > clock_timestamp()));
"""


def upgrade() -> None:
    for statements in (FEES, ACCESS):
        op.execute(statements)
