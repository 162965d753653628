-- depends: 032_forks
-- The calls of agents' tools: each attempt is claimed before it is made. One that has no outcome was cut off, and nobody
-- knows whether it had its effect.
CREATE TABLE visual_ai.tool_calls (
    execution_id uuid NOT NULL REFERENCES visual_ai.workflow_executions (id) ON DELETE CASCADE,
    task_id      text NOT NULL,
    map_index    integer NOT NULL DEFAULT -1,
    try_number   integer NOT NULL,
    -- LangGraph's thread, and its name for the step's checkpoint and the call in it: the same when the node runs again.
    thread_id    text NOT NULL,
    place        text NOT NULL,
    attempt      integer NOT NULL,
    call_id      text NOT NULL,
    agent        text NOT NULL,
    tool         text NOT NULL,
    arguments    jsonb,
    -- Tells whoever claimed it that the claim is theirs, if the answer of the database was lost.
    claimant     uuid NOT NULL,
    claimed_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at  timestamptz,
    -- released: it has not begun after all, and may be claimed again.
    state        text NOT NULL DEFAULT 'begun' CHECK (state IN ('begun', 'success', 'failed', 'released')),
    result       jsonb,
    PRIMARY KEY (thread_id, place, attempt)
);
CREATE INDEX tool_calls_by_run ON visual_ai.tool_calls (execution_id, claimed_at);

REVOKE ALL ON visual_ai.tool_calls FROM visual_ai_backend, visual_ai_worker;
GRANT SELECT ON visual_ai.tool_calls TO visual_ai_backend;
GRANT SELECT, INSERT ON visual_ai.tool_calls TO visual_ai_worker;
GRANT UPDATE (try_number, claimant, claimed_at, finished_at, state, result) ON visual_ai.tool_calls TO visual_ai_worker;
