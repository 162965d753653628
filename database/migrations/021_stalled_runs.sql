-- depends: 020_missing_results
-- Why a run that has not ended doesn't go on, in a sentence; null while it does, or while that isn't known.
ALTER TABLE visual_ai.workflow_executions ADD COLUMN waits_for text;
