"""The control database: sources, tables, history, audit, and the view that says what is ready and why not.

Everything that must never be wrong is enforced here, so that SQL written by hand is held to it as well.
"""

from alembic import op

revision = "0001"
down_revision = None

FUNCTIONS = """
-- Parts are prefixed with their length, so that ("ab", "c") and ("a", "bc") differ; a missing part differs from an empty one.
CREATE FUNCTION control.key_of(VARIADIC parts text[]) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT encode(sha256(convert_to(string_agg(
        CASE WHEN part IS NULL THEN '-' ELSE octet_length(part) || ':' || part END, ',' ORDER BY place
    ), 'UTF8')), 'hex')
    FROM unnest(parts) WITH ORDINALITY AS p(part, place)
$$;

CREATE FUNCTION control.is_time_zone(zone text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    PERFORM now() AT TIME ZONE zone;
    -- PostgreSQL would also take POSIX rules such as "abc5", which no calendar knows.
    RETURN zone = 'UTC' OR zone LIKE '%/%';
EXCEPTION WHEN invalid_parameter_value THEN
    RETURN false;
END
$$;

-- A window: {"days": ["mon", ...], "from": "22:00", "to": "06:00", "zone": "Europe/Zurich"}. Without days every day counts;
-- a window that ends at or before its start goes on into the next day and belongs to the day it started on.
CREATE FUNCTION control.in_load_window(windows jsonb, at timestamptz) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_array_length(windows), 0) = 0 OR EXISTS (
        SELECT FROM jsonb_to_recordset(windows) AS w("days" jsonb, "from" time, "to" time, "zone" text),
            LATERAL (SELECT at AT TIME ZONE coalesce(w.zone, 'UTC') AS moment) l,
            LATERAL (SELECT w.days IS NULL OR w.days ? to_char(l.moment, 'dy') AS today,
                            w.days IS NULL OR w.days ? to_char(l.moment - interval '1 day', 'dy') AS yesterday) d
        WHERE CASE WHEN w."from" < w."to"
              THEN d.today AND l.moment::time >= w."from" AND l.moment::time < w."to"
              ELSE (d.today AND l.moment::time >= w."from") OR (d.yesterday AND l.moment::time < w."to") END
    )
$$;

CREATE FUNCTION control.describe_load_windows(windows jsonb) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT string_agg(concat_ws(' ',
        (SELECT string_agg(day, ',') FROM jsonb_array_elements_text(w.days) AS day),
        w."from" || '-' || w."to", coalesce(w.zone, 'UTC')), '; ')
    FROM jsonb_to_recordset(windows) AS w("days" jsonb, "from" text, "to" text, "zone" text)
$$;

CREATE FUNCTION control.load_windows_problem(windows jsonb) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
    w jsonb;
BEGIN
    IF windows IS NULL THEN RETURN NULL; END IF;
    IF jsonb_typeof(windows) <> 'array' THEN RETURN 'is not a list'; END IF;
    FOR w IN SELECT jsonb_array_elements(windows) LOOP
        IF jsonb_typeof(w) <> 'object' THEN RETURN format('holds %s, which is not an object', w); END IF;
        IF w - '{days,from,to,zone}'::text[] <> '{}'::jsonb THEN
            RETURN format('knows days, from, to and zone, not %s', w - '{days,from,to,zone}'::text[]);
        END IF;
        IF NOT (w ? 'from' AND w ? 'to') THEN RETURN format('%s has no from or no to', w); END IF;
        BEGIN
            PERFORM (w->>'from')::time, (w->>'to')::time;
        EXCEPTION WHEN data_exception THEN
            RETURN format('%s has a time that is none', w);
        END;
        IF NOT control.is_time_zone(coalesce(w->>'zone', 'UTC')) THEN
            RETURN format('%s names an unknown zone', w);
        END IF;
        IF w ? 'days' AND NOT (jsonb_typeof(w->'days') = 'array' AND w->'days' <> '[]'::jsonb
                AND w->'days' <@ '["mon","tue","wed","thu","fri","sat","sun"]'::jsonb) THEN
            RETURN format('%s has days other than mon to sun', w);
        END IF;
    END LOOP;
    RETURN NULL;
END
$$;
"""

