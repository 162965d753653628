-- depends: 029_questions
-- In a transaction of its own, so that nobody has to wait while old rows are read.
ALTER TABLE visual_ai.workflow_events VALIDATE CONSTRAINT workflow_events_event_type_check;
ALTER TABLE visual_ai.agent_traces VALIDATE CONSTRAINT agent_traces_state_check;
