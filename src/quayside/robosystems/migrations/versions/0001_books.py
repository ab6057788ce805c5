"""Customers, graphs and subscriptions; plans and prices; the double-entry books; usage; invoices; keys."""

from alembic import op

revision = "0001"
down_revision = None

REFUSE = """
CREATE FUNCTION robosystems.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%.% is append-only: % is refused', TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'insufficient_privilege';
END
$$;
"""

# Divides exactly and rounds half to even; PostgreSQL's own round() goes away from zero.
ROUNDING = """
CREATE FUNCTION robosystems.half_even(numerator numeric, denominator numeric, places int) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$  -- one expression, which is put in place of every call
    SELECT (div(numerator * 10::numeric ^ places, denominator)
            + CASE WHEN 2 * mod(numerator * 10::numeric ^ places, denominator) > denominator THEN 1
                   WHEN 2 * mod(numerator * 10::numeric ^ places, denominator) = denominator
                   THEN mod(div(numerator * 10::numeric ^ places, denominator), 2) ELSE 0 END)
           * round(10::numeric ^ (-places), places)
$$;
"""

CUSTOMERS = """
CREATE TABLE robosystems.customers (
    customer_id    text PRIMARY KEY CHECK (customer_id <> ''),
    name           text NOT NULL,
    email          text,
    payment_terms  text NOT NULL DEFAULT 'net_30'
                   CHECK (payment_terms IN ('immediate', 'net_15', 'net_30', 'net_60', 'net_90')),
    created_at     timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE robosystems.graphs (
    graph_id         text PRIMARY KEY CHECK (graph_id <> ''),
    customer_id      text NOT NULL REFERENCES robosystems.customers,
    name             text NOT NULL DEFAULT '',
    kind             text NOT NULL DEFAULT 'generic' CHECK (kind IN ('generic', 'entity', 'repository')),
    parent_graph_id  text REFERENCES robosystems.graphs,  -- of a subgraph, which draws on its parent's credits
    schema_name      text,
    created_at       timestamptz NOT NULL DEFAULT now(),
    deleted_at       timestamptz
);
CREATE INDEX graphs_customer ON robosystems.graphs (customer_id);
CREATE INDEX graphs_parent ON robosystems.graphs (parent_graph_id) WHERE parent_graph_id IS NOT NULL;
"""

SUBSCRIPTIONS = """
CREATE TABLE robosystems.subscriptions (
    subscription_id  text PRIMARY KEY CHECK (subscription_id <> ''),
    customer_id      text NOT NULL REFERENCES robosystems.customers,
    resource_type    text NOT NULL DEFAULT 'graph' CHECK (resource_type IN ('graph', 'repository')),
    -- The graph, or "<repository>:<user>"; known once it is provisioned.
    graph_id         text CHECK (graph_id <> ''),
    plan             text NOT NULL,
    plan_at          timestamptz NOT NULL DEFAULT now(),
    state            text NOT NULL CHECK (state IN ('pending', 'pending_payment', 'provisioning', 'active', 'past_due',
                                                    'paused', 'canceled', 'ended', 'failed')),
    state_at         timestamptz NOT NULL DEFAULT now(),
    version          integer NOT NULL DEFAULT 1 CHECK (version >= 1),
    attempt          integer NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    next_attempt_at  timestamptz,
    last_error       text,
    -- What was ordered: name, kind, schema …
    request          jsonb NOT NULL DEFAULT '{}',
    created_by       text NOT NULL DEFAULT 'quayside',
    created_at       timestamptz NOT NULL DEFAULT now(),
    activated_at     timestamptz,
    canceled_at      timestamptz,
    ends_at          timestamptz,
    CHECK (state NOT IN ('active', 'past_due', 'paused') OR (graph_id IS NOT NULL AND activated_at IS NOT NULL))
);
CREATE UNIQUE INDEX subscriptions_one_of_a_graph ON robosystems.subscriptions (graph_id)
    WHERE state NOT IN ('ended', 'failed');
CREATE INDEX subscriptions_state ON robosystems.subscriptions (state, created_at) WHERE state NOT IN ('active', 'ended');
CREATE INDEX subscriptions_customer ON robosystems.subscriptions (customer_id);

-- Every state and every plan a subscription was in; billing of the past asks here.
CREATE TABLE robosystems.subscription_transitions (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subscription_id  text NOT NULL REFERENCES robosystems.subscriptions,
    from_state       text,
    to_state         text NOT NULL,
    version          integer NOT NULL,
    at               timestamptz NOT NULL,
    actor            text NOT NULL,
    reason           text NOT NULL DEFAULT '',
    UNIQUE (subscription_id, version)
);
CREATE TABLE robosystems.plan_changes (
    subscription_id  text NOT NULL REFERENCES robosystems.subscriptions,
    effective_at     timestamptz NOT NULL,
    from_plan        text,
    plan             text NOT NULL,
    actor            text NOT NULL,
    PRIMARY KEY (subscription_id, effective_at)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON robosystems.subscription_transitions
    FOR EACH STATEMENT EXECUTE FUNCTION robosystems.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON robosystems.plan_changes
    FOR EACH STATEMENT EXECUTE FUNCTION robosystems.refuse_change();
"""

