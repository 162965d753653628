-- depends: 017_model_limit_state
-- Why a run failed or was cancelled, in a sentence; null while that isn't known, and for all other runs.
ALTER TABLE visual_ai.workflow_executions ADD COLUMN reason text;

-- Finds the runs whose end has yet to be explained.
CREATE INDEX workflow_executions_unexplained ON visual_ai.workflow_executions (finished_at)
    WHERE reason IS NULL AND state IN ('failed', 'cancelled');
