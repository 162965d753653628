-- depends: 027_limits
-- Who did what, when and from where. The backend adds rows and reads them; it can neither change nor delete one, nor say
-- when a row was written.
CREATE TABLE visual_ai.audit_log (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    occurred_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    action      text NOT NULL,
    outcome     text NOT NULL CHECK (outcome IN ('done', 'refused', 'failed')),
    -- Null: nobody who is known.
    user_id     text,
    role        text,
    -- How the token can be recognised: the beginning of a session's id, or the public prefix of a service token.
    credential  text,
    address     text,
    object      text,
    details     jsonb NOT NULL DEFAULT '{}',
    request_id  text
);

-- Each list of the API reads one of these from its end, so that a page costs the same whatever the table holds.
CREATE INDEX audit_log_newest ON visual_ai.audit_log (occurred_at DESC, id DESC);
CREATE INDEX audit_log_by_user ON visual_ai.audit_log (user_id, occurred_at DESC, id DESC);
CREATE INDEX audit_log_by_action ON visual_ai.audit_log (action, occurred_at DESC, id DESC);
CREATE INDEX audit_log_by_user_and_action ON visual_ai.audit_log (user_id, action, occurred_at DESC, id DESC);
CREATE INDEX audit_log_not_done ON visual_ai.audit_log (outcome, user_id, occurred_at DESC, id DESC)
    WHERE outcome <> 'done';
CREATE INDEX audit_log_not_done_newest ON visual_ai.audit_log (outcome, occurred_at DESC, id DESC)
    WHERE outcome <> 'done';

REVOKE ALL ON visual_ai.audit_log FROM visual_ai_backend, visual_ai_worker;
GRANT SELECT ON visual_ai.audit_log TO visual_ai_backend;
GRANT INSERT (action, outcome, user_id, role, credential, address, object, details, request_id)
    ON visual_ai.audit_log TO visual_ai_backend;

-- Deletes with the rights of the schema's owner, for the backend, which may only choose among what is old anyway.
CREATE FUNCTION visual_ai.prune_audit_log(days integer, most integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    deleted bigint;
BEGIN
    IF days IS NULL OR days < 90 THEN
        RAISE EXCEPTION 'the audit log is kept for 90 days at least' USING ERRCODE = 'check_violation';
    END IF;
    DELETE FROM visual_ai.audit_log WHERE id IN (
        SELECT id FROM visual_ai.audit_log WHERE occurred_at < clock_timestamp() - make_interval(days => days)
        ORDER BY occurred_at LIMIT most
    );
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
END;
$$;
REVOKE ALL ON FUNCTION visual_ai.prune_audit_log(integer, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION visual_ai.prune_audit_log(integer, integer) TO visual_ai_backend;
