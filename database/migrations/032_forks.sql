-- depends: 031_questions_told
-- The state of an agent from which a run was started: {"dag_run_id", "task_id", "map_index", "agent", "checkpoint_id",
-- "node"}. It is one of the same DAG.
ALTER TABLE visual_ai.workflow_executions ADD COLUMN forked_from jsonb;

CREATE INDEX workflow_executions_forks ON visual_ai.workflow_executions (dag_id, (forked_from ->> 'dag_run_id'))
    WHERE forked_from IS NOT NULL;
