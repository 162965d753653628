-- depends: 010_batch_items
-- What all agents know together of each model's rate limit and of its provider's failures. Unlogged: it is soft state, found
-- out again within seconds, and is not worth a write to the log for each turn that is taken.

CREATE UNLOGGED TABLE visual_ai.model_limits (
    -- provider:name@scope; the scope is a hash that tells keys and addresses apart.
    model           text PRIMARY KEY,
    -- Changes with all that is decided; not with turns that are taken.
    version         bigint NOT NULL DEFAULT 0,
    phase           text NOT NULL CHECK (phase IN ('ramp', 'open', 'learned')),
    -- Calls a second; empty while nothing limits them.
    rate            double precision CHECK (rate > 0),
    burst           integer NOT NULL DEFAULT 1,
    -- The number of cuts. What a call meets that was admitted before the last one is no news.
    epoch           bigint NOT NULL DEFAULT 0,
    streak          integer NOT NULL DEFAULT 0,
    held_until      timestamptz,
    limited_at      timestamptz,
    active_at       timestamptz,
    changed_at      timestamptz,
    changed_served  bigint NOT NULL DEFAULT 0,
    measured_at     timestamptz,
    measured_served bigint NOT NULL DEFAULT 0,
    -- Turns: a counter that stands at `turn` until `turn_at` and then runs at the rate, and the next one that nobody has.
    turn            double precision NOT NULL DEFAULT 0,
    turn_at         timestamptz,
    tail            double precision NOT NULL DEFAULT 0,
    admitted        bigint NOT NULL DEFAULT 0,
    -- When configured limits allow the next call.
    next_request    timestamptz,
    next_tokens     timestamptz,
    -- The circuit breaker.
    failures        integer NOT NULL DEFAULT 0,
    failed_by       text[] NOT NULL DEFAULT '{}',
    failed_at       timestamptz,
    opened_at       timestamptz,
    open_until      timestamptz,
    open_seconds    double precision NOT NULL DEFAULT 0,
    probing         boolean NOT NULL DEFAULT false,
    -- Since the row was made.
    held_back       bigint NOT NULL DEFAULT 0,
    rate_limited    bigint NOT NULL DEFAULT 0,
    opened          bigint NOT NULL DEFAULT 0
);

GRANT SELECT, INSERT, UPDATE, DELETE ON visual_ai.model_limits TO visual_ai_backend;
GRANT SELECT, INSERT, UPDATE ON visual_ai.model_limits TO visual_ai_worker;
