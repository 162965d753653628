-- depends: 014_attempts
-- Where a person finds the trace of an agent, or of a batch's item, in Langfuse; null when none was sent.
ALTER TABLE visual_ai.agent_traces ADD COLUMN trace_url text;
ALTER TABLE visual_ai.batch_items ADD COLUMN trace_url text;
