-- Everything the system records about runs, in one schema next to Airflow's own tables.
--
-- Two group roles carry the rights: visual_ai_backend (the API service) and visual_ai_worker (Airflow tasks, triggers
-- and listeners). Neither is granted anything outside this schema, so neither can read or write Airflow's tables.
-- Roles belong to the cluster, not to the database: they are made only if missing.

DO $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'visual_ai_backend') THEN
        CREATE ROLE visual_ai_backend NOLOGIN;
    END IF;
    IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'visual_ai_worker') THEN
        CREATE ROLE visual_ai_worker NOLOGIN;
    END IF;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;  -- another installation made it at the same moment
END
$$;

CREATE SCHEMA IF NOT EXISTS visual_ai;

CREATE TABLE visual_ai.workflow_executions (
    id               uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    dag_id           text NOT NULL,
    dag_run_id       text NOT NULL,
    run_type         text,
    user_id          text,
    triggered_by     text,
    state            text NOT NULL DEFAULT 'queued'
        CHECK (state IN ('queued', 'running', 'success', 'failed', 'cancelled', 'awaiting_input')),
    progress         smallint NOT NULL DEFAULT 0 CHECK (progress BETWEEN 0 AND 100),
    tasks_total      integer NOT NULL DEFAULT 0 CHECK (tasks_total >= 0),
    tasks_done       integer NOT NULL DEFAULT 0 CHECK (tasks_done >= 0),
    input_data       jsonb NOT NULL DEFAULT '{}',
    output_data      jsonb,
    idempotency_key  text,
    template_name    text,
    template_version integer,
    queued_at        timestamptz NOT NULL DEFAULT now(),
    started_at       timestamptz,
    finished_at      timestamptz,
    input_tokens     bigint NOT NULL DEFAULT 0 CHECK (input_tokens >= 0),
    output_tokens    bigint NOT NULL DEFAULT 0 CHECK (output_tokens >= 0),
    cost_usd         numeric(18, 8) CHECK (cost_usd >= 0),
    trace_url        text,
    -- The last sequence number given to an event of this execution; taken under this row's lock.
    last_seq         bigint NOT NULL DEFAULT 0,
    -- Events up to and including this number have been pruned.
    pruned_seq       bigint NOT NULL DEFAULT 0,
    -- Goes up each time a finished run is cleared and starts again.
    attempt          integer NOT NULL DEFAULT 1,
    updated_at       timestamptz NOT NULL DEFAULT now(),
    UNIQUE (dag_id, dag_run_id)
);
CREATE INDEX workflow_executions_newest ON visual_ai.workflow_executions (queued_at DESC, id DESC);
CREATE INDEX workflow_executions_by_user ON visual_ai.workflow_executions (user_id, queued_at DESC);
CREATE INDEX workflow_executions_by_dag ON visual_ai.workflow_executions (dag_id, queued_at DESC);
CREATE INDEX workflow_executions_active ON visual_ai.workflow_executions (queued_at)
    WHERE state IN ('queued', 'running', 'awaiting_input');

-- What Airflow last said of each task instance: the present state behind snapshots and progress.
CREATE TABLE visual_ai.workflow_tasks (
    execution_id uuid NOT NULL REFERENCES visual_ai.workflow_executions (id) ON DELETE CASCADE,
    task_id      text NOT NULL,
    map_index    integer NOT NULL DEFAULT -1,
    try_number   integer NOT NULL DEFAULT 0,
    state        text,
    started_at   timestamptz,
    finished_at  timestamptz,
    duration     double precision,
    updated_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (execution_id, task_id, map_index)
);

-- One row for each agent run (node IS NULL) and one for each node the agent's graph ran.
CREATE TABLE visual_ai.agent_traces (
    id            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    execution_id  uuid NOT NULL REFERENCES visual_ai.workflow_executions (id) ON DELETE CASCADE,
    task_id       text NOT NULL,
    map_index     integer NOT NULL DEFAULT -1,
    try_number    integer NOT NULL,
    agent_name    text NOT NULL,
    agent_type    text NOT NULL,
    node          text,
    model         text,
    state         text NOT NULL CHECK (state IN ('running', 'success', 'failed', 'cancelled', 'skipped')),
    started_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at   timestamptz,
    latency_ms    double precision CHECK (latency_ms >= 0),
    input_tokens  bigint NOT NULL DEFAULT 0 CHECK (input_tokens >= 0),
    output_tokens bigint NOT NULL DEFAULT 0 CHECK (output_tokens >= 0),
    cost_usd      numeric(18, 8) CHECK (cost_usd >= 0),
    retries       integer NOT NULL DEFAULT 0,
    fallbacks     integer NOT NULL DEFAULT 0,
    notice        text,
    trace_id      text,
    input         jsonb,
    output        jsonb
);
CREATE INDEX agent_traces_by_execution ON visual_ai.agent_traces (execution_id, started_at);
CREATE INDEX agent_traces_runs_by_time ON visual_ai.agent_traces (started_at) WHERE node IS NULL;