PRICES = """
CREATE TABLE robosystems.plans (
    plan              text NOT NULL CHECK (plan <> ''),
    effective_from    timestamptz NOT NULL,
    family            text NOT NULL CHECK (family IN ('graph', 'repository')),
    price_cents       bigint NOT NULL CHECK (price_cents >= 0),
    credits           numeric(24, 6) NOT NULL CHECK (credits >= 0),
    included_gb       integer NOT NULL CHECK (included_gb >= 0),
    -- How much of a month's unused allowance is carried over, once, into the next month.
    rollover_credits  numeric(24, 6) NOT NULL CHECK (rollover_credits >= 0),
    created_by        text NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (plan, effective_from)
);
-- "overage.credit_usd": USD for a credit of debt. "storage.gb_day": credits for a GB-day above the plan's included GB.
-- "event.<kind>": credits for one unit of that kind in usage.events.
CREATE TABLE robosystems.prices (
    code            text NOT NULL CHECK (code <> ''),
    effective_from  timestamptz NOT NULL,
    value           numeric(24, 9) NOT NULL CHECK (value >= 0),
    created_by      text NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (code, effective_from)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON robosystems.plans
    FOR EACH STATEMENT EXECUTE FUNCTION robosystems.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON robosystems.prices
    FOR EACH STATEMENT EXECUTE FUNCTION robosystems.refuse_change();

INSERT INTO robosystems.plans (plan, effective_from, family, price_cents, credits, included_gb, rollover_credits, created_by)
VALUES ('standard', '2000-01-01Z', 'graph', 5000, 8000, 10, 8000, 'quayside'),
       ('large', '2000-01-01Z', 'graph', 30000, 32000, 50, 32000, 'quayside'),
       ('xlarge', '2000-01-01Z', 'graph', 70000, 100000, 100, 100000, 'quayside'),
       ('starter', '2000-01-01Z', 'repository', 2900, 5000, 0, 5000, 'quayside'),
       ('advanced', '2000-01-01Z', 'repository', 9900, 17000, 0, 17000, 'quayside'),
       ('unlimited', '2000-01-01Z', 'repository', 49900, 85000, 0, 85000, 'quayside');
INSERT INTO robosystems.prices (code, effective_from, value, created_by)
VALUES ('overage.credit_usd', '2000-01-01Z', 0.005, 'quayside'),
       ('storage.gb_day', '2000-01-01Z', 1, 'quayside'),
       ('event.kycc.party_scored', '2000-01-01Z', 0.1, 'quayside');
"""

