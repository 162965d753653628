-- depends: 003_threads
-- One row for each input of a batch that came to its end: a retry runs those without a `success`. A row is `superseded`
-- when the batch was begun anew, for other inputs or because somebody wanted it done again.

CREATE TABLE visual_ai.batch_items (
    execution_id  uuid NOT NULL REFERENCES visual_ai.workflow_executions (id) ON DELETE CASCADE,
    task_id       text NOT NULL,
    map_index     integer NOT NULL DEFAULT -1,
    -- The input's position in `inputs`, from 0.
    item_index    integer NOT NULL CHECK (item_index >= 0),
    state         text NOT NULL CHECK (state IN ('success', 'failed', 'superseded')),
    -- The try that ran it.
    try_number    integer NOT NULL,
    output        jsonb,
    error         text,
    category      text,
    model         text,
    input_tokens  bigint NOT NULL DEFAULT 0 CHECK (input_tokens >= 0),
    output_tokens bigint NOT NULL DEFAULT 0 CHECK (output_tokens >= 0),
    cost_usd      numeric(18, 8) CHECK (cost_usd >= 0),
    latency_ms    double precision CHECK (latency_ms >= 0),
    trace_id      text,
    finished_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (execution_id, task_id, map_index, item_index)
);

-- Which input of a batch a trace or an error belongs to; empty outside batches.
ALTER TABLE visual_ai.agent_traces ADD COLUMN item_index integer;
ALTER TABLE visual_ai.workflow_errors ADD COLUMN item_index integer;

GRANT SELECT, INSERT, UPDATE, DELETE ON visual_ai.batch_items TO visual_ai_backend;
GRANT SELECT, INSERT, UPDATE ON visual_ai.batch_items TO visual_ai_worker;
