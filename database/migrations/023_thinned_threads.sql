-- depends: 022_large_values
-- Whether maintenance has reduced the checkpoints of a task instance to its last state.
ALTER TABLE visual_ai.workflow_threads ADD COLUMN thinned boolean NOT NULL DEFAULT false;
