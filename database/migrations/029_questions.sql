-- depends: 028_audit_log
-- What agents ask people. Airflow keeps one request per task instance, and on a second one the first one's words: it
-- parks the task and wakes it up again, and here stand the questions and their answers.
CREATE TABLE visual_ai.questions (
    id              uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    execution_id    uuid NOT NULL REFERENCES visual_ai.workflow_executions (id) ON DELETE CASCADE,
    task_id         text NOT NULL,
    map_index       integer NOT NULL DEFAULT -1,
    try_number      integer NOT NULL,
    agent           text NOT NULL,
    node            text,
    -- The pause in LangGraph's words: its thread, and what tells it from others of the thread.
    thread_id       text NOT NULL,
    pause           text NOT NULL,
    kind            text NOT NULL CHECK (kind IN ('question', 'approval', 'breakpoint')),
    subject         text NOT NULL,
    content         jsonb,
    answer_schema   jsonb,
    asked_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at      timestamptz,
    assignees       text[] NOT NULL DEFAULT '{}',
    four_eyes       boolean NOT NULL DEFAULT false,
    answered_at     timestamptz,
    answer          jsonb,
    decision        text,
    answered_by     text,
    answered_via    text CHECK (answered_via IN ('api', 'airflow', 'timeout')),
    idempotency_key text,
    -- When the task was last parked for it, and when Airflow was asked to go on with the task.
    parked_at       timestamptz,
    woken_at        timestamptz,
    -- Nobody waits for an answer any more, because of this.
    closed_at       timestamptz,
    closed_reason   text,
    UNIQUE (thread_id, pause),
    CHECK ((answered_at IS NULL) = (answered_via IS NULL))
);
CREATE INDEX questions_open ON visual_ai.questions (asked_at, id) WHERE answered_at IS NULL AND closed_at IS NULL;
CREATE INDEX questions_by_time ON visual_ai.questions (asked_at, id);
CREATE INDEX questions_by_task ON visual_ai.questions (execution_id, task_id, map_index);
CREATE INDEX questions_to_wake ON visual_ai.questions (answered_at)
    WHERE answered_at IS NOT NULL AND woken_at IS NULL AND closed_at IS NULL;

-- An answer is given once, and then stands.
CREATE FUNCTION visual_ai.keep_answers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.answered_at IS NOT NULL AND (OLD.answered_at, OLD.answer, OLD.decision, OLD.answered_by, OLD.answered_via)
        IS DISTINCT FROM (NEW.answered_at, NEW.answer, NEW.decision, NEW.answered_by, NEW.answered_via) THEN
        RAISE EXCEPTION 'the question % has been answered', OLD.id;
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER questions_keep_answers BEFORE UPDATE ON visual_ai.questions
    FOR EACH ROW EXECUTE FUNCTION visual_ai.keep_answers();

REVOKE ALL ON visual_ai.questions FROM visual_ai_backend, visual_ai_worker;
GRANT SELECT ON visual_ai.questions TO visual_ai_backend, visual_ai_worker;
GRANT INSERT ON visual_ai.questions TO visual_ai_worker;
GRANT UPDATE (answered_at, answer, decision, answered_by, answered_via, idempotency_key, parked_at, woken_at, closed_at,
    closed_reason, assignees, expires_at) ON visual_ai.questions TO visual_ai_backend, visual_ai_worker;

ALTER TABLE visual_ai.workflow_events DROP CONSTRAINT workflow_events_event_type_check;
ALTER TABLE visual_ai.workflow_events ADD CONSTRAINT workflow_events_event_type_check CHECK (event_type IN
    ('workflow_update', 'task_update', 'agent_update', 'token', 'error', 'question', 'answer', 'end')) NOT VALID;
ALTER TABLE visual_ai.agent_traces DROP CONSTRAINT agent_traces_state_check;
ALTER TABLE visual_ai.agent_traces ADD CONSTRAINT agent_traces_state_check CHECK (state IN
    ('running', 'success', 'failed', 'cancelled', 'skipped', 'awaiting_input')) NOT VALID;