SOURCES = """
CREATE TABLE control.table_control_dbconfig (
    db_config_key              text PRIMARY KEY CHECK (db_config_key ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$'),
    db_type                    text NOT NULL CONSTRAINT known_db_type CHECK (db_type IN (
                                   'postgresql', 'mysql', 'mariadb', 'mssql', 'oracle', 'snowflake', 'snowflake_pem',
                                   'clickhouse', 's3_iceberg', 'duckdb', 'sqlite', 'parquet', 'csv')),
    -- names of secrets, never secrets
    db_config_value            jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(db_config_value) = 'object'),
    db_kv_scope                text NOT NULL DEFAULT 'env' CHECK (db_kv_scope <> ''),
    default_target_schema      text,
    -- the source's protection; null: no limit
    max_concurrent_loads       integer CHECK (max_concurrent_loads > 0),
    max_connections            integer CHECK (max_connections > 0),
    statement_timeout_seconds  integer CHECK (statement_timeout_seconds > 0),
    load_windows               jsonb,
    application_name           text NOT NULL DEFAULT 'quayside dataloader' CHECK (length(application_name) BETWEEN 1 AND 63),
    -- The one switch: nothing is claimed, and what runs is told to stop.
    is_paused                  boolean NOT NULL DEFAULT false,
    paused_reason              text NOT NULL DEFAULT '',
    created_at                 timestamptz NOT NULL DEFAULT now(),
    create_user                text NOT NULL DEFAULT session_user,
    last_modified_at           timestamptz NOT NULL DEFAULT now(),
    last_modified_user         text NOT NULL DEFAULT session_user
);
"""

# One field of five: *, a value, a range, each with a step, in a list. The ranges of values are part of the expression.
_MINUTE = r"[0-5]?\d"
_HOUR = r"([01]?\d|2[0-3])"
_DAY = r"(0?[1-9]|[12]\d|3[01])"
_MONTH = r"(0?[1-9]|1[0-2]|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
_WEEKDAY = r"([0-7]|sun|mon|tue|wed|thu|fri|sat)"


def _field(value: str) -> str:
    item = rf"(\*|{value}(-{value})?)(/[1-9]\d?)?"
    return f"{item}(,{item})*"


CRON = r"^\s*" + r"\s+".join(_field(v) for v in (_MINUTE, _HOUR, _DAY, _MONTH, _WEEKDAY)) + r"\s*$"

