-- depends: 003_threads
-- Somebody asked to stop the run: what Airflow then calls failed is cancelled, and agents in flight give up.

ALTER TABLE visual_ai.workflow_executions ADD COLUMN cancel_requested_at timestamptz;
