-- Versions of assignments, and what configuration lacked.

-- Every state that an assignment was saved in. Written by trigger, whoever saves, and by nobody else: immutable
-- by grant. `state` holds all its columns that say what it does, with prompt and targets; `names` its models by id,
-- for people who read of one that is gone.
CREATE TABLE assignment_versions (
    assignment_id uuid NOT NULL,
    version integer NOT NULL,
    state jsonb NOT NULL,
    names jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by uuid,
    CONSTRAINT pk_assignment_versions PRIMARY KEY (assignment_id, version),
    CONSTRAINT fk_assignment_versions_assignment_id_feature_ai_assignments FOREIGN KEY (assignment_id) REFERENCES feature_ai_assignments (id) ON DELETE CASCADE
);

-- Nothing where the assignment is as it was: sent again unchanged it is no new version.
CREATE FUNCTION keep_assignment_version(saved uuid) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT AS $$
    WITH latest AS (
        SELECT version, state FROM assignment_versions WHERE assignment_id = saved ORDER BY version DESC LIMIT 1
    ), now_saved AS (
        SELECT
            a.updated_by,
            to_jsonb(a) - ARRAY['id', 'feature_id', 'prompt_template_id', 'created_at', 'created_by', 'updated_at', 'updated_by']
            || jsonb_build_object(
                'prompt_template', CASE WHEN p.id IS NOT NULL THEN jsonb_build_object(
                    'id', p.id, 'version', p.version, 'system', p.system_template, 'user', p.user_template) END,
                'targets', coalesce(
                    (SELECT jsonb_agg(to_jsonb(t) - 'assignment_id' ORDER BY t.position)
                     FROM assignment_targets t WHERE t.assignment_id = a.id), '[]')) AS state,
            coalesce(
                (SELECT jsonb_object_agg(m.id, o.slug || '/' || m.model_id)
                 FROM assignment_targets t JOIN ai_models m ON m.id = t.model_id JOIN ai_providers o ON o.id = m.provider_id
                 WHERE t.assignment_id = a.id), '{}') AS names
        FROM feature_ai_assignments a LEFT JOIN prompt_templates p ON p.id = a.prompt_template_id
        WHERE a.id = saved
    )
    INSERT INTO assignment_versions (assignment_id, version, state, names, created_at, created_by)
    SELECT saved, coalesce((SELECT version FROM latest), 0) + 1, state, names, clock_timestamp(), updated_by
    FROM now_saved WHERE state IS DISTINCT FROM (SELECT state FROM latest)
$$;

CREATE FUNCTION assignment_saved() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_TABLE_NAME = 'feature_ai_assignments' THEN
        PERFORM keep_assignment_version(NEW.id);
    ELSIF TG_OP = 'DELETE' THEN
        PERFORM keep_assignment_version(OLD.assignment_id);
    ELSE
        PERFORM keep_assignment_version(NEW.assignment_id);
    END IF;
    RETURN NULL;
END $$;

-- At commit: targets are replaced one by one, and only what is committed was ever in force.
CREATE CONSTRAINT TRIGGER keep_version AFTER INSERT OR UPDATE ON feature_ai_assignments
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION assignment_saved();
CREATE CONSTRAINT TRIGGER keep_version AFTER INSERT OR UPDATE OR DELETE ON assignment_targets
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION assignment_saved();

SELECT keep_assignment_version(id) FROM feature_ai_assignments;

REVOKE ALL ON FUNCTION keep_assignment_version(uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION assignment_saved() FROM PUBLIC;
GRANT SELECT ON assignment_versions TO orrery_api;