TABLES = f"""
CREATE TABLE control.table_control (
    config_id                   bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    control_key                 text NOT NULL GENERATED ALWAYS AS (control.key_of(
                                    db_config_key, source_catalog, source_schema_name, source_table_name,
                                    load_cron, load_timezone)) STORED CONSTRAINT table_control_key UNIQUE,
    is_active                   boolean NOT NULL DEFAULT false,
    db_config_key               text REFERENCES control.table_control_dbconfig ON UPDATE CASCADE,
    source_catalog              text,
    source_schema_name          text,
    source_table_name           text NOT NULL CHECK (source_table_name <> ''),
    query                       text CHECK (btrim(query) <> ''),
    destination_catalog         text NOT NULL DEFAULT 'bronze' CONSTRAINT legal_destination_catalog
                                    CHECK (destination_catalog ~ '^[A-Za-z0-9_]{{1,128}}$'),
    destination_schema_name     text NOT NULL CONSTRAINT legal_destination_schema
                                    CHECK (destination_schema_name ~ '^[A-Za-z0-9_]{{1,128}}$'),
    destination_table_name      text NOT NULL CONSTRAINT legal_destination_table
                                    CHECK (destination_table_name ~ '^[A-Za-z0-9_]{{1,128}}$'),
    load_strategy               text NOT NULL DEFAULT 'full' CONSTRAINT known_load_strategy CHECK (load_strategy IN (
                                    'full', 'incremental', 'append_only', 'rolling', 'check_and_load',
                                    'chunked_backfill', 'scd2')),
    load_full                   boolean NOT NULL DEFAULT false,
    load_cron                   text CONSTRAINT legal_load_cron CHECK (load_cron ~* $cron${CRON}$cron$),
    load_timezone               text NOT NULL DEFAULT 'UTC',
    incremental_column          text CHECK (incremental_column <> ''),
    incremental_type            text CONSTRAINT known_incremental_type CHECK (incremental_type IN ('timestamp', 'integer')),
    incremental_value           text,
    incremental_lookback_hours  integer CHECK (incremental_lookback_hours >= 0),
    backfill_cursor             text,
    rolling_column              text CHECK (rolling_column <> ''),
    rolling_days                integer CHECK (rolling_days > 0),
    partition_column            text CHECK (partition_column <> ''),
    num_partitions              integer CHECK (num_partitions BETWEEN 1 AND 1000),
    lower_bound                 text,
    upper_bound                 text,
    -- names separated by commas; a name that holds a comma or a quote stands in double quotes
    primary_key_cols            text CHECK (btrim(primary_key_cols) <> ''),
    is_delete                   boolean NOT NULL DEFAULT false,
    delete_mode                 text NOT NULL DEFAULT 'soft' CONSTRAINT known_delete_mode CHECK (delete_mode IN ('soft', 'hard')),
    deletes_checked_at          timestamptz,
    schema_contract             text NOT NULL DEFAULT 'evolve' CONSTRAINT known_schema_contract
                                    CHECK (schema_contract IN ('evolve', 'freeze', 'discard_columns')),
    -- the higher one goes first
    priority                    integer NOT NULL DEFAULT 0,

    last_status                 text CONSTRAINT known_last_status
                                    CHECK (last_status IN ('Queued', 'In Progress', 'Succeeded', 'Failed')),
    last_status_date_time       timestamptz,
    last_load_date_time         timestamptz,
    next_load_date_time         timestamptz CHECK (isfinite(next_load_date_time)),
    last_status_message         text,
    last_dagster_run            text,
    last_databricks_run         text,
    -- attempts that failed since the last success
    retry_count                 integer NOT NULL DEFAULT 0 CHECK (retry_count >= 0),
    review_required             boolean NOT NULL DEFAULT false,
    staging_model_processed     boolean NOT NULL DEFAULT false,
    -- The fencing token: every claim makes a new one, and what is written for an older one is refused.
    attempt                     bigint NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    lease_expires_at            timestamptz,
    worker                      text,
    progress_phase              text,
    progress_rows               bigint CHECK (progress_rows >= 0),
    progress_rows_total         bigint CHECK (progress_rows_total >= 0),
    stop_requested              text,
    -- why load_cron gave no next time, or that it changed and the next time is still to be computed
    schedule_problem            text,
    schedule_changed            boolean NOT NULL DEFAULT false,

    created_at                  timestamptz NOT NULL DEFAULT now(),
    create_user                 text NOT NULL DEFAULT session_user,
    last_modified_at            timestamptz NOT NULL DEFAULT now(),
    last_modified_user          text NOT NULL DEFAULT session_user,

    CONSTRAINT running_has_a_lease CHECK (last_status NOT IN ('Queued', 'In Progress') OR lease_expires_at IS NOT NULL),
    CONSTRAINT review_is_of_failed CHECK (NOT review_required OR last_status IS NOT DISTINCT FROM 'Failed'),
    -- An inactive row may be a draft; an active one has what its strategy needs.
    CONSTRAINT strategy_needs_incremental_column CHECK (NOT is_active
        OR load_strategy NOT IN ('incremental', 'append_only', 'chunked_backfill')
        OR (incremental_column IS NOT NULL AND incremental_type IS NOT NULL)),
    CONSTRAINT strategy_needs_primary_key CHECK (NOT is_active OR primary_key_cols IS NOT NULL
        OR (load_strategy NOT IN ('incremental', 'rolling', 'chunked_backfill', 'scd2') AND NOT is_delete)),
    CONSTRAINT strategy_needs_rolling_column CHECK (NOT is_active OR load_strategy <> 'rolling'
        OR rolling_column IS NOT NULL)
);
CREATE INDEX table_control_due ON control.table_control (next_load_date_time)
    WHERE is_active AND (last_status IS NULL OR last_status = 'Succeeded');
CREATE INDEX table_control_running ON control.table_control (db_config_key, last_status)
    WHERE last_status IN ('Queued', 'In Progress');
CREATE INDEX table_control_source ON control.table_control (db_config_key);
CREATE INDEX table_control_schedule_changed ON control.table_control (config_id) WHERE schedule_changed;
-- Never two writers in one destination. Lake names do not distinguish upper and lower case.
CREATE UNIQUE INDEX table_control_one_writer ON control.table_control
    (lower(destination_catalog), lower(destination_schema_name), lower(destination_table_name))
    WHERE last_status IN ('Queued', 'In Progress');
CREATE INDEX table_control_destination ON control.table_control
    (lower(destination_catalog), lower(destination_schema_name), lower(destination_table_name));
"""