# The system's own accounts have the numbers below 100 and no stored balance: a row that every transfer changes would
# let one consumer through at a time. Theirs is the sum of their entries (view balances).
ACCOUNTS = """
CREATE TABLE robosystems.accounts (
    id            bigint GENERATED ALWAYS AS IDENTITY (START WITH 100) PRIMARY KEY,
    name          text NOT NULL UNIQUE CHECK (name <> ''),
    -- Null for the system's own accounts. "<repository>:<user>" for the pool of a shared repository's user.
    graph_id      text UNIQUE,
    may_overdraw  boolean NOT NULL DEFAULT false,
    -- These five are written by triggers alone: see transfers and reservations.
    balance       numeric(24, 6) NOT NULL DEFAULT 0,
    held          numeric(24, 6) NOT NULL DEFAULT 0 CHECK (held >= 0),
    seq           bigint NOT NULL DEFAULT 0 CHECK (seq >= 0),
    booked_at     timestamptz NOT NULL DEFAULT '-infinity',
    opened_at     timestamptz NOT NULL DEFAULT now(),
    opened_by     text NOT NULL,
    CHECK ((id < 100) = (graph_id IS NULL)),
    CHECK (graph_id IS NOT NULL OR (balance = 0 AND seq = 0 AND held = 0))
) WITH (fillfactor = 50);  -- room beside each row, so that a new balance stays on its page and out of the indexes

INSERT INTO robosystems.accounts (id, name, may_overdraw, opened_by) OVERRIDING SYSTEM VALUE
VALUES (1, 'allowance', true, 'quayside'), (2, 'consumption', true, 'quayside'), (3, 'overage', true, 'quayside'),
       (4, 'expired', true, 'quayside'), (5, 'adjustments', true, 'quayside');

CREATE FUNCTION robosystems.keep_account() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the balance of account % follows from its transfers and cannot be set', OLD.name
        USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER balance_follows_transfers BEFORE UPDATE ON robosystems.accounts FOR EACH ROW
    WHEN (pg_trigger_depth() = 0 AND (NEW.id, NEW.name, NEW.graph_id, NEW.balance, NEW.held, NEW.seq, NEW.booked_at)
          IS DISTINCT FROM (OLD.id, OLD.name, OLD.graph_id, OLD.balance, OLD.held, OLD.seq, OLD.booked_at))
    EXECUTE FUNCTION robosystems.keep_account();
CREATE FUNCTION robosystems.open_empty() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'account % has to be opened empty', NEW.name USING ERRCODE = 'check_violation';
END
$$;
CREATE TRIGGER opens_empty BEFORE INSERT ON robosystems.accounts FOR EACH ROW
    WHEN (NEW.balance <> 0 OR NEW.held <> 0 OR NEW.seq <> 0 OR NEW.booked_at <> '-infinity')
    EXECUTE FUNCTION robosystems.open_empty();
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON robosystems.accounts
    FOR EACH STATEMENT EXECUTE FUNCTION robosystems.refuse_change();
"""

# One row is a whole transfer: what leaves one account arrives in the other, so no set of rows can be out of balance.
# Each has a customer's account on one side and one of the system's on the other. Per customer's account the rows are
# numbered without a gap and carry the balance they led to.
# Brings the accounts up to new rows of transfers, where these continue the account's book; counts what it found.
_APPLY = """
        WITH moved AS (
            SELECT account_id, count(*) AS entries, min(seq) AS first, max(seq) AS last, min(booked_at) AS since,
                   max(booked_at) AS until, sum(CASE WHEN to_account = account_id THEN amount ELSE -amount END) AS change,
                   CASE WHEN count(*) = 1 THEN max(balance_after) END AS outcome
            FROM new_transfers GROUP BY account_id
        ), applied AS (
            UPDATE robosystems.accounts AS a
            SET balance = a.balance + m.change, seq = m.last, booked_at = m.until
            FROM moved AS m
            WHERE a.id = m.account_id AND a.graph_id IS NOT NULL AND m.first = a.seq + 1
              AND m.last - a.seq = m.entries AND m.since >= a.booked_at
              AND coalesce(m.outcome = a.balance + m.change, true)
            RETURNING 1
        )
        SELECT count(*), (SELECT count(*) FROM applied), max(entries) FROM moved
"""

