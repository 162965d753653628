-- depends: 026_signing_keys
-- Limits that an operator sets, and what is used of them.

CREATE TABLE visual_ai.operator_limits (
    id           text PRIMARY KEY,
    subject_type text NOT NULL CHECK (subject_type IN ('everybody', 'each_user', 'user', 'role', 'team')),
    -- Of a user in lower case: one account has one limit, whatever its spelling. Empty for everybody and each_user.
    subject_name text NOT NULL DEFAULT '',
    kind         text NOT NULL CHECK (kind IN ('cost_usd', 'tokens', 'runs_at_once', 'upload_bytes', 'batch_size', 'streams')),
    -- Empty for what isn't counted by time.
    period       text NOT NULL DEFAULT '' CHECK (period IN ('', 'day', 'month')),
    amount       numeric(20, 6) NOT NULL CHECK (amount >= 0),
    updated_by   text NOT NULL,
    updated_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (subject_type, subject_name, kind, period)
);

-- Tokens and cost by user and DAG in the days and months of UTC. Every subject's use is a sum of some of a period's rows,
-- however many runs there were. The user is in lower case, and empty for runs that nobody started.
CREATE TABLE visual_ai.limit_usage (
    period    text NOT NULL,
    starts_on date NOT NULL,
    user_id   text NOT NULL,
    dag_id    text NOT NULL,
    tokens    bigint NOT NULL,
    cost_usd  numeric(18, 8) NOT NULL,
    PRIMARY KEY (period, starts_on, user_id, dag_id)
) WITH (fillfactor = 70);

-- What was used this month before there were counters.
INSERT INTO visual_ai.limit_usage
SELECT p.period, date_trunc(p.period, now() AT TIME ZONE 'UTC')::date, lower(coalesce(e.user_id, '')), e.dag_id,
    sum(e.input_tokens + e.output_tokens), coalesce(sum(e.cost_usd), 0)
FROM visual_ai.workflow_executions e CROSS JOIN (VALUES ('day'), ('month')) AS p (period)
WHERE e.queued_at >= date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
  AND e.queued_at >= date_trunc(p.period, now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
GROUP BY 1, 3, 4;

-- Model calls that are in progress, or whose usage isn't recorded yet. Unlogged: what is lost in a crash of the database
-- are calls of that moment.
CREATE UNLOGGED TABLE visual_ai.limit_reservations (
    id           uuid PRIMARY KEY,
    -- The try that made the call, which extends the reservations that it still needs.
    holder       text NOT NULL,
    execution_id uuid NOT NULL,
    user_id      text NOT NULL,
    dag_id       text NOT NULL,
    tokens       bigint NOT NULL,
    cost_usd     numeric(18, 8) NOT NULL,
    expires_at   timestamptz NOT NULL
);
CREATE INDEX limit_reservations_by_holder ON visual_ai.limit_reservations (holder);
CREATE INDEX limit_reservations_by_expiry ON visual_ai.limit_reservations (expires_at);

-- Runs that were admitted and aren't recorded as active yet.
CREATE UNLOGGED TABLE visual_ai.run_slots (
    execution_id uuid PRIMARY KEY,
    user_id      text NOT NULL,
    dag_id       text NOT NULL,
    expires_at   timestamptz NOT NULL
);

-- Streams that the backends serve to users who have a limit of them. A backend confirms its rows every few seconds.
CREATE UNLOGGED TABLE visual_ai.open_streams (
    process_id uuid NOT NULL,
    user_id    text NOT NULL,
    streams    integer NOT NULL,
    seen_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (user_id, process_id)
);

-- The roles that accounts have in Airflow, as last seen by a backend. Users are in lower case.
CREATE TABLE visual_ai.account_roles (
    user_id text NOT NULL,
    role    text NOT NULL,
    PRIMARY KEY (user_id, role)
);
CREATE INDEX account_roles_by_role ON visual_ai.account_roles (role);

-- The team that a DAG belongs to where Airflow has teams, as its tasks have last seen it.
CREATE TABLE visual_ai.dag_teams (
    dag_id text PRIMARY KEY,
    team   text NOT NULL
);
CREATE INDEX dag_teams_by_team ON visual_ai.dag_teams (team);

CREATE TABLE visual_ai.limit_refusals (
    kind    text PRIMARY KEY,
    refused bigint NOT NULL
);

-- Triggers of a user in the present minute and in the one before, for the rate of triggers. Soft state.
CREATE UNLOGGED TABLE visual_ai.trigger_windows (
    user_id    text PRIMARY KEY,
    minute     bigint NOT NULL,
    triggers   integer NOT NULL,
    previous   integer NOT NULL
);

CREATE INDEX images_by_account ON visual_ai.images (lower(user_id));

GRANT SELECT, INSERT, UPDATE, DELETE ON
    visual_ai.operator_limits, visual_ai.limit_usage, visual_ai.limit_reservations, visual_ai.run_slots,
    visual_ai.open_streams, visual_ai.account_roles, visual_ai.dag_teams, visual_ai.limit_refusals,
    visual_ai.trigger_windows TO visual_ai_backend;
GRANT SELECT ON visual_ai.operator_limits, visual_ai.account_roles TO visual_ai_worker;
GRANT SELECT, INSERT, UPDATE ON visual_ai.limit_usage, visual_ai.dag_teams, visual_ai.limit_refusals TO visual_ai_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON visual_ai.limit_reservations TO visual_ai_worker;