HISTORY = """
-- No foreign key: history outlives the row it is about.
CREATE TABLE control.historical_metadata (
    id                   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    config_id            bigint NOT NULL,
    control_key          text NOT NULL,
    attempt              bigint NOT NULL,
    run_id               text,
    db_config_key        text,
    source_catalog       text,
    source_schema        text,
    source_table         text NOT NULL,
    target_catalog       text NOT NULL,
    target_schema        text NOT NULL,
    target_table         text NOT NULL,
    load_strategy        text NOT NULL,
    load_full            boolean NOT NULL,
    due_time             timestamptz,
    load_queued_time     timestamptz NOT NULL DEFAULT clock_timestamp(),
    load_start_time      timestamptz,
    load_end_time        timestamptz,
    total_duration       double precision GENERATED ALWAYS AS
                             (extract(epoch FROM load_end_time - coalesce(load_start_time, load_queued_time))) STORED,
    load_status          text CHECK (load_status IN ('Succeeded', 'Failed', 'Cancelled')),
    log_message          text,
    rows_read            bigint,
    rows_written         bigint,
    rows_deleted         bigint,
    rows_total           bigint,
    bytes_written        bigint,
    cursor_before        text,
    cursor_after         text,
    -- the rest of the outcome: columns, changes of the schema, warnings
    result               jsonb,
    dagster_run          text,
    databricks_run       text,
    worker               text,
    created_at           timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT historical_metadata_attempt UNIQUE (config_id, attempt),
    CHECK ((load_status IS NULL) = (load_end_time IS NULL))
);
CREATE UNIQUE INDEX historical_metadata_one_open ON control.historical_metadata (config_id) WHERE load_status IS NULL;
CREATE INDEX historical_metadata_key ON control.historical_metadata (control_key, load_queued_time DESC);
CREATE INDEX historical_metadata_time ON control.historical_metadata (load_queued_time DESC);
"""

