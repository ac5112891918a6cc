-- Audit: an append-only log whose rows are chained by hashes, and triggers that write it for the configuration.

-- Ids count without gaps, and times rise with them.
CREATE TABLE audit_log (
    id bigint NOT NULL,
    at timestamptz NOT NULL,
    actor text NOT NULL,
    admin_id uuid,
    action text NOT NULL,
    noun text NOT NULL,
    noun_id text,
    before jsonb,
    after jsonb,
    request_id text,
    previous_hash bytea NOT NULL,
    hash bytea NOT NULL,
    CONSTRAINT pk_audit_log PRIMARY KEY (id)
);
CREATE INDEX ix_audit_log_at ON audit_log (at);
CREATE INDEX ix_audit_log_actor_id ON audit_log (actor, id);
CREATE INDEX ix_audit_log_action_id ON audit_log (action, id);
CREATE INDEX ix_audit_log_noun_id ON audit_log (noun, id);
CREATE INDEX ix_audit_log_noun_id_id ON audit_log (noun_id, id);

-- The end of the chain. Its lock is what makes ids gapless; every transaction takes it last.
CREATE TABLE audit_head (
    only_row boolean NOT NULL DEFAULT true,
    last_id bigint NOT NULL DEFAULT 0,
    last_at timestamptz NOT NULL DEFAULT '1970-01-01 00:00+00',
    last_hash bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex'),
    CONSTRAINT pk_audit_head PRIMARY KEY (only_row),
    CONSTRAINT ck_audit_head_only_row CHECK (only_row)
) WITH (fillfactor = 10);
INSERT INTO audit_head DEFAULT VALUES;

-- What a row is hashed as: each column as text, behind its length in characters, so that nothing can be moved
-- from one column to the next; `-` is NULL. `store.audit.row_hash` says the same in Python.
CREATE FUNCTION audit_hash(entry audit_log) RETURNS bytea
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT sha256(convert_to(
        string_agg(coalesce(length(field)::text || ':' || field, '-'), ',' ORDER BY place), 'UTF8'))
    FROM unnest(ARRAY[
        entry.id::text, encode(entry.previous_hash, 'hex'), extract(epoch FROM entry.at)::text, entry.actor,
        entry.admin_id::text, entry.action, entry.noun, entry.noun_id, entry.before::text, entry.after::text,
        entry.request_id
    ]) WITH ORDINALITY AS fields (field, place)
$$;