TRANSFERS = f"""
CREATE TABLE robosystems.transfers (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key            text NOT NULL UNIQUE CHECK (key <> ''),
    kind           text NOT NULL,
    operation      text NOT NULL DEFAULT '',
    from_account   bigint NOT NULL,
    to_account     bigint NOT NULL,
    account_id     bigint NOT NULL GENERATED ALWAYS AS (greatest(from_account, to_account)) STORED,
    amount         numeric(24, 6) NOT NULL CHECK (amount > 0),
    seq            bigint NOT NULL,
    balance_after  numeric(24, 6) NOT NULL,
    effective_at   timestamptz NOT NULL,
    booked_at      timestamptz NOT NULL,
    period         date NOT NULL,
    reverses       bigint,
    actor          text NOT NULL CHECK (actor <> ''),
    run_id         text,
    metadata       jsonb,
    CONSTRAINT transfers_sides CHECK (least(from_account, to_account) BETWEEN 1 AND 5
                                      AND greatest(from_account, to_account) >= 100),
    CONSTRAINT transfers_kind CHECK (CASE kind
        WHEN 'allowance' THEN from_account = 1
        WHEN 'grant' THEN from_account = 5
        WHEN 'rollover' THEN from_account = 4
        WHEN 'overage' THEN from_account = 3
        WHEN 'storage' THEN to_account = 2
        WHEN 'consumption' THEN to_account = 2
        WHEN 'expiry' THEN to_account = 4
        WHEN 'adjustment' THEN least(from_account, to_account) = 5
        WHEN 'refund' THEN from_account = 2 AND reverses IS NOT NULL
        WHEN 'void' THEN reverses IS NOT NULL
        ELSE false END),
    CONSTRAINT transfers_reversal CHECK (reverses IS NULL OR kind IN ('refund', 'void')),
    CONSTRAINT transfers_order UNIQUE (account_id, seq)
);
CREATE INDEX transfers_booked_at ON robosystems.transfers USING brin (booked_at) WITH (pages_per_range = 32);
CREATE INDEX transfers_reverses ON robosystems.transfers (reverses) WHERE reverses IS NOT NULL;

CREATE FUNCTION robosystems.apply_transfers() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    inserted bigint;
    account bigint;
    number bigint;
    booked timestamptz;
    change numeric;
    outcome numeric;
    reversed bigint;
    wanted bigint := 1;
    applied bigint;
    longest bigint := 1;
BEGIN
    SELECT count(*), min(account_id), min(seq), min(booked_at),
           min(CASE WHEN to_account = account_id THEN amount ELSE -amount END), min(balance_after), count(reverses)
    INTO inserted, account, number, booked, change, outcome, reversed FROM new_transfers;
    IF inserted = 0 THEN
        RETURN NULL;
    ELSIF inserted = 1 THEN  -- the same for a single row, as a consumption is: half of the time it takes
        UPDATE robosystems.accounts AS a SET balance = outcome, seq = number, booked_at = booked
        WHERE a.id = account AND a.graph_id IS NOT NULL AND a.seq = number - 1 AND a.booked_at <= booked
          AND a.balance + change = outcome;
        GET DIAGNOSTICS applied = ROW_COUNT;
    ELSE  -- planned anew, for the number of rows at hand
        EXECUTE $apply${_APPLY}$apply$ INTO wanted, applied, longest;
    END IF;
    IF wanted <> applied THEN
        RAISE EXCEPTION 'transfers do not continue the book of their account (% of % accounts)', wanted - applied, wanted
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF longest > 1 AND EXISTS (
        SELECT FROM (
            SELECT t.balance_after, CASE WHEN t.to_account = t.account_id THEN t.amount ELSE -t.amount END AS change,
                   lag(t.balance_after) OVER book AS before, lag(t.booked_at) OVER book > t.booked_at AS back,
                   lead(t.id) OVER book IS NULL AND t.balance_after <> a.balance AS astray
            FROM new_transfers AS t JOIN robosystems.accounts AS a ON a.id = t.account_id
            WINDOW book AS (PARTITION BY t.account_id ORDER BY t.seq)
        ) AS line WHERE line.balance_after <> line.before + line.change OR line.back OR line.astray
    ) THEN
        RAISE EXCEPTION 'balances of transfers do not follow from one another'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF reversed > 0 AND EXISTS (
        SELECT FROM new_transfers AS t LEFT JOIN robosystems.transfers AS o ON o.id = t.reverses
        WHERE t.reverses IS NOT NULL AND (
            o.id IS NULL OR o.from_account <> t.to_account OR o.to_account <> t.from_account OR o.kind = 'void'
            OR o.amount < (SELECT sum(r.amount) FROM robosystems.transfers AS r WHERE r.reverses = o.id))
    ) THEN
        RAISE EXCEPTION 'a reversal has to go the opposite way of its transfer, up to its amount'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER apply AFTER INSERT ON robosystems.transfers REFERENCING NEW TABLE AS new_transfers
    FOR EACH STATEMENT EXECUTE FUNCTION robosystems.apply_transfers();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON robosystems.transfers
    FOR EACH STATEMENT EXECUTE FUNCTION robosystems.refuse_change();
REVOKE UPDATE, DELETE, TRUNCATE ON robosystems.transfers FROM PUBLIC, CURRENT_USER;

CREATE VIEW robosystems.entries AS
    SELECT id AS transfer_id, from_account AS account_id, -amount AS amount, kind, booked_at FROM robosystems.transfers
    UNION ALL
    SELECT id, to_account, amount, kind, booked_at FROM robosystems.transfers;
CREATE VIEW robosystems.balances AS
    SELECT a.id, a.name, a.graph_id,
           CASE WHEN a.graph_id IS NULL
                THEN coalesce((SELECT sum(e.amount) FROM robosystems.entries AS e WHERE e.account_id = a.id), 0)
                ELSE a.balance END AS balance
    FROM robosystems.accounts AS a;
"""  # noqa: S608 - made of a constant of this module