AUDIT = """
CREATE TABLE control.table_control_history (
    history_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subject         text NOT NULL CHECK (subject IN ('table', 'source')),
    config_id       bigint,
    control_key     text,
    db_config_key   text,
    changed_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_by      text NOT NULL,
    change_type     text NOT NULL CHECK (change_type IN ('INSERT', 'UPDATE', 'DELETE')),
    change_source   text NOT NULL,
    changed_fields  text[] NOT NULL,
    old_values      jsonb,
    new_values      jsonb
);
CREATE INDEX table_control_history_config ON control.table_control_history (config_id, changed_at DESC);
CREATE INDEX table_control_history_source ON control.table_control_history (db_config_key, changed_at DESC);
CREATE INDEX table_control_history_time ON control.table_control_history (changed_at DESC);

CREATE FUNCTION control.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%.% is append-only: % is refused', TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON control.table_control_history
    FOR EACH STATEMENT EXECUTE FUNCTION control.refuse_change();

-- What a load writes about itself is in historical_metadata; here is what people configure.
CREATE FUNCTION control.state_columns() RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
    SELECT '{control_key,last_status,last_status_date_time,last_load_date_time,last_status_message,last_dagster_run,
             last_databricks_run,retry_count,review_required,staging_model_processed,attempt,lease_expires_at,worker,
             progress_phase,progress_rows,progress_rows_total,stop_requested,schedule_problem,schedule_changed,
             created_at,create_user,last_modified_at,last_modified_user}'::text[]
$$;
CREATE FUNCTION control.columns_of_loads() RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
    SELECT '{incremental_value,backfill_cursor,deletes_checked_at,next_load_date_time,load_full}'::text[]
$$;
CREATE FUNCTION control.changed_by() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT coalesce(nullif(current_setting('control.changed_by', true), ''), session_user)
$$;
CREATE FUNCTION control.change_source() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT coalesce(nullif(current_setting('control.change_source', true), ''), 'sql')
$$;

CREATE FUNCTION control.note_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    before jsonb := CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) - control.state_columns() END;
    after  jsonb := CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) - control.state_columns() END;
    named  jsonb := CASE WHEN TG_OP = 'DELETE' THEN to_jsonb(OLD) ELSE to_jsonb(NEW) END;
    fields text[];
BEGIN
    IF control.change_source() = 'load' THEN
        before := before - control.columns_of_loads();
        after := after - control.columns_of_loads();
    END IF;
    SELECT coalesce(array_agg(key ORDER BY key), '{}') INTO fields
    FROM jsonb_object_keys(coalesce(before, after)) AS key WHERE before->key IS DISTINCT FROM after->key;
    IF TG_OP = 'UPDATE' AND fields = '{}' THEN RETURN NULL; END IF;
    INSERT INTO control.table_control_history (subject, config_id, control_key, db_config_key, changed_by, change_type,
        change_source, changed_fields, old_values, new_values)
    VALUES (TG_ARGV[0], (named->>'config_id')::bigint, named->>'control_key', named->>'db_config_key',
        control.changed_by(), TG_OP, control.change_source(), fields, before, after);
    RETURN NULL;
END
$$;

CREATE FUNCTION control.check_source() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    problem text := control.load_windows_problem(NEW.load_windows);
BEGIN
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION 'load_windows %', problem USING ERRCODE = 'check_violation', CONSTRAINT = 'legal_load_windows';
    END IF;
    IF TG_OP = 'INSERT' THEN
        NEW.create_user := control.changed_by();
    END IF;
    NEW.last_modified_at := now();
    NEW.last_modified_user := control.changed_by();
    RETURN NEW;
END
$$;
CREATE TRIGGER check_source BEFORE INSERT OR UPDATE ON control.table_control_dbconfig
    FOR EACH ROW EXECUTE FUNCTION control.check_source();
CREATE TRIGGER note_change AFTER INSERT OR UPDATE OR DELETE ON control.table_control_dbconfig
    FOR EACH ROW EXECUTE FUNCTION control.note_change('source');
"""

