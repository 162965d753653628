-- depends: 002_monitoring_indexes
-- One row for each task instance whose agents keep checkpoints: who may write to them, and for which input they are.

CREATE TABLE visual_ai.workflow_threads (
    thread_id    text PRIMARY KEY,
    execution_id uuid NOT NULL REFERENCES visual_ai.workflow_executions (id) ON DELETE CASCADE,
    -- The latest try of the task; what an earlier one still wants to write is refused.
    try_number   integer NOT NULL,
    -- The LangGraph threads that belong to it: one for each agent.
    agents       text[] NOT NULL,
    input_hash   text NOT NULL,
    -- The task returned its result: a further try was asked for by somebody and starts from nothing.
    completed    boolean NOT NULL DEFAULT false,
    updated_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX workflow_threads_by_execution ON visual_ai.workflow_threads (execution_id);

-- Called in the transaction of each checkpoint write. The row lock makes a later try wait for a write that is under way.
CREATE FUNCTION visual_ai.hold_thread(wanted_thread text, wanted_try integer) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    latest integer;
BEGIN
    SELECT try_number INTO latest FROM visual_ai.workflow_threads WHERE thread_id = wanted_thread FOR SHARE;
    IF latest IS DISTINCT FROM wanted_try THEN
        RAISE EXCEPTION 'try % of % was superseded by try %', wanted_try, wanted_thread, latest
            USING ERRCODE = 'serialization_failure';
    END IF;
END
$$;

GRANT SELECT, INSERT, UPDATE, DELETE ON visual_ai.workflow_threads TO visual_ai_backend, visual_ai_worker;
REVOKE ALL ON FUNCTION visual_ai.hold_thread(text, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION visual_ai.hold_thread(text, integer) TO visual_ai_backend, visual_ai_worker;