-- Without an actor it is whoever the transaction's settings name: orrery.actor in words, orrery.token_id,
-- orrery.admin_id. Where nobody is named somebody works at the database itself, or a service on its own.
CREATE FUNCTION audit_append(
    actor text, admin_id uuid, action text, noun text, noun_id text, before jsonb, after jsonb,
    request_id text DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_variable
DECLARE
    token uuid := nullif(current_setting('orrery.token_id', true), '')::uuid;
    head audit_head;
    entry audit_log;
BEGIN
    IF admin_id IS NULL AND actor IS NULL AND token IS NULL THEN
        admin_id := nullif(current_setting('orrery.admin_id', true), '')::uuid;
    END IF;
    actor := coalesce(actor, nullif(current_setting('orrery.actor', true), ''));
    IF actor IS NULL AND admin_id IS NOT NULL THEN
        actor := 'admin ' || coalesce((SELECT email FROM admins WHERE id = admin_id), admin_id::text);
    ELSIF actor IS NULL AND token IS NOT NULL THEN
        actor := 'application ' || coalesce((SELECT name FROM app_tokens WHERE id = token), token::text);
    ELSIF actor IS NULL THEN
        actor := CASE current_setting('role') WHEN 'none' THEN 'database ' || session_user ELSE 'system' END;
    END IF;
    SELECT * INTO STRICT head FROM audit_head FOR UPDATE;
    entry.id := head.last_id + 1;
    entry.at := greatest(clock_timestamp(), head.last_at + interval '1 microsecond');
    entry.actor := left(actor, 300);
    entry.admin_id := admin_id;
    entry.action := action;
    entry.noun := noun;
    entry.noun_id := left(noun_id, 300);
    entry.before := before;
    entry.after := after;
    entry.request_id := coalesce(request_id, nullif(current_setting('orrery.request_id', true), ''));
    entry.previous_hash := head.last_hash;
    entry.hash := audit_hash(entry);
    INSERT INTO audit_log SELECT entry.*;
    UPDATE audit_head SET last_id = entry.id, last_at = entry.at, last_hash = entry.hash;
    RETURN entry.id;
END $$;

-- What the running transaction has done to the configuration. Always empty to everybody else: the transaction
-- takes its rows out again when it commits, and writes one audit row for each noun that it changed.
CREATE UNLOGGED TABLE audit_pending (
    seq bigint GENERATED ALWAYS AS IDENTITY,
    source oid NOT NULL,
    row_key jsonb NOT NULL,
    noun text NOT NULL,
    noun_id text,
    part text NOT NULL,
    secrets text[] NOT NULL,
    before jsonb,
    after jsonb,
    CONSTRAINT pk_audit_pending PRIMARY KEY (seq)
);

-- Secrets never get here: any bytea, and columns named like one, are replaced by a digest that only tells whether
-- they changed. Being so by rule, a column that a later release adds is not forgotten.
CREATE FUNCTION audit_capture() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET timezone TO 'UTC' AS $$
DECLARE
    keys text[] := TG_ARGV[3];
    ignored text[] := TG_ARGV[4];
    secrets text[];
    hidden text;
    before jsonb;
    after jsonb;
    key_before jsonb;
    key_after jsonb;
BEGIN
    IF TG_OP <> 'INSERT' THEN before := to_jsonb(OLD); END IF;
    IF TG_OP <> 'DELETE' THEN after := to_jsonb(NEW); END IF;
    IF before - ignored = after - ignored THEN
        RETURN NULL;
    END IF;
    SELECT coalesce(array_agg(attname::text), '{}') INTO secrets FROM pg_attribute
    WHERE attrelid = TG_RELID AND attnum > 0 AND NOT attisdropped
      AND (atttypid = 'bytea'::regtype OR attname ~ '^sealed_|(^|_)(hash|hashes|password|secret|credentials|otp|recovery_codes|api_key)$');
    FOREACH hidden IN ARRAY secrets LOOP
        IF before ->> hidden IS NOT NULL THEN
            before := before || jsonb_build_object(hidden, sha256(convert_to(before ->> hidden, 'UTF8'))::text);
        END IF;
        IF after ->> hidden IS NOT NULL THEN
            after := after || jsonb_build_object(hidden, sha256(convert_to(after ->> hidden, 'UTF8'))::text);
        END IF;
    END LOOP;
    SELECT jsonb_object_agg(key, before -> key), jsonb_object_agg(key, after -> key) INTO key_before, key_after
    FROM unnest(keys) AS key;
    IF TG_OP = 'UPDATE' AND key_before = key_after THEN
        INSERT INTO audit_pending (source, row_key, noun, noun_id, part, secrets, before, after) VALUES (
            TG_RELID, key_after, TG_ARGV[0], after ->> TG_ARGV[1], TG_ARGV[2], secrets, before - ignored,
            after - ignored);
        RETURN NULL;
    END IF;
    IF before IS NOT NULL THEN
        INSERT INTO audit_pending (source, row_key, noun, noun_id, part, secrets, before) VALUES (
            TG_RELID, key_before, TG_ARGV[0], before ->> TG_ARGV[1], TG_ARGV[2], secrets, before - ignored);
    END IF;
    IF after IS NOT NULL THEN
        INSERT INTO audit_pending (source, row_key, noun, noun_id, part, secrets, after) VALUES (
            TG_RELID, key_after, TG_ARGV[0], after ->> TG_ARGV[1], TG_ARGV[2], secrets, after - ignored);
    END IF;
    RETURN NULL;
END $$;

-- At commit, because the chain's head must be locked last, and because a request that flushes twice, or replaces
-- an assignment's targets one by one, has made one change.
CREATE FUNCTION audit_settle() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE change record;
BEGIN
    IF NEW.seq <= nullif(current_setting('orrery.audit_settled', true), '')::bigint THEN
        RETURN NULL;  -- together with an earlier row; without this n rows would cost n * n
    END IF;
    PERFORM set_config('orrery.audit_settled', max(seq)::text, true) FROM audit_pending;
    FOR change IN
        WITH taken AS (
            DELETE FROM audit_pending RETURNING *
        ), rows AS (
            SELECT
                min(seq) AS seq, row_key, noun, noun_id, part, min(secrets) AS secrets,
                (array_agg(before ORDER BY seq))[1] AS before, (array_agg(after ORDER BY seq DESC))[1] AS after
            FROM taken GROUP BY source, row_key, noun, noun_id, part
        ), members AS (
            SELECT rows.*, key,
                CASE WHEN key = ANY (secrets) AND was <> 'null' THEN '"(secret)"' ELSE was END AS was,
                CASE WHEN became IS NULL OR became = 'null' OR key <> ALL (secrets) THEN became
                     WHEN before IS NULL THEN '"(secret)"' ELSE '"(changed)"' END AS became
            FROM rows, LATERAL (
                SELECT key, earlier.value AS was, later.value AS became
                FROM jsonb_each(before) AS earlier FULL JOIN jsonb_each(after) AS later USING (key)
            ) AS both_sides
            WHERE coalesce(was, 'null') <> coalesce(became, 'null') OR part <> '' AND before <> after
        ), parts AS (
            SELECT min(seq) AS seq, noun, noun_id, part,
                jsonb_object_agg(key, was) FILTER (WHERE was IS NOT NULL) AS was,
                jsonb_object_agg(key, became) FILTER (WHERE became IS NOT NULL) AS became
            FROM members WHERE part <> '' GROUP BY noun, noun_id, part, row_key
        ), named AS (
            SELECT seq, noun, noun_id, key, was, became,
                before IS NULL AS is_new, after IS NULL AS is_gone
            FROM members WHERE part = ''
            UNION ALL
            SELECT min(seq), noun, noun_id, part, jsonb_agg(was ORDER BY seq) FILTER (WHERE was IS NOT NULL),
                jsonb_agg(became ORDER BY seq) FILTER (WHERE became IS NOT NULL), false, false
            FROM parts GROUP BY noun, noun_id, part
        )
        SELECT noun, noun_id,
            CASE WHEN bool_or(is_new) THEN 'create' WHEN bool_or(is_gone) THEN 'delete' ELSE 'update' END AS action,
            jsonb_object_agg(key, was) FILTER (WHERE was IS NOT NULL) AS was,
            jsonb_object_agg(key, became) FILTER (WHERE became IS NOT NULL) AS became
        FROM named GROUP BY noun, noun_id ORDER BY min(seq)
    LOOP
        PERFORM audit_append(NULL, NULL, change.action, change.noun, change.noun_id, change.was, change.became);
    END LOOP;
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER audit_settle AFTER INSERT ON audit_pending DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION audit_settle();

CREATE FUNCTION audit_truncation() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM audit_append(NULL, NULL, 'truncate', TG_ARGV[0], NULL, NULL, NULL);
    RETURN NULL;
END $$;

-- Audits a table from now on, whoever writes it. `part`: its rows belong to another noun and are listed there
-- under this name, `id_column` being that noun's id. `ignored` columns are no change.
CREATE FUNCTION audit_table(
    audited regclass, noun text, id_column text DEFAULT 'id', part text DEFAULT '', ignored text[] DEFAULT '{}'
) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE keys text[];
BEGIN
    SELECT array_agg(attname::text) INTO STRICT keys
    FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
    WHERE indrelid = audited AND indisprimary;
    ignored := ignored || ARRAY['created_at', 'created_by', 'updated_at', 'updated_by'];
    IF part <> '' THEN
        ignored := ignored || id_column;
    END IF;
    EXECUTE format(
        'CREATE TRIGGER audit_change AFTER INSERT OR UPDATE OR DELETE ON %s '
        'FOR EACH ROW EXECUTE FUNCTION audit_capture(%L, %L, %L, %L, %L)',
        audited, noun, id_column, part, keys, ignored);
    EXECUTE format(
        'CREATE TRIGGER audit_truncation AFTER TRUNCATE ON %s '
        'FOR EACH STATEMENT EXECUTE FUNCTION audit_truncation(%L)', audited, noun);
END $$;

SELECT audit_table('ai_providers', 'providers');
SELECT audit_table('ai_models', 'models');
SELECT audit_table('model_prices', 'models', 'model_id', 'prices');
SELECT audit_table('features', 'features', 'name');
SELECT audit_table('prompt_templates', 'prompt-templates');
SELECT audit_table('feature_ai_assignments', 'feature-assignments');
SELECT audit_table('assignment_targets', 'feature-assignments', 'assignment_id', 'targets');
SELECT audit_table('lanes', 'queues', 'name', '', '{changed_at,changed_by,resumed_at}');
SELECT audit_table('admins', 'admins');
SELECT audit_table('app_tokens', 'tokens');

REVOKE ALL ON FUNCTION audit_append(text, uuid, text, text, text, jsonb, jsonb, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION audit_capture() FROM PUBLIC;
REVOKE ALL ON FUNCTION audit_settle() FROM PUBLIC;
REVOKE ALL ON FUNCTION audit_truncation() FROM PUBLIC;
REVOKE ALL ON FUNCTION audit_table(regclass, text, text, text, text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit_append(text, uuid, text, text, text, jsonb, jsonb, text) TO orrery_api, orrery_worker;
GRANT SELECT ON audit_log, audit_head TO orrery_api;