CHECKS = """
CREATE FUNCTION control.check_table() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    other control.table_control;
BEGIN
    IF NOT control.is_time_zone(NEW.load_timezone) THEN
        RAISE EXCEPTION 'load_timezone % is not a time zone', NEW.load_timezone
            USING ERRCODE = 'check_violation', CONSTRAINT = 'legal_load_timezone';
    END IF;
    IF TG_OP = 'INSERT' THEN
        NEW.create_user := control.changed_by();
    ELSIF (NEW.load_cron, NEW.load_timezone) IS DISTINCT FROM (OLD.load_cron, OLD.load_timezone) THEN
        NEW.schedule_problem := NULL;
        -- A row that was loaded before gets its next time from the new schedule, at the next claim.
        NEW.schedule_changed := NEW.load_cron IS NOT NULL AND NEW.last_load_date_time IS NOT NULL
            AND NEW.next_load_date_time IS NOT DISTINCT FROM OLD.next_load_date_time;
        IF NEW.load_cron IS NULL AND NEW.next_load_date_time IS NOT DISTINCT FROM OLD.next_load_date_time THEN
            NEW.next_load_date_time := NULL;
        END IF;
    END IF;
    IF control.change_source() <> 'load' THEN
        NEW.last_modified_at := now();
        NEW.last_modified_user := control.changed_by();
    END IF;
    IF NEW.is_active THEN
        -- Two sources in one table would undo one another. Two schedules of one source may share it, where the
        -- strategy does not keep a history of its own in the table; they take turns.
        PERFORM pg_advisory_xact_lock(hashtextextended(lower(concat_ws('/', 'control', NEW.destination_catalog,
            NEW.destination_schema_name, NEW.destination_table_name)), 0));
        SELECT * INTO other FROM control.table_control AS t
        WHERE t.config_id <> NEW.config_id AND t.is_active
            AND (lower(t.destination_catalog), lower(t.destination_schema_name), lower(t.destination_table_name))
              = (lower(NEW.destination_catalog), lower(NEW.destination_schema_name), lower(NEW.destination_table_name))
            AND ((t.db_config_key, t.source_catalog, t.source_schema_name, t.source_table_name, t.query)
                 IS DISTINCT FROM
                 (NEW.db_config_key, NEW.source_catalog, NEW.source_schema_name, NEW.source_table_name, NEW.query)
              OR t.load_strategy IN ('append_only', 'scd2', 'chunked_backfill')
              OR NEW.load_strategy IN ('append_only', 'scd2', 'chunked_backfill'))
        LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'destination %.%.% is loaded by config % already, and two sources, or a strategy that keeps a history of its own in the table, cannot share one', NEW.destination_catalog,
                NEW.destination_schema_name, NEW.destination_table_name, other.config_id
                USING ERRCODE = 'unique_violation', CONSTRAINT = 'one_source_per_destination';
        END IF;
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER check_table BEFORE INSERT OR UPDATE OF is_active, db_config_key, source_catalog, source_schema_name,
        source_table_name, query, destination_catalog, destination_schema_name, destination_table_name, load_strategy,
        load_cron, load_timezone, incremental_column, incremental_type, incremental_lookback_hours, rolling_column,
        rolling_days, partition_column, num_partitions, lower_bound, upper_bound, primary_key_cols, is_delete,
        delete_mode, schema_contract, priority
    ON control.table_control FOR EACH ROW EXECUTE FUNCTION control.check_table();
CREATE TRIGGER note_change AFTER INSERT OR DELETE OR UPDATE OF is_active, db_config_key, source_catalog,
        source_schema_name, source_table_name, query, destination_catalog, destination_schema_name,
        destination_table_name, load_strategy, load_full, load_cron, load_timezone, incremental_column,
        incremental_type, incremental_value, incremental_lookback_hours, backfill_cursor, rolling_column, rolling_days,
        partition_column, num_partitions, lower_bound, upper_bound, primary_key_cols, is_delete, delete_mode,
        deletes_checked_at, schema_contract, priority, next_load_date_time
    ON control.table_control FOR EACH ROW EXECUTE FUNCTION control.note_change('table');
"""