CREATE TABLE visual_ai.workflow_errors (
    id             uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    execution_id   uuid NOT NULL REFERENCES visual_ai.workflow_executions (id) ON DELETE CASCADE,
    dag_id         text NOT NULL,
    dag_run_id     text NOT NULL,
    task_id        text,
    map_index      integer NOT NULL DEFAULT -1,
    try_number     integer,
    agent_name     text,
    model          text,
    node           text,
    category       text NOT NULL CHECK (category IN (
        'rate_limit', 'timeout', 'context_length', 'server', 'auth', 'quota', 'bad_request', 'content_filter',
        'invalid_output', 'budget', 'tool', 'input', 'cancelled', 'internal')),
    exception_type text NOT NULL,
    message        text NOT NULL,
    action         text NOT NULL,
    attempt        integer NOT NULL DEFAULT 1,
    retry_in       double precision,
    recovered      boolean NOT NULL DEFAULT false,
    context        jsonb NOT NULL DEFAULT '{}',
    occurred_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX workflow_errors_by_execution ON visual_ai.workflow_errors (execution_id, occurred_at);
CREATE INDEX workflow_errors_by_time ON visual_ai.workflow_errors (occurred_at);

CREATE TABLE visual_ai.user_preferences (
    user_id       text PRIMARY KEY,
    default_model text,
    settings      jsonb NOT NULL DEFAULT '{}',
    updated_at    timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE visual_ai.workflow_templates (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name       text NOT NULL,
    version    integer NOT NULL CHECK (version > 0),
    dag_id     text NOT NULL,
    definition jsonb NOT NULL,
    active     boolean NOT NULL DEFAULT false,
    created_by text,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (name, version)
);
CREATE UNIQUE INDEX workflow_templates_one_active ON visual_ai.workflow_templates (name) WHERE active;

-- The durable timeline of each execution; what a stream sends is what stands here.
CREATE TABLE visual_ai.workflow_events (
    execution_id uuid NOT NULL REFERENCES visual_ai.workflow_executions (id) ON DELETE CASCADE,
    seq          bigint NOT NULL CHECK (seq > 0),
    event_type   text NOT NULL CHECK (event_type IN
        ('workflow_update', 'task_update', 'agent_update', 'token', 'error', 'end')),
    payload      jsonb NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (execution_id, seq)
);
CREATE INDEX workflow_events_by_time ON visual_ai.workflow_events USING brin (created_at);

-- An Idempotency-Key stands for one request of one user for ever, whatever became of its first answer.
CREATE TABLE visual_ai.idempotency_keys (
    user_id      text NOT NULL,
    key          text NOT NULL,
    request_hash text NOT NULL,
    dag_id       text NOT NULL,
    dag_run_id   text NOT NULL,
    execution_id uuid NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, key)
);

-- Uploaded pictures. Kept in the database so that a worker on another host reads them without a shared disk.
CREATE TABLE visual_ai.images (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id    text NOT NULL,
    media_type text NOT NULL,
    width      integer NOT NULL CHECK (width > 0),
    height     integer NOT NULL CHECK (height > 0),
    sha256     text NOT NULL,
    content    bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE visual_ai.images ALTER COLUMN content SET STORAGE EXTERNAL;  -- already compressed
CREATE UNIQUE INDEX images_once_per_user ON visual_ai.images (user_id, sha256);

REVOKE ALL ON SCHEMA visual_ai FROM PUBLIC;
GRANT USAGE ON SCHEMA visual_ai TO visual_ai_backend, visual_ai_worker;

GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA visual_ai TO visual_ai_backend;

GRANT SELECT, INSERT, UPDATE ON
    visual_ai.workflow_executions, visual_ai.workflow_tasks, visual_ai.agent_traces, visual_ai.workflow_errors
    TO visual_ai_worker;
GRANT SELECT, INSERT ON visual_ai.workflow_events TO visual_ai_worker;
GRANT SELECT ON visual_ai.images, visual_ai.workflow_templates, visual_ai.user_preferences TO visual_ai_worker;
