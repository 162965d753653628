-- depends: 033_tool_calls
-- What graphs write to their stream writers. Validated in a transaction of its own, so that nobody waits for old rows.
ALTER TABLE visual_ai.workflow_events DROP CONSTRAINT workflow_events_event_type_check;
ALTER TABLE visual_ai.workflow_events ADD CONSTRAINT workflow_events_event_type_check CHECK (event_type IN
    ('workflow_update', 'task_update', 'agent_update', 'token', 'error', 'question', 'answer', 'custom', 'end'))
    NOT VALID;