READINESS = """
-- Every row with its state and a sentence that says why. What a claim may take is state = 'ready' here and nowhere else, so
-- that the reason and the claim cannot disagree. `room` is how many more loads the row's source takes now (null: any).
CREATE VIEW control.table_readiness AS
WITH busy AS MATERIALIZED (
    SELECT db_config_key, count(*) AS loads, min(config_id) FILTER (WHERE load_strategy = 'chunked_backfill') AS backfill
    FROM control.table_control WHERE last_status IN ('Queued', 'In Progress') GROUP BY db_config_key
), source AS MATERIALIZED (
    SELECT d.*, coalesce(b.loads, 0) AS loads, b.backfill, d.max_concurrent_loads - coalesce(b.loads, 0) AS room,
        control.in_load_window(d.load_windows, now()) AS in_window
    FROM control.table_control_dbconfig d LEFT JOIN busy b USING (db_config_key)
)
SELECT t.config_id, t.control_key, t.is_active, t.db_config_key, s.db_type,
    t.source_catalog, t.source_schema_name, t.source_table_name,
    t.destination_catalog, t.destination_schema_name, t.destination_table_name,
    t.load_strategy, t.load_full, t.priority, t.load_cron, t.load_timezone, t.last_status, t.last_status_date_time,
    t.last_status_message, t.last_load_date_time, t.next_load_date_time,
    coalesce(t.next_load_date_time, t.created_at) AS due_since, t.retry_count, t.attempt, t.last_dagster_run,
    t.last_databricks_run, s.room, verdict[1] AS state, verdict[2] AS reason
FROM control.table_control t
LEFT JOIN source s USING (db_config_key)
LEFT JOIN LATERAL (
    SELECT o.config_id FROM control.table_control o
    WHERE o.config_id <> t.config_id AND o.last_status IN ('Queued', 'In Progress')
        AND (lower(o.destination_catalog), lower(o.destination_schema_name), lower(o.destination_table_name))
          = (lower(t.destination_catalog), lower(t.destination_schema_name), lower(t.destination_table_name))
) writer ON true
CROSS JOIN LATERAL (SELECT CASE
    WHEN t.last_status = 'In Progress' AND t.lease_expires_at < now() THEN ARRAY['in progress', format(
        'attempt %s was last heard of before %s; reconcile_monitor will close it', t.attempt,
        to_char(t.lease_expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'))]
    WHEN t.last_status = 'In Progress' THEN ARRAY['in progress', format('attempt %s is loading since %s', t.attempt,
        to_char(t.last_load_date_time AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'))]
    WHEN t.last_status = 'Queued' THEN ARRAY['queued', format('attempt %s waits for its run since %s', t.attempt,
        to_char(t.last_status_date_time AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'))]
    WHEN NOT t.is_active THEN ARRAY['inactive', 'is_active is false']
    WHEN t.db_config_key IS NULL THEN ARRAY['missing database', 'db_config_key is null: it names no source database']
    WHEN t.review_required THEN ARRAY['under review', 'the last load failed and waits for a person: '
        || coalesce(t.last_status_message, 'no message')]
    WHEN t.last_status = 'Failed' AND t.retry_count >= 3 THEN ARRAY['failed', format(
        '%s attempts failed since the last success, which is the limit; a person has to reset it: %s', t.retry_count,
        coalesce(t.last_status_message, 'no message'))]
    WHEN t.last_status = 'Failed' THEN ARRAY['failed', 'the last load failed and waits for retry analysis or a reset: '
        || coalesce(t.last_status_message, 'no message')]
    WHEN t.schedule_problem IS NOT NULL AND t.next_load_date_time IS NULL
        THEN ARRAY['bad schedule', t.schedule_problem]
    WHEN t.last_status = 'Succeeded' AND t.next_load_date_time IS NULL AND t.load_cron IS NULL
        THEN ARRAY['no schedule', 'loaded, and load_cron is null: it loads again only when asked to']
    WHEN t.next_load_date_time > now() THEN ARRAY['not due', 'due at ' || to_char(
        t.next_load_date_time AT TIME ZONE t.load_timezone, 'YYYY-MM-DD HH24:MI:SS ') || t.load_timezone]
    WHEN t.schedule_changed THEN ARRAY['not due', 'load_cron changed: the next claim computes when it is due']
    WHEN s.is_paused THEN ARRAY['source paused', format('source %s is paused%s', t.db_config_key,
        CASE WHEN s.paused_reason <> '' THEN ': ' || s.paused_reason ELSE '' END)]
    WHEN NOT s.in_window THEN ARRAY['outside window', format('source %s takes loads only in %s', t.db_config_key,
        control.describe_load_windows(s.load_windows))]
    WHEN writer.config_id IS NOT NULL THEN ARRAY['destination busy', format(
        'config %s is writing the same destination', writer.config_id)]
    WHEN t.load_strategy = 'chunked_backfill' AND s.backfill IS NOT NULL THEN ARRAY['backfill gate', format(
        'config %s is backfilling from source %s, one at a time', s.backfill, t.db_config_key)]
    WHEN s.room <= 0 THEN ARRAY['source limit', format('source %s has %s of %s loads running', t.db_config_key,
        s.loads, s.max_concurrent_loads)]
    WHEN t.next_load_date_time IS NULL THEN ARRAY['ready', 'due now']
    ELSE ARRAY['ready', 'due since ' || to_char(
        t.next_load_date_time AT TIME ZONE t.load_timezone, 'YYYY-MM-DD HH24:MI:SS ') || t.load_timezone]
END AS verdict) v;
"""


def upgrade() -> None:
    for statements in (FUNCTIONS, SOURCES, TABLES, HISTORY, AUDIT, CHECKS, READINESS):
        op.execute(statements)
