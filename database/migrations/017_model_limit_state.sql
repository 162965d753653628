-- depends: 016_trace_urls
-- The limiter keeps one versioned document per model, which only it reads and writes. The other columns are generated from
-- it for people and queries. The table is soft state that is learned again within seconds, so its rows need no conversion.
DROP TABLE visual_ai.model_limits;

CREATE UNLOGGED TABLE visual_ai.model_limits (
    -- provider:name@scope; the scope is a hash that tells keys and addresses apart.
    model           text PRIMARY KEY,
    -- Incremented with each change: writers replace the version that they have read.
    version         bigint NOT NULL,
    -- See backend/core/ratelimit/state.py; times are seconds since 1970.
    state           jsonb NOT NULL,
    -- ramp: the limit is being searched for; open: none was met; learned: it was met.
    phase           text GENERATED ALWAYS AS (state ->> 'phase') STORED,
    -- Calls per second; null while nothing limits them.
    rate            double precision GENERATED ALWAYS AS ((state ->> 'rate')::double precision) STORED,
    -- Nobody calls the model before this time.
    held_until      timestamptz GENERATED ALWAYS AS (to_timestamp(nullif((state ->> 'held_until')::double precision, 0))) STORED,
    active_at       timestamptz GENERATED ALWAYS AS (to_timestamp((state ->> 'active_at')::double precision)) STORED,
    -- Since when the provider has been down; null while it is up.
    opened_at       timestamptz GENERATED ALWAYS AS (to_timestamp((state #>> '{circuit,opened_at}')::double precision)) STORED,
    -- Totals: calls that were delayed or rejected, 429s, and how often the provider was found down.
    held_back       bigint GENERATED ALWAYS AS ((state #>> '{counts,held_back}')::bigint) STORED,
    rate_limited    bigint GENERATED ALWAYS AS ((state #>> '{counts,rate_limited}')::bigint) STORED,
    opened          bigint GENERATED ALWAYS AS ((state #>> '{counts,opened}')::bigint) STORED
);

GRANT SELECT, INSERT, UPDATE, DELETE ON visual_ai.model_limits TO visual_ai_backend;
GRANT SELECT, INSERT, UPDATE ON visual_ai.model_limits TO visual_ai_worker;