# Which grant a debit drew on is settled late: what the grants of an account hold beyond its balance was drawn from them
# in their order (view grant_positions), and is written down before that order changes. A debit therefore costs no write here.
GRANTS = """
CREATE TABLE robosystems.grants (
    transfer_id       bigint PRIMARY KEY,
    account_id        bigint NOT NULL,
    source            text NOT NULL CHECK (source IN ('allowance', 'purchase', 'promotion', 'rollover', 'refund',
                                                      'adjustment')),
    amount            numeric(24, 6) NOT NULL CHECK (amount > 0),
    remaining         numeric(24, 6) NOT NULL CHECK (remaining BETWEEN 0 AND amount),
    priority          smallint NOT NULL DEFAULT 50 CHECK (priority BETWEEN 0 AND 100),
    granted_at        timestamptz NOT NULL,
    expires_at        timestamptz NOT NULL DEFAULT 'infinity',
    rollover_credits  numeric(24, 6) NOT NULL DEFAULT 0 CHECK (rollover_credits >= 0),
    rollover_until    timestamptz,
    CHECK (expires_at > granted_at),
    CHECK (rollover_credits = 0 OR rollover_until > expires_at)
) WITH (fillfactor = 80);
CREATE INDEX grants_open ON robosystems.grants (account_id) WHERE remaining > 0;
CREATE INDEX grants_expiry ON robosystems.grants (expires_at) WHERE remaining > 0 AND expires_at < 'infinity';

CREATE FUNCTION robosystems.keep_grant() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a grant can only be drawn down' USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER only_drawn_down BEFORE UPDATE ON robosystems.grants FOR EACH ROW
    WHEN (NEW.remaining > OLD.remaining
          OR (NEW.transfer_id, NEW.account_id, NEW.source, NEW.amount, NEW.priority, NEW.granted_at, NEW.expires_at,
              NEW.rollover_credits, NEW.rollover_until)
             IS DISTINCT FROM (OLD.transfer_id, OLD.account_id, OLD.source, OLD.amount, OLD.priority, OLD.granted_at,
              OLD.expires_at, OLD.rollover_credits, OLD.rollover_until))
    EXECUTE FUNCTION robosystems.keep_grant();
CREATE TRIGGER starts_whole BEFORE INSERT ON robosystems.grants FOR EACH ROW
    WHEN (NEW.remaining <> NEW.amount) EXECUTE FUNCTION robosystems.keep_grant();
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON robosystems.grants
    FOR EACH STATEMENT EXECUTE FUNCTION robosystems.refuse_change();

CREATE VIEW robosystems.grant_positions AS
    SELECT g.*, g.remaining - least(g.remaining, greatest(0,
               sum(g.remaining) OVER (PARTITION BY g.account_id) - greatest(a.balance, 0)
               - (sum(g.remaining) OVER draw - g.remaining))) AS left_over
    FROM robosystems.grants AS g JOIN robosystems.accounts AS a ON a.id = g.account_id
    WHERE g.remaining > 0
    WINDOW draw AS (PARTITION BY g.account_id ORDER BY g.priority, g.expires_at, g.granted_at, g.transfer_id);
"""

