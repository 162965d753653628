-- depends: 019_open_agents
-- Finds the runs that succeeded although their agents' result did not arrive.
CREATE INDEX workflow_executions_without_result ON visual_ai.workflow_executions (finished_at)
    WHERE state = 'success' AND output_data IS NULL;
