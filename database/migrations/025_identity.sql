-- depends: 024_node_values
-- Sessions that ended before their tokens expired, attempts to sign in, and tokens for machines.

-- A token that was signed out. Kept until the token would have expired.
CREATE TABLE visual_ai.revoked_sessions (
    token_id   text PRIMARY KEY,
    user_id    text NOT NULL,
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX revoked_sessions_newest ON visual_ai.revoked_sessions (revoked_at);

-- All tokens of a user that were issued until then are void: the user, or an Admin, signed them out everywhere.
CREATE TABLE visual_ai.session_cutoffs (
    user_id    text PRIMARY KEY,
    not_before double precision NOT NULL,
    set_by     text NOT NULL,
    set_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX session_cutoffs_newest ON visual_ai.session_cutoffs (set_at);

-- Failed attempts, by account, by address, and by both. The empty string stands for any.
CREATE TABLE visual_ai.sign_in_attempts (
    account         text NOT NULL,
    address         text NOT NULL,
    failures        integer NOT NULL DEFAULT 0,
    blocked_until   timestamptz,
    last_attempt_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_success_at timestamptz,
    PRIMARY KEY (account, address)
);
CREATE INDEX sign_in_attempts_oldest ON visual_ai.sign_in_attempts (last_attempt_at);

-- Only a hash of a service token is stored; it is found by its prefix, which is public.
CREATE TABLE visual_ai.service_tokens (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    prefix       text NOT NULL UNIQUE,
    secret_hash  bytea NOT NULL,
    name         text NOT NULL,
    user_id      text NOT NULL,
    -- Tells the creator's account from a later one of the same name.
    account      text,
    scopes       text[] NOT NULL,
    -- Null: all DAGs that the creator may use.
    dag_ids      text[],
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at   timestamptz NOT NULL,
    last_used_at timestamptz,
    revoked_at   timestamptz,
    revoked_by   text
);
CREATE INDEX service_tokens_by_user ON visual_ai.service_tokens (user_id, created_at DESC);

GRANT SELECT, INSERT, DELETE ON visual_ai.revoked_sessions TO visual_ai_backend;
GRANT SELECT, INSERT, UPDATE, DELETE ON visual_ai.session_cutoffs, visual_ai.sign_in_attempts TO visual_ai_backend;
GRANT SELECT, INSERT ON visual_ai.service_tokens TO visual_ai_backend;
GRANT UPDATE (last_used_at, revoked_at, revoked_by) ON visual_ai.service_tokens TO visual_ai_backend;