RESERVATIONS = """
CREATE TABLE robosystems.reservations (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key          text NOT NULL UNIQUE CHECK (key <> ''),
    account_id   bigint NOT NULL REFERENCES robosystems.accounts,
    operation    text NOT NULL DEFAULT '',
    amount       numeric(24, 6) NOT NULL CHECK (amount > 0),
    state        text NOT NULL DEFAULT 'held' CHECK (state IN ('held', 'captured', 'released', 'expired')),
    held_at      timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL CHECK (expires_at > held_at),
    ended_at     timestamptz,
    actor        text NOT NULL,
    CHECK ((state = 'held') = (ended_at IS NULL))
);
CREATE INDEX reservations_held ON robosystems.reservations (account_id, expires_at) WHERE state = 'held';

CREATE FUNCTION robosystems.apply_reservation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND (OLD.state <> 'held' OR (NEW.id, NEW.key, NEW.account_id, NEW.amount, NEW.held_at, NEW.expires_at)
       IS DISTINCT FROM (OLD.id, OLD.key, OLD.account_id, OLD.amount, OLD.held_at, OLD.expires_at)) THEN
        RAISE EXCEPTION 'reservation % is over or was made otherwise', OLD.key USING ERRCODE = 'insufficient_privilege';
    END IF;
    UPDATE robosystems.accounts SET held = held
        + CASE WHEN NEW.state = 'held' THEN NEW.amount ELSE 0 END
        - CASE WHEN TG_OP = 'UPDATE' THEN OLD.amount ELSE 0 END
    WHERE id = NEW.account_id;
    RETURN NULL;
END
$$;
CREATE TRIGGER apply AFTER INSERT OR UPDATE ON robosystems.reservations
    FOR EACH ROW EXECUTE FUNCTION robosystems.apply_reservation();
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON robosystems.reservations
    FOR EACH STATEMENT EXECUTE FUNCTION robosystems.refuse_change();
"""

USAGE = """
CREATE TABLE robosystems.usage_snapshots (
    hour             timestamptz NOT NULL CHECK (hour = date_trunc('hour', hour, 'UTC')),
    account_id       bigint NOT NULL,
    files_bytes      bigint CHECK (files_bytes >= 0),
    tables_bytes     bigint CHECK (tables_bytes >= 0),
    graph_bytes      bigint CHECK (graph_bytes >= 0),
    subgraphs_bytes  bigint CHECK (subgraphs_bytes >= 0),
    total_bytes      bigint GENERATED ALWAYS AS (files_bytes + tables_bytes + graph_bytes + subgraphs_bytes) STORED,
    -- As they were in that hour.
    plan             text NOT NULL,
    included_gb      integer NOT NULL CHECK (included_gb >= 0),
    -- Why it could not be measured; such an hour has no size, which is not the same as a size of 0.
    problem          text,
    measured_at      timestamptz NOT NULL,
    run_id           text,
    PRIMARY KEY (hour, account_id),
    CHECK ((problem IS NULL) = (total_bytes IS NOT NULL))
);

-- One row per graph and day once it is billed, also where nothing was due.
CREATE TABLE robosystems.storage_bills (
    account_id      bigint NOT NULL,
    day             date NOT NULL,
    hours_measured  smallint NOT NULL CHECK (hours_measured BETWEEN 1 AND 24),
    byte_hours      numeric NOT NULL,
    included_gb_hours integer NOT NULL,
    credits         numeric(24, 6) NOT NULL CHECK (credits >= 0),
    billed_at       timestamptz NOT NULL,
    actor           text NOT NULL,
    run_id          text,
    PRIMARY KEY (account_id, day)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON robosystems.storage_bills
    FOR EACH STATEMENT EXECUTE FUNCTION robosystems.refuse_change();

-- Who pays for a subject of usage.events; a subject that is a graph's id needs no row.
CREATE TABLE robosystems.usage_subjects (
    subject     text PRIMARY KEY,
    account_id  bigint NOT NULL REFERENCES robosystems.accounts,
    created_by  text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);
-- Events of usage.events that were metered. "held": there is no account or no price for it yet.
CREATE TABLE robosystems.metered_events (
    source      text NOT NULL,
    event_id    text NOT NULL,
    state       text NOT NULL CHECK (state IN ('billed', 'held')),
    reason      text CHECK ((state = 'held') = (reason IS NOT NULL)),
    account_id  bigint,
    credits     numeric CHECK (state = 'held' OR (credits IS NOT NULL AND account_id IS NOT NULL)),
    batch_id    bigint NOT NULL,
    PRIMARY KEY (source, event_id)
);
CREATE INDEX metered_events_held ON robosystems.metered_events (reason) WHERE state = 'held';
CREATE FUNCTION robosystems.keep_metered() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'event % was billed already', OLD.event_id USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER billed_once BEFORE UPDATE ON robosystems.metered_events FOR EACH ROW
    WHEN (OLD.state = 'billed') EXECUTE FUNCTION robosystems.keep_metered();
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON robosystems.metered_events
    FOR EACH STATEMENT EXECUTE FUNCTION robosystems.refuse_change();
CREATE SEQUENCE robosystems.meter_batches;
-- Up to when every event of usage.events was looked at.
CREATE TABLE robosystems.meter_progress (
    only_row        boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    recorded_until  timestamptz NOT NULL
);
INSERT INTO robosystems.meter_progress (recorded_until) VALUES ('2000-01-01Z');

CREATE TABLE robosystems.usage_reports (
    month       date PRIMARY KEY CHECK (extract(day FROM month) = 1),
    object_key  text NOT NULL,
    sha256      text NOT NULL,
    graphs      integer NOT NULL,
    made_at     timestamptz NOT NULL,
    run_id      text
);
"""

INVOICES = """
CREATE TABLE robosystems.invoice_series (
    series  text PRIMARY KEY,
    last    integer NOT NULL CHECK (last >= 0)
);
CREATE TABLE robosystems.invoices (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id  text NOT NULL REFERENCES robosystems.customers,
    state        text NOT NULL DEFAULT 'draft' CHECK (state IN ('draft', 'open', 'paid', 'void', 'uncollectible')),
    series       text,
    number       integer CHECK (number >= 1),
    period       date NOT NULL CHECK (extract(day FROM period) = 1),
    total_cents  bigint NOT NULL DEFAULT 0 CHECK (total_cents >= 0),
    issued_at    timestamptz,
    due_on       date,
    ended_at     timestamptz,
    payment_reference text,
    created_by   text NOT NULL,
    run_id       text,
    UNIQUE (series, number),
    CHECK ((series IS NULL) = (number IS NULL)),
    CHECK (state <> 'draft' OR number IS NULL),
    CHECK (state IN ('draft', 'void') OR (number IS NOT NULL AND issued_at IS NOT NULL AND due_on IS NOT NULL))
);
CREATE INDEX invoices_customer ON robosystems.invoices (customer_id, period);
CREATE TABLE robosystems.invoice_lines (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    invoice_id       bigint NOT NULL REFERENCES robosystems.invoices,
    kind             text NOT NULL CHECK (kind IN ('overage', 'subscription', 'other')),
    graph_id         text,
    subscription_id  text REFERENCES robosystems.subscriptions,
    period           date NOT NULL,
    description      text NOT NULL,
    quantity         numeric(24, 6) NOT NULL CHECK (quantity > 0),
    unit_usd         numeric(24, 9) NOT NULL CHECK (unit_usd >= 0),
    amount_cents     bigint NOT NULL CHECK (amount_cents >= 0),
    transfer_id      bigint UNIQUE,
    CHECK ((kind = 'overage') = (transfer_id IS NOT NULL))
);
CREATE INDEX invoice_lines_invoice ON robosystems.invoice_lines (invoice_id);
CREATE UNIQUE INDEX invoice_lines_overage_once ON robosystems.invoice_lines (graph_id, period) WHERE kind = 'overage';
CREATE UNIQUE INDEX invoice_lines_fee_once ON robosystems.invoice_lines (subscription_id, period)
    WHERE kind = 'subscription';

CREATE FUNCTION robosystems.keep_invoice() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'invoices are not deleted: void it' USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF NEW.state <> OLD.state AND (OLD.state, NEW.state) NOT IN (('draft', 'open'), ('draft', 'void'), ('open', 'paid'),
       ('open', 'void'), ('open', 'uncollectible'), ('uncollectible', 'paid'), ('uncollectible', 'void')) THEN
        RAISE EXCEPTION 'invoice %-% is % and cannot become %', OLD.series, OLD.number, OLD.state, NEW.state
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF OLD.number IS NOT NULL AND (NEW.customer_id, NEW.series, NEW.number, NEW.period, NEW.total_cents, NEW.issued_at)
       IS DISTINCT FROM (OLD.customer_id, OLD.series, OLD.number, OLD.period, OLD.total_cents, OLD.issued_at) THEN
        RAISE EXCEPTION 'invoice %-% was issued and cannot be changed', OLD.series, OLD.number
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER starts_as_draft BEFORE INSERT ON robosystems.invoices FOR EACH ROW
    WHEN (NEW.state <> 'draft') EXECUTE FUNCTION robosystems.refuse_change();
CREATE TRIGGER keep BEFORE UPDATE OR DELETE ON robosystems.invoices
    FOR EACH ROW EXECUTE FUNCTION robosystems.keep_invoice();
CREATE FUNCTION robosystems.lines_add_up() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    total bigint;
BEGIN
    SELECT coalesce(sum(amount_cents), 0) INTO total FROM robosystems.invoice_lines WHERE invoice_id = NEW.id;
    IF NEW.number IS NOT NULL AND NEW.total_cents <> total THEN
        RAISE EXCEPTION 'invoice %-% is over % cents and its lines over %', NEW.series, NEW.number, NEW.total_cents, total
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER lines_add_up AFTER INSERT OR UPDATE ON robosystems.invoices DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION robosystems.lines_add_up();
CREATE FUNCTION robosystems.keep_line() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' OR (SELECT state FROM robosystems.invoices WHERE id = NEW.invoice_id) <> 'draft' THEN
        RAISE EXCEPTION 'lines of an invoice are added while it is a draft, and kept' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER keep BEFORE INSERT OR UPDATE OR DELETE ON robosystems.invoice_lines
    FOR EACH ROW EXECUTE FUNCTION robosystems.keep_line();
-- The next number is one above the last, whoever asks: the row's lock is held until the invoice is committed.
CREATE FUNCTION robosystems.take_number() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO robosystems.invoice_series AS s (series, last) VALUES (NEW.series, 1)
    ON CONFLICT (series) DO UPDATE SET last = s.last + 1 RETURNING last INTO NEW.number;
    RETURN NEW;
END
$$;
CREATE TRIGGER take_number BEFORE UPDATE ON robosystems.invoices FOR EACH ROW
    WHEN (OLD.state = 'draft' AND NEW.state = 'open') EXECUTE FUNCTION robosystems.take_number();
"""

KEYS = """
CREATE TABLE robosystems.api_keys (
    key_id          text PRIMARY KEY,
    customer_id     text NOT NULL REFERENCES robosystems.customers,
    name            text NOT NULL DEFAULT '',
    prefix          text NOT NULL UNIQUE CHECK (prefix <> ''),
    key_hash        bytea NOT NULL,
    created_by      text NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    expires_at      timestamptz,
    last_used_at    timestamptz,
    deactivated_at  timestamptz
);
CREATE INDEX api_keys_customer ON robosystems.api_keys (customer_id);
CREATE INDEX api_keys_expiry ON robosystems.api_keys (expires_at) WHERE expires_at IS NOT NULL;
"""


def upgrade() -> None:
    for statements in (
        REFUSE,
        ROUNDING,
        CUSTOMERS,
        SUBSCRIPTIONS,
        PRICES,
        ACCOUNTS,
        TRANSFERS,
        GRANTS,
        RESERVATIONS,
        USAGE,
        INVOICES,
        KEYS,
    ):
        op.execute(statements)
